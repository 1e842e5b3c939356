//! Nodes come and go, and the balancer follows.

use std::collections::BTreeSet;

use e2e::docker::docker;
use e2e::http::Load;
use e2e::wait::same;
use e2e::{Container, Lab, Look, eventually};

#[test]
fn two_nodes_answer_in_turn_and_sessions_stick() {
    let (_lab, balancer, nodes) = Lab::with_nodes(Look::Hardened, 2);
    let hosts: BTreeSet<String> = nodes.iter().map(|node| node.member()).collect();

    let seen: BTreeSet<String> = (0..10).map(|_| balancer.get("/", None).unwrap().host().unwrap()).collect();
    assert_eq!(seen, hosts);

    for _ in 0..4 {
        let first = balancer.get("/", None).unwrap();
        let cookie = first.cookie.clone().expect("a new session sets its cookie");
        assert!(cookie.starts_with("NODESESSID=") && cookie.contains('~'), "{cookie}");
        for views in 2..6 {
            let next = balancer.get("/", Some(&cookie)).unwrap();
            assert_eq!(next.host().unwrap(), first.host().unwrap());
            assert_eq!(next.field("sessionViews").unwrap(), views.to_string());
        }
    }
}

#[test]
fn third_to_fifth_node_join_with_the_lab_s_line() {
    let (lab, balancer, mut nodes) = Lab::with_nodes(Look::Plain, 2);
    for number in 3..=5 {
        nodes.push(lab.node(&format!("s{number}")));
    }
    balancer.settles_on(&nodes.iter().collect::<Vec<_>>(), 15);
}

#[test]
fn stopped_killed_and_removed_nodes_are_taken_out_and_started_ones_come_back() {
    let (lab, balancer, nodes) = Lab::with_nodes(Look::Plain, 4);
    let [s1, s2, s3, s4] = &nodes[..] else { unreachable!() };

    let old = s1.address();
    s1.stop();
    balancer.settles_on(&[s2, s3, s4], 10);
    s2.kill();
    balancer.settles_on(&[s3, s4], 20);
    s3.remove();
    balancer.settles_on(&[s4], 20);

    // The lowest free address goes to the next container: s1 comes back under another one.
    let taker = lab.node("s5");
    s1.start();
    assert_ne!(s1.address(), old);
    s2.start();
    balancer.settles_on(&[s1, s2, s4, &taker], 30);
}

/// A member that has not heard of a return still passes the leave on. If the leave has the later time, as it is given here by
/// `force-leave`, the balancer's agent lists the returned member as leaving until that joins again.
#[test]
fn a_returned_node_that_is_taken_for_leaving_joins_again() {
    let lab = Lab::new(Look::Hardened);
    let balancer = lab.balancer("ha");
    // They join only the balancer; the first two by name do so in every round.
    let mut nodes = ["s1", "s2", "s3", "s4"].map(|name| lab.node_with(name, &["--env", "SERF_JOIN=ha"]));
    balancer.settles_on(&nodes.each_ref(), 30);
    nodes.sort_by_key(Container::member);
    let (returned, deaf) = (&nodes[3], &nodes[0]);
    let status = || {
        let members = balancer.exec(&["serf", "members", "-name", &returned.member(), "-format=json"]);
        let members: serde_json::Value = serde_json::from_str(&members).unwrap();
        members["members"][0]["status"].as_str().unwrap_or_default().to_owned()
    };
    returned.stop();
    balancer.settles_on(&[&nodes[0], &nodes[1], &nodes[2]], 20);
    let queries = || balancer.logs().matches("query: address").count();
    let before = queries();
    deaf.cut_gossip(&["INPUT", "OUTPUT"]);
    returned.start();
    let _ = deaf.exec(&["sh", "-ec", "for _ in $(seq 20); do serf force-leave $0; done", &returned.member()]);
    // Right after its first joins it queries the balancers about its own name.
    eventually("the node has joined by itself", 20, || (queries() > before).then_some(()).ok_or_else(|| "no query".to_owned()));
    eventually("the node is back", 20, || same(&status(), &"alive".to_owned()));
    deaf.mend_exchanges(&balancer);
    let _ = deaf.exec(&["serf", "join", &balancer.address()]);
    eventually("the node is taken for leaving", 20, || same(&status(), &"leaving".to_owned()));
    eventually("the node has joined again", 90, || same(&status(), &"alive".to_owned()));
    deaf.mend_network();
    balancer.settles_on(&nodes.each_ref(), 30);
}

/// Serf keeps the name of a dead member from a newcomer with another address, so that the node must notice and take
/// another name: at once, while it still counts as alive, and after it was declared failed.
#[test]
fn a_killed_node_comes_back_under_another_address() {
    for (look, declared) in [(Look::Plain, false), (Look::Hardened, true)] {
        let (lab, balancer, nodes) = Lab::with_nodes(look, 2);
        let [s1, s2] = &nodes[..] else { unreachable!() };
        let old = s1.address();
        s1.kill();
        if declared {
            balancer.settles_on(&[s2], 20);
        }
        let taker = lab.node("s3");
        assert_eq!(taker.address(), old, "the address of the killed node is given to the next one");
        s1.start();
        balancer.settles_on(&[s1, s2, &taker], 15);
    }
}

/// Takes a container off its network, or puts it there again, on the lowest address that is free.
fn network(lab: &Lab, what: &str, node: &Container) {
    let _ = docker(&["network", what, lab.network(), &node.name]);
}

#[test]
fn a_running_node_is_followed_to_another_address() {
    for look in [Look::Plain, Look::Hardened] {
        let (lab, balancer, nodes) = Lab::with_nodes(look, 2);
        let [s1, s2] = &nodes[..] else { unreachable!() };
        let old = s1.address();
        network(&lab, "disconnect", s1);
        let taker = lab.node("s3");
        assert_eq!(taker.address(), old);
        network(&lab, "connect", s1);
        assert_ne!(s1.address(), old);
        let load = Load::start(&format!("http://127.0.0.1:{}/", balancer.port(80)), 4);
        balancer.settles_on(&[s1, s2, &taker], 10);
        let (sent, lost) = load.finish();
        assert!(sent > 100 && lost.is_empty(), "{} of {sent} lost: {:?}", lost.len(), lost.first());
    }
}

/// Serf ends with 0 here, as it does when the cluster refuses its name.
#[test]
fn a_node_whose_agent_has_left_comes_back_under_its_name() {
    let (_lab, balancer, nodes) = Lab::with_nodes(Look::Hardened, 2);
    let agent = nodes[0].service_pid("serf");
    let _ = nodes[0].exec(&["serf", "leave"]);
    eventually("the agent is started again", 20, || {
        let now = nodes[0].service_pid("serf");
        if now.is_some() && now != agent { Ok(()) } else { Err(format!("{now:?}")) }
    });
    balancer.settles_on(&nodes.iter().collect::<Vec<_>>(), 20);
    let refused = nodes[0].try_exec(&["test", "-e", "/run/serf/name-refused"], "");
    assert_eq!(refused.status.code(), Some(1), "{}", nodes[0].logs());
}

/// Of the third node the cluster never doubts.
#[test]
fn two_running_nodes_swap_their_addresses() {
    let (lab, balancer, nodes) = Lab::with_nodes(Look::Hardened, 3);
    let [s1, s2, s3] = &nodes[..] else { unreachable!() };
    let old = [s1.address(), s2.address()];
    for node in [s1, s2] {
        network(&lab, "disconnect", node);
    }
    for node in [s2, s1] {
        network(&lab, "connect", node);
    }
    assert_eq!([s2.address(), s1.address()], old);
    let load = Load::start(&format!("http://127.0.0.1:{}/", balancer.port(80)), 4);
    balancer.settles_on(&[s1, s2, s3], 10);
    let (sent, lost) = load.finish();
    assert!(sent > 100 && lost.is_empty(), "{} of {sent} lost: {:?}", lost.len(), lost.first());
}

/// The cluster has declared it failed, and the agent has declared all others failed.
#[test]
fn a_node_that_was_off_the_network_for_long_comes_back_under_another_address() {
    let (lab, balancer, nodes) = Lab::with_nodes(Look::Hardened, 2);
    let [s1, s2] = &nodes[..] else { unreachable!() };
    network(&lab, "disconnect", s1);
    balancer.settles_on(&[s2], 30);
    let taker = lab.node("s3");
    network(&lab, "connect", s1);
    balancer.settles_on(&[s1, s2, &taker], 10);
}

#[test]
fn a_running_balancer_that_gets_another_address_has_its_nodes_again() {
    let (lab, balancer, nodes) = Lab::with_nodes(Look::Plain, 2);
    let nodes: Vec<_> = nodes.iter().collect();
    network(&lab, "disconnect", &balancer);
    let _taker = lab.node_with("s3", &["-e", "ROLE=other"]);
    let _ = docker(&["network", "connect", "--alias", "ha", lab.network(), &balancer.name]);
    eventually("its agent announces the new address", 15, || {
        let members = nodes[0].exec(&["serf", "members"]);
        let address = format!(" {}:7946 ", balancer.address());
        if members.lines().any(|line| line.contains(&address) && line.contains("alive")) { Ok(()) } else { Err(members) }
    });
    balancer.settles_on(&nodes, 10);
}

#[test]
fn a_balancer_that_is_replaced_finds_its_nodes_again() {
    for look in [Look::Plain, Look::Hardened] {
        let (lab, balancer, nodes) = Lab::with_nodes(look, 2);
        drop(balancer);
        let balancer = lab.balancer("ha");
        balancer.settles_on(&nodes.iter().collect::<Vec<_>>(), 10);
    }
}

#[test]
fn a_restarted_balancer_finds_its_nodes_again() {
    let (_lab, balancer, nodes) = Lab::with_nodes(Look::Plain, 2);
    let nodes: Vec<_> = nodes.iter().collect();
    balancer.stop();
    balancer.start();
    balancer.settles_on(&nodes, 15);
    balancer.kill();
    balancer.start();
    balancer.settles_on(&nodes, 30);
}

#[test]
fn the_balancer_may_start_last() {
    for look in [Look::Plain, Look::Hardened] {
        let lab = Lab::new(look);
        let nodes = [lab.node("s1"), lab.node("s2")];
        // Minutes or seconds make no difference: a node that sees no balancer looks again for as long as it runs.
        eventually("the nodes have looked in vain", 20, || {
            let tried = nodes.iter().all(|node| node.service_pid("join").is_some());
            if tried { Ok(()) } else { Err("join does not run".to_owned()) }
        });
        let balancer = lab.balancer("ha");
        balancer.settles_on(&nodes.iter().collect::<Vec<_>>(), 15);
    }
}

#[test]
fn the_balancer_may_start_in_the_middle_or_all_at_once() {
    let lab = Lab::new(Look::Plain);
    let first = lab.node("s1");
    let balancer = lab.balancer("ha");
    let second = lab.node("s2");
    balancer.settles_on(&[&first, &second], 15);

    let lab = Lab::new(Look::Hardened);
    let (balancer, nodes) = std::thread::scope(|scope| {
        let nodes: Vec<_> = (1..=3)
            .map(|number| {
                scope.spawn({
                    let lab = &lab;
                    move || lab.node(&format!("s{number}"))
                })
            })
            .collect();
        let balancer = lab.balancer("ha");
        (balancer, nodes.into_iter().map(|node| node.join().unwrap()).collect::<Vec<_>>())
    });
    balancer.settles_on(&nodes.iter().collect::<Vec<_>>(), 15);
}

#[test]
fn two_balancers_on_one_network_end_with_the_same_file() {
    let (lab, first, nodes) = Lab::with_nodes(Look::Hardened, 3);
    let second = lab.balancer("ha2");
    second.settles_on(&nodes.iter().collect::<Vec<_>>(), 15);
    nodes[0].stop();
    let left: Vec<_> = nodes[1..].iter().collect();
    first.settles_on(&left, 10);
    second.settles_on(&left, 10);
    let file = ["cat", "/usr/local/etc/haproxy/haproxy.cfg"];
    assert_eq!(first.exec(&file), second.exec(&file));
}

#[test]
fn other_roles_are_not_load_balanced() {
    let (lab, balancer, nodes) = Lab::with_nodes(Look::Hardened, 1);
    let other = lab.node_with("other", &["-e", "ROLE=database"]);
    eventually("the other member is there", 15, || {
        let members = balancer.exec(&["serf", "members"]);
        if members.contains(&other.member()) { Ok(()) } else { Err(members) }
    });
    let _ = balancer.exec(&["sync-nodes"]);
    balancer.settles_on(&[&nodes[0]], 5);
}

#[test]
fn tags_change_port_weight_and_drain_of_a_live_node() {
    let (_lab, balancer, nodes) = Lab::with_nodes(Look::Hardened, 2);
    let [s1, s2] = &nodes[..] else { unreachable!() };
    let _ = s1.exec(&["serf", "tags", "-set", "drain=yes"]);
    eventually("the node drains", 10, || same(&balancer.registry().contains(&format!("{} drain=yes", s1.line())), &true));
    eventually("only the other node gets new sessions", 10, || {
        let seen: BTreeSet<String> = (0..6).map(|_| balancer.get("/", None).unwrap().host().unwrap()).collect();
        same(&seen, &BTreeSet::from([s2.member()]))
    });
    let _ = s1.exec(&["serf", "tags", "-delete", "drain"]);
    balancer.settles_on(&[s1, s2], 10);
}

#[test]
fn nodes_on_another_network_stay_out() {
    let (_lab, balancer, nodes) = Lab::with_nodes(Look::Plain, 1);
    let (_other_lab, other, others) = Lab::with_nodes(Look::Plain, 1);
    balancer.settles_on(&[&nodes[0]], 5);
    other.settles_on(&[&others[0]], 5);
}

#[test]
fn nodes_that_are_named_like_keywords_of_haproxy_take_traffic() {
    let lab = Lab::new(Look::Hardened);
    let balancer = lab.balancer("ha");
    let named = |name: &str| lab.node_with(name, &["--hostname", name]);
    let nodes = ["disabled", "check", "weight", "backup"].map(named);
    let worker = balancer.settled_worker(&nodes.iter().collect::<Vec<_>>());
    // What is added at run time, and what is read at a reload.
    let _ = balancer.exec(&["reload-ha", "--force"]);
    assert_ne!(balancer.settled_worker(&nodes.iter().collect::<Vec<_>>()), worker);
}

//! Forged gossip, as another container on the network can send it. Without the key nothing comes of it; with the key, which
//! makes a member trusted, no request is lost to it while the nodes answer.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use e2e::http::Load;
use e2e::wait::same;
use e2e::{Balancer, Container, Lab, Look, eventually};
use lb_fixture::forger::{Forged, Forger};

const OTHER_KEY: &str = "T3RoZXJPdGhlck90aGVyT3RoZXJPdGhlck90aGVyT3Q=";

fn key(container: &Container) -> String {
    container.exec(&["cat", "/etc/serf/encrypt_key"]).trim().to_owned()
}

fn ip(container: &Container) -> Ipv4Addr {
    container.address().parse().unwrap()
}

/// A container with an application, but with another key, so that it is no member.
fn stranger(lab: &Lab) -> Container {
    let stranger = lab.node_with("stranger", &["-e", &format!("SERF_ENCRYPT_KEY={OTHER_KEY}")]);
    let url = format!("http://{}:3000/health", stranger.address());
    eventually("its application answers", 20, || e2e::http::get(&url, None));
    stranger
}

/// In the network of a container.
fn forger_in(container: &Container, key: Option<&str>) -> Forger {
    Forger::at(container.inspect("{{.State.Pid}}").parse().unwrap(), key)
}

/// The state of the member and its address, as the balancer's agent knows them.
fn member(balancer: &Balancer, name: &str) -> String {
    let members = balancer.exec(&["serf", "members"]);
    let line = members.lines().find(|line| line.split_whitespace().next() == Some(name)).unwrap_or_default();
    line.split_whitespace().skip(1).take(2).collect::<Vec<_>>().join(" ")
}

fn load(balancer: &Balancer) -> Load {
    Load::start(&format!("http://127.0.0.1:{}/", balancer.port(80)), 4)
}

/// Ends the load, prints how many requests were lost, and expects none.
fn assert_nothing_lost(load: Load, during: &str) {
    let (sent, lost) = load.finish();
    println!("{during}: {} of {sent} requests lost, {} % 503", lost.len(), percent(&lost, sent));
    assert!(sent > 100 && lost.is_empty(), "{during}: {} of {sent} lost: {:?}", lost.len(), lost.first());
}

fn percent(lost: &[String], sent: u32) -> f64 {
    100.0 * f64::from(u32::try_from(lost.iter().filter(|line| line.starts_with("503")).count()).unwrap()) / f64::from(sent)
}

#[test]
fn without_the_key_another_container_moves_nobody_and_is_no_member() {
    let (lab, balancer, nodes) = Lab::with_nodes(Look::Hardened, 2);
    let stranger = stranger(&lab);
    let [s1, s2] = &nodes[..] else { unreachable!() };
    let members = || balancer.exec(&["serf", "members"]).lines().map(str::to_owned).collect::<BTreeSet<_>>();
    let before = members();
    let load = load(&balancer);
    let address = ip(&stranger).octets();
    let evil = Forged { name: b"evil", address: &address, role: b"backend" };
    for other_key in [None, Some(OTHER_KEY)] {
        let forger = forger_in(&stranger, other_key);
        for to in [ip(&balancer), ip(s1), ip(s2)] {
            forger.alive(to, &evil);
            forger.gone(to, &s1.member());
            forger.alive(to, &Forged { name: s1.member().as_bytes(), ..evil });
            forger.leave(to, &s2.member());
            forger.dead(to, &s2.member());
            let answer = forger.push_pull(to, &[evil]);
            assert!(!answer.windows(12).any(|bytes| bytes == s1.member().as_bytes()), "{answer:?}");
        }
    }
    eventually("the balancer has refused all of them", 10, || {
        let logs = balancer.logs();
        same(&logs.matches("Decrypt packet failed").count().min(10), &10)
    });
    assert_eq!(members(), before);
    balancer.settles_on(&[s1, s2], 1);
    assert_nothing_lost(load, "packets without the key");

    // Ports are open to it all the same, so that it can go round the balancer.
    let balancer_address = balancer.address();
    for (host, port) in [(&s1.address(), 3000), (&balancer_address, 1936), (&balancer_address, 9999)] {
        let connect = format!("require('net').connect({port}, '{host}').on('connect', () => process.exit(0))");
        let _ = stranger.exec(&["node", "-e", &connect]);
    }

    // With the key, the same packet makes a member that gets traffic.
    forger_in(&stranger, Some(&key(&balancer))).alive(ip(&balancer), &evil);
    eventually("it is registered", 10, || {
        let registry = balancer.registry();
        if registry.contains(&format!("evil {}", stranger.address())) { Ok(()) } else { Err(format!("{registry:?}")) }
    });
    eventually("it gets requests", 10, || {
        let host = balancer.get("/", None)?.host()?;
        same(&host, &stranger.member())
    });
}

/// With the key: gives the name of a session's node to the stranger, and shows where the session's requests go.
/// `prepare` gets the forger, the balancer and the node's address.
fn assert_stays_with_its_node(prepare: impl Fn(&Forger, &Balancer, Ipv4Addr)) {
    const REQUESTS: usize = 15;
    let (lab, balancer, nodes) = Lab::with_nodes(Look::Hardened, 2);
    let stranger = stranger(&lab);
    let forger = forger_in(&stranger, Some(&key(&balancer)));
    let first = balancer.get("/", None).unwrap();
    let cookie = first.cookie.clone().expect("a new session sets its cookie");
    let (name, address) = (first.host().unwrap(), ip(&stranger).octets());
    let node = nodes.iter().find(|node| node.member() == name).unwrap();
    let load = load(&balancer);
    prepare(&forger, &balancer, ip(node));
    eventually("the name has the other address", 20, || {
        forger.gone(ip(&balancer), &name);
        // At once it may be too early, and later the node has refuted that it is gone.
        for _ in 0..10 {
            sleep(Duration::from_millis(10));
            forger.alive(ip(&balancer), &Forged { name: name.as_bytes(), address: &address, role: b"backend" });
        }
        same(&member(&balancer, &name), &format!("{}:7946 alive", stranger.address()))
    });
    let mut moved = 0;
    for _ in 0..REQUESTS {
        sleep(Duration::from_millis(100));
        moved += usize::from(balancer.get("/", Some(&cookie)).unwrap().host() == Ok(stranger.member()));
    }
    println!("{moved} of {REQUESTS} requests of the session went to the other address; {:?}", balancer.registry());
    assert_eq!(moved, 0);
    assert_nothing_lost(load, "a moved name");
}

#[test]
fn a_session_stays_with_its_node_when_its_name_is_moved() {
    assert_stays_with_its_node(|_, _, _| {});
}

/// Then the name is free to move, as when two nodes come back with each other's addresses.
#[test]
fn a_session_stays_with_its_node_when_another_member_claims_its_address() {
    assert_stays_with_its_node(|forger, balancer, address| {
        forger.alive(ip(balancer), &Forged { name: b"squatter", address: &address.octets(), role: b"backend" });
        eventually("it is registered", 10, || {
            let line = format!("squatter {address}");
            if balancer.registry().contains(&line) { Ok(()) } else { Err(format!("{:?}", balancer.registry())) }
        });
    });
}

/// Leaves in the name of the nodes, by a member that has the key: each is refuted, and none costs a request.
#[test]
fn forged_leaves_lose_no_request() {
    let (_lab, balancer, nodes) = Lab::with_nodes(Look::Hardened, 2);
    let names: Vec<String> = nodes.iter().map(Container::member).collect();
    let forger = forger_in(&nodes[0], Some(&key(&balancer)));
    let load = load(&balancer);
    for name in names.iter().cycle().take(250) {
        forger.leave(ip(&balancer), name);
        sleep(Duration::from_millis(20));
    }
    assert_nothing_lost(load, "50 forged leaves a second");
    balancer.settles_on(&nodes.iter().collect::<Vec<_>>(), 90);
}

/// A plain member that runs Serf's own command in a loop.
#[test]
fn a_loop_of_force_leave_loses_no_request() {
    let (lab, balancer, nodes) = Lab::with_nodes(Look::Hardened, 2);
    let plain = lab.node_with("plain", &["-e", "ROLE=plain"]);
    eventually("it is a member", 20, || {
        if member(&balancer, &plain.member()).ends_with("alive") { Ok(()) } else { Err(plain.logs()) }
    });
    let load = load(&balancer);
    let commands: Vec<String> = nodes.iter().map(|node| format!("serf force-leave {}", node.member())).collect();
    let script = format!("n=0; while {}; do n=$((n + 1)); echo $n >/tmp/rounds; done", commands.join(" && "));
    let _ = plain.try_exec(&["timeout", "10", "sh", "-c", &script], "");
    let rounds: u32 = plain.exec(&["cat", "/tmp/rounds"]).trim().parse().unwrap();
    println!("{rounds} rounds of force-leave");
    assert!(rounds > 5, "{rounds}");
    assert_nothing_lost(load, "a loop of force-leave");
    balancer.settles_on(&nodes.iter().collect::<Vec<_>>(), 90);
}

/// Members that no list may hold, by a member that has the key: nodes come and go beside them.
#[test]
fn hostile_members_do_not_keep_the_balancer_from_following_the_others() {
    let (lab, balancer, mut nodes) = Lab::with_nodes(Look::Hardened, 2);
    let forger = forger_in(&nodes[0], Some(&key(&balancer)));
    let long = [b'x'; 129];
    let address = [1, 2, 3, 4];
    let bad: [(&[u8], &[u8]); 7] = [
        (b"three", b"abc"),
        (b"none", b""),
        (b"seventeen", &[1; 17]),
        (&long, &address),
        (b"a\n2026/01/01 00:00:00 [INFO] serf: leave", &address),
        (b"b\tc\x1b[2J\x07", &address),
        (b"\xff\xfe\0", &address),
    ];
    let forged: Vec<_> = bad.iter().map(|(name, address)| Forged { name, address, role: b"backend" }).collect();
    let load = load(&balancer);
    let huge = vec![b'h'; 5 << 20];
    for nodes in [&forged[..], &[Forged { name: &huge, address: &address, role: b"backend" }]] {
        let _ = forger.push_pull(ip(&balancer), nodes);
    }
    eventually("all are refused", 60, || {
        let logs = balancer.logs();
        let refused = |what: &str| logs.contains(&format!("sync-nodes: member '{what}"));
        let missing: Vec<_> =
            ["three' rejected", "none' rejected", "seventeen' rejected", "xxxxxxxx", "a\\n2026", "b\\tc\\u{1b}[2J", "hhhhhhhh"]
                .into_iter()
                .filter(|what| !refused(what))
                .collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?}")) }
    });
    // The agent prints a name as it is: its lines are set apart from those of the tools, and have no control characters.
    let logs = eventually("the agent's lines are in the log", 60, || {
        let logs = balancer.logs();
        if logs.lines().any(|line| line.starts_with("    2026/01/01 00:00:00 [INFO] serf: leave")) { Ok(logs) } else { Err(logs) }
    });
    assert!(!logs.lines().any(|line| line.starts_with("2026/01/01")) && !logs.contains('\x1b'), "{logs}");
    let log = balancer.exec(&["cat", "/var/log/serf.log"]);
    assert!(log.contains("seventeen") && !log.contains(|c: char| c.is_control() && c != '\n'), "{log}");
    assert!(!log.lines().any(|line| line.starts_with("2026/01/01")), "a name forged a line of the log: {log}");
    let start = Instant::now();
    nodes.push(lab.node("s3"));
    // Agents that gossip with members that do not exist hear later of those that do.
    balancer.settles_on(&nodes.iter().collect::<Vec<_>>(), 90);
    println!("a new node is in after {:?}", start.elapsed());
    nodes.remove(0).stop();
    // Of those whom the node tells that it leaves, many do not exist.
    balancer.settles_on(&nodes.iter().collect::<Vec<_>>(), 90);
    assert_nothing_lost(load, "hostile members");
    assert_eq!(balancer.exec(&["sh", "-c", "cat /run/haproxy/sync.trouble 2>/dev/null || true"]), "");
    balancer.stop();
    balancer.start();
    balancer.settles_on(&nodes.iter().collect::<Vec<_>>(), 90);
}

/// A forged `serf force-leave -prune` makes the balancer's agent forget nodes that are alive, until their agents restart. The
/// first of them may be believed, since another node is left; the last one stays.
#[test]
fn nodes_that_the_agent_was_made_to_forget_lose_no_request() {
    let (_lab, balancer, nodes) = Lab::with_nodes(Look::Hardened, 2);
    let forger = forger_in(&nodes[0], Some(&key(&balancer)));
    let load = load(&balancer);
    for node in &nodes {
        forger.prune(ip(&balancer), &node.member());
    }
    // Serf holds its lock for six seconds for each of them.
    eventually("the agent has forgotten them", 40, || {
        same(&nodes.iter().map(|node| member(&balancer, &node.member())).collect::<Vec<_>>(), &vec![String::new(); 2])
    });
    // What the sync makes of the new list, and HAProxy of that, is asked for by hand as well.
    let _ = balancer.exec(&["sync-nodes"]);
    assert!(!balancer.registry().is_empty());
    assert_nothing_lost(load, "pruned nodes");
}

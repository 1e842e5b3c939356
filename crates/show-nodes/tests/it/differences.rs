//! Each difference between two states is told with what to do about it, and no other.

use std::fs;

use lb_fixture::{Agent, Application, eventually};

use crate::balancer::{Balancer, application_of, line};

/// Shows that these lines are all that is told below the table.
fn assert_told(balancer: &Balancer, expected: &[&str]) {
    let run = balancer.show().assert().code(1).stderr("");
    let text = String::from_utf8(run.get_output().stdout.clone()).unwrap();
    let (table, told) = text.split_once("\n\n").expect(&text);
    assert_eq!(told.lines().collect::<Vec<_>>(), expected);
    for line in expected {
        let name = line.split(':').next().unwrap();
        let marked = table.lines().any(|row| row.starts_with(&format!("! {name} ")));
        assert_eq!(marked, !matches!(name, "file" | "HAProxy" | "registry"), "{text}");
    }
}

#[test]
fn between_members_and_registry() {
    let (s1, s2) = (Agent::start("s1", &["role=backend"]), Agent::start("s2", &["role=backend"]));
    let address = s1.address();
    let nodes = [(line("s1", address), &s1), (line("s2", s2.address()), &s2), ("ghost 127.0.0.9".to_owned(), &s1)];
    let balancer = Balancer::start(&nodes.each_ref().map(|(line, agent)| (line.as_str(), *agent)));
    assert_told(&balancer, &["ghost: in the registry, but no member: run sync-nodes"]);

    // Neither the file nor HAProxy is behind the registry after a publish.
    let unregister = |name: &str| {
        fs::remove_file(balancer.world.nodes_dir().join(name)).unwrap();
        balancer.publish("by-hand");
    };
    unregister("ghost");
    s2.leave();
    balancer.knows(&["s2", "left"]);
    assert_told(&balancer, &["s2: in the registry, but the member is left: run sync-nodes"]);

    unregister("s2");
    s1.tag("weight=7");
    balancer.knows(&["s1", "weight=7"]);
    let told = format!("s1: the registry has 's1 {address}', the member is 's1 {address} weight=7': run sync-nodes");
    assert_told(&balancer, &[&told]);

    unregister("s1");
    assert_told(&balancer, &["s1: alive, but not in the registry: run sync-nodes"]);
}

#[test]
fn between_registry_and_file() {
    let s1 = Agent::start("s1", &["role=backend"]);
    let balancer = Balancer::start(&[(&line("s1", s1.address()), &s1)]);
    let world = &balancer.world;
    fs::write(world.nodes_dir().join("junk"), "no node\n").unwrap();
    let path = world.nodes_dir().join("junk").display().to_string();
    let run = balancer.show().assert().code(1);
    let text = String::from_utf8(run.get_output().stdout.clone()).unwrap();
    let end = text.lines().last().unwrap();
    assert!(end.starts_with("registry: '") && end.ends_with(": remove it, or run sync-nodes"), "{path}: {text}");
    fs::remove_file(world.nodes_dir().join("junk")).unwrap();

    let template = fs::read_to_string(world.template()).unwrap();
    world.set_template(&template.replace("balance roundrobin", "balance leastconn"));
    assert_told(&balancer, &["file: haproxy.cfg is not what the template gives: see render-cfg --diff, and run sync-nodes"]);
    world.set_template(&template);
    balancer.show().assert().success();
}

#[test]
fn a_template_that_haproxy_refuses_is_told_with_its_words() {
    let (s1, s2) = (Agent::start("s1", &["role=backend"]), Agent::start("s2", &["role=backend"]));
    let (first, second) = (line("s1", s1.address()), line("s2", s2.address()));
    let balancer = Balancer::start(&[(&first, &s1)]);
    let world = &balancer.world;
    let template = fs::read_to_string(world.template()).unwrap();
    let at = world.text().lines().position(|line| line.contains("balance roundrobin")).unwrap() + 1;
    world.set_template(&template.replace("balance roundrobin", "balance runrobin"));
    s2.join(&balancer.agent);
    balancer.knows(&["s2", "alive"]);
    world.register(&second);
    let run = balancer.show().assert().code(1);
    let text = String::from_utf8(run.get_output().stdout.clone()).unwrap();
    let node = "s2: registered, but not in the file: HAProxy rejects what the template gives, render-cfg --check tells why";
    let told: Vec<&str> = text.split_once("\n\n").unwrap().1.lines().collect();
    assert_eq!((told.len(), told[0]), (2, node), "{text}");
    let begin = format!(
        "file: haproxy.cfg is not what the template gives, which HAProxy rejects: parsing [{}:{at}] : ",
        world.config().display()
    );
    let end = format!(": mend {}, the last good configuration stays in use", world.template().display());
    assert!(
        told[1].starts_with(&begin) && told[1].contains("balance only supports") && told[1].ends_with(&end),
        "{begin}{end}: {text}"
    );
}

#[test]
fn between_file_and_process() {
    let s1 = Agent::start("s1", &["role=backend"]);
    let balancer = Balancer::start(&[(&line("s1", s1.address()), &s1)]);
    balancer.command("set server nodes/s1 state maint");
    let told = "s1: HAProxy has it otherwise than the file; it lacks 'set server nodes/s1 state ready': run reload-ha";
    assert_told(&balancer, &[told]);
    balancer.command("set server nodes/s1 state ready");
    balancer.show().assert().success();
    // Somebody has reloaded HAProxy by other means, so that nobody knows what it has read.
    fs::remove_file(balancer.world.path("run/running.cfg")).unwrap();
    assert_told(
        &balancer,
        &["HAProxy: it does not run the file: it is unknown which configuration this HAProxy process has read: run reload-ha"],
    );
}

#[test]
fn a_node_that_is_one_too_many_is_told_so() {
    let (s1, s2) = (Agent::start("s1", &["role=backend"]), Agent::start("s2", &["role=backend"]));
    let balancer = Balancer::start(&[(&line("s1", s1.address()), &s1)]);
    s2.join(&balancer.agent);
    balancer.knows(&["s2", "alive"]);
    let told = "s2: alive, but not in the registry: there may be 1 nodes at most, raise MAX_NODES\n";
    balancer.show().env("MAX_NODES", "1").assert().code(1).stdout(predicates::str::ends_with(told));
}

#[test]
fn a_refused_member_is_shown_with_the_reason() {
    let (s1, bad) = (Agent::start("s1", &["role=backend"]), Agent::start("s2", &["role=backend", "weight=many"]));
    let other = Agent::start("s3", &["role=cache", "weight=many"]);
    let balancer = Balancer::start(&[(&line("s1", s1.address()), &s1)]);
    [&bad, &other].iter().for_each(|agent| agent.join(&balancer.agent));
    balancer.knows(&["s2", "alive"]);
    let told =
        "s2: the member is rejected: weight 'many' is not 0 to 256: on that node, serf tags -set NAME=VALUE or -delete NAME";
    let run = balancer.show().assert().code(1);
    let text = String::from_utf8(run.get_output().stdout.clone()).unwrap();
    assert_eq!(text.lines().last(), Some(told), "{text}");
    assert!(text.contains("\n! s2  ") && !text.contains("s3"), "{text}");
}

#[test]
fn a_node_that_gossip_has_lost_and_haproxy_reaches_is_no_difference() {
    let s1 = Agent::start("s1", &["role=backend"]);
    let application = Application::start_at(application_of(&s1));
    application.become_ready();
    let balancer = Balancer::start(&[(&line("s1", s1.address()), &s1)]);
    let _ = s1.kill();
    balancer.knows(&["s1", "failed"]);
    let told = "\n\ns1: failed in gossip, reachable: kept\n";
    balancer.show().assert().success().stdout(predicates::str::ends_with(told));
    balancer.show().arg("s1").assert().success().stdout(predicates::str::contains("failed in gossip, reachable: kept\n"));
    balancer.show().arg("--metrics").assert().success().stdout(predicates::str::contains("\nlb_nodes{state=\"kept\"} 1\n"));

    drop(application);
    eventually("HAProxy has lost it too", || balancer.command("show stat").contains(",DOWN,"));
    assert_told(&balancer, &["s1: in the registry, but the member is failed: run sync-nodes"]);
}

#[test]
fn what_a_sync_in_flight_is_just_changing_is_none() {
    let s1 = Agent::start("s1", &["role=backend"]);
    let registered = line("s1", s1.address());
    let balancer = Balancer::start(&[(&registered, &s1)]);
    let looks = || balancer.agent.log().matches("Accepted client").count();
    fs::remove_file(balancer.world.nodes_dir().join("s1")).unwrap();
    let before = looks();
    let mut show = balancer.show_on(&[]);
    // Once it looks for the second time, it has seen the difference.
    eventually("it looks again", || looks() >= before + 2);
    balancer.world.register(&registered);
    assert_eq!(show.wait().code(), Some(0), "{}", show.said());
}

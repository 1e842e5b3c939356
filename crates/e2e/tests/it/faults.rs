//! What becomes of a balancer when HAProxy or the Serf agent beside it hangs, dies, or cannot do what is asked: a bounded
//! time, one clear line, the traffic goes on if it can, and all is well within 5 s of the end of the cause.

use std::time::{Duration, Instant};

use e2e::docker::docker;
use e2e::{Balancer, Lab, Look, eventually};

/// Seconds after the end of a cause.
const BACK: u64 = 5;
/// What a tool that meets a hanging HAProxy or Serf may take: its own limits, and what a busy machine adds.
const BOUNDED: Duration = Duration::from_secs(20);

/// Sends a signal to a process in the balancer.
fn signal(balancer: &Balancer, name: &str, pid: &str) {
    let _ = balancer.exec(&["sh", "-c", &format!("kill -{name} {pid}")]);
}

/// Runs a sync that has to fail in bounded time, and returns its one line.
fn failed_sync(balancer: &Balancer) -> String {
    let begin = Instant::now();
    let output = balancer.try_exec(&["sync-nodes"], "");
    assert_eq!(output.status.code(), Some(1));
    assert!(begin.elapsed() < BOUNDED, "it took {:?}", begin.elapsed());
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

#[test]
fn a_worker_or_a_master_that_is_killed_is_replaced() {
    let (_lab, balancer, nodes) = Lab::with_nodes(Look::Hardened, 2);
    let all: Vec<_> = nodes.iter().collect();
    for round in 0..2 {
        let worker = balancer.settled_worker(&all);
        let master = balancer.service_pid("ha").unwrap().to_string();
        signal(&balancer, "KILL", if round == 0 { &worker } else { &master });
        balancer.settles_on(&all, BACK);
        assert_ne!(balancer.worker(), worker, "round {round}");
    }
}

#[test]
fn a_worker_that_hangs_is_given_up_and_comes_back() {
    let (lab, balancer, nodes) = Lab::with_nodes(Look::Hardened, 1);
    let worker = balancer.settled_worker(&[&nodes[0]]);
    signal(&balancer, "STOP", &worker);
    let said = failed_sync(&balancer);
    assert!(said.starts_with("sync-nodes: HAProxy socket /run/haproxy/master.sock"), "{said}");
    let late = lab.node("late");
    eventually("the registry follows the members all the same", 10, || {
        if balancer.registry().len() == 2 { Ok(()) } else { Err(format!("{:?}", balancer.registry())) }
    });
    signal(&balancer, "CONT", &worker);
    balancer.settles_on(&[&nodes[0], &late], BACK);
    assert_eq!(balancer.worker(), worker, "it is the same one");
}

#[test]
fn a_reload_that_fails_for_an_address_in_use_keeps_the_old_worker_and_is_tried_again() {
    let (_lab, balancer, nodes) = Lab::with_nodes(Look::Plain, 2);
    let all: Vec<_> = nodes.iter().collect();
    let worker = balancer.settled_worker(&all);
    let file = balancer.exec(&["cat", "/usr/local/etc/haproxy/haproxy.cfg"]);
    let listener = "use IO::Socket::INET; my $s = IO::Socket::INET->new(LocalPort => 8081, Listen => 1) or die;
        open my $f, '>', '/tmp/listener' or die; print $f $$; close $f; sleep 100";
    let _ = docker(&["exec", "-d", &balancer.name, "perl", "-e", listener]);
    eventually("the port is taken", 10, || {
        if balancer.try_exec(&["test", "-s", "/tmp/listener"], "").status.success() { Ok(()) } else { Err("not yet".to_owned()) }
    });

    let edit = "sed -i 's/bind \\*:80$/bind *:80\\n    bind *:8081/' /config/haproxy.cfg.hb";
    let _ = docker(&["exec", "-u", "0", &balancer.name, "sh", "-c", edit]);
    let said = failed_sync(&balancer);
    assert!(said.contains("HAProxy failed to reload, the old worker keeps running: ") && said.contains("8081"), "{said}");
    assert_eq!(balancer.worker(), worker);
    // While the service tries it again, HAProxy reads the new file where the old one stood.
    eventually("the old file is back", BACK, || {
        let now = balancer.exec(&["cat", "/usr/local/etc/haproxy/haproxy.cfg"]);
        if now == file { Ok(()) } else { Err(now) }
    });
    balancer.settles_on(&all, BACK);
    // The service looks at the template every 10 s, and more often after it has failed.
    eventually("the service has met it as well", 20, || {
        if balancer.logs().contains("sync-nodes: HAProxy failed to reload") { Ok(()) } else { Err("not yet".to_owned()) }
    });

    let _ = balancer.exec(&["sh", "-c", "kill $(cat /tmp/listener)"]);
    eventually("the new template takes effect by itself", BACK, || {
        let file = balancer.exec(&["cat", "/usr/local/etc/haproxy/haproxy.cfg"]);
        if file.contains("bind *:8081") && balancer.worker() != worker { Ok(()) } else { Err("not yet".to_owned()) }
    });
    balancer.settles_on(&all, BACK);
}

#[test]
fn an_agent_that_hangs_is_given_up_and_comes_back() {
    let (lab, balancer, nodes) = Lab::with_nodes(Look::Hardened, 1);
    let worker = balancer.settled_worker(&[&nodes[0]]);
    let agent = balancer.service_pid("serf").unwrap().to_string();
    signal(&balancer, "STOP", &agent);
    let said = failed_sync(&balancer);
    assert!(said.contains("serf agent at 127.0.0.1:7373 did not answer in 3s"), "{said}");
    let is = |status: &str| match balancer.inspect("{{.State.Health.Status}}").as_str() {
        found if found == status => Ok(()),
        other => Err(other.to_owned()),
    };
    // Three looks in a row, 10 s and the time of an answer apart.
    eventually("it is unhealthy", 60, || is("unhealthy"));
    let health = balancer.inspect("{{json .State.Health.Log}}");
    assert!(health.contains("no member list: serf agent at 127.0.0.1:7373 did not answer in 3s"), "{health}");
    balancer.settles_on(&[&nodes[0]], BACK);
    signal(&balancer, "CONT", &agent);
    eventually("it is healthy again", 30, || is("healthy"));
    let late = lab.node("late");
    balancer.settles_on(&[&nodes[0], &late], 2 * BACK);
    assert_eq!(balancer.worker(), worker);
}

#[test]
fn an_agent_that_is_killed_costs_no_node() {
    let (lab, balancer, nodes) = Lab::with_nodes(Look::Hardened, 2);
    let all: Vec<_> = nodes.iter().collect();
    let worker = balancer.settled_worker(&all);
    balancer.kill_service("serf");
    balancer.settles_on(&all, BACK);
    let late = lab.node("late");
    balancer.settles_on(&[&nodes[0], &nodes[1], &late], 2 * BACK);
    assert_eq!(balancer.worker(), worker, "nothing was reloaded");
}

//! What a member says of its address is a claim: the balancer does not send traffic to itself, nor to where no node can be.

use e2e::docker::{docker, text};
use e2e::http::Load;
use e2e::wait::same;
use e2e::{Balancer, Container, Lab, Look, eventually};

fn refused(balancer: &Balancer, what: &str) -> Result<(), String> {
    let logs = balancer.logs();
    if logs.contains(what) { Ok(()) } else { Err(logs) }
}

/// A container of the cluster from which a test starts further agents, with the configuration of its own.
fn stranger(lab: &Lab) -> Container {
    let stranger = lab.run("softengheigvd/base", "stranger", &["-e", "ROLE=stranger"]);
    eventually("its agent runs", 20, || {
        let output = stranger.try_exec(&["serf", "members"], "");
        if output.status.success() { Ok(()) } else { Err(text(&output.stdout)) }
    });
    stranger
}

#[test]
fn members_that_claim_an_address_of_the_balancer_get_no_traffic() {
    let (lab, balancer, nodes) = Lab::with_nodes(Look::Hardened, 2);
    let nodes: Vec<_> = nodes.iter().collect();
    let worker = balancer.settled_worker(&nodes);
    let load = Load::start(&format!("http://127.0.0.1:{}/", balancer.port(80)), 4);
    let stranger = stranger(&lab);
    let own = balancer.address();
    for (number, (address, port, reason)) in [
        (own.as_str(), "80", "is this balancer's own: it would send its requests to itself"),
        (&own, "1936", "is this balancer's own"),
        ("127.0.0.1", "1936", "is loopback, this host itself"),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("liar{number}");
        // All else, say a key of the gossip, is that of the agent which runs there.
        let agent = format!(
            "serf agent -config-file=/run/serf/agent.json -node={name} -bind=0.0.0.0:795{number} -rpc-addr=127.0.0.1:738{number} \
             -snapshot=/tmp/{name} -advertise={address} -join={own}:7946 -tag=role=backend -tag=port={port}"
        );
        let _ = docker(&["exec", "-d", &stranger.name, "sh", "-c", &format!("exec {agent}")]);
        eventually("it is refused", 20, || refused(&balancer, &format!("member '{name}' rejected: address {address} {reason}")));
        let shown = text(&balancer.try_exec(&["show-nodes", &name], "").stdout);
        assert!(shown.contains(reason), "{shown}");
    }
    balancer.settles_on(&nodes, 10);
    assert_eq!(balancer.worker(), worker);
    let (sent, lost) = load.finish();
    assert!(sent > 100 && lost.is_empty(), "{} of {sent} lost: {:?}", lost.len(), lost.first());
}

#[test]
fn by_default_nodes_are_on_the_networks_of_the_balancer_and_others_must_be_named() {
    let lab = Lab::new(Look::Plain);
    let balancer = lab.balancer("ha");
    eventually("port 80 answers", 15, || balancer.get("/", None));
    for (address, reason) in [
        ("127.0.0.1", "is loopback"),
        ("169.254.169.254", "is link-local"),
        ("203.0.113.7", "is in no network that this balancer is on ("),
    ] {
        let output = balancer.try_exec(&["member-join"], &format!("x\t{address}\tbackend\t\n"));
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(65) && said.contains(reason) && said.contains("NODE_NETWORKS"), "{said}");
    }
    drop(balancer);
    let balancer = lab.balancer_with("ha", &["-e", "NODE_NETWORKS=203.0.113.0/24 fd00::/8"]);
    let node = lab.node("s1");
    eventually("it is refused", 20, || {
        refused(&balancer, &format!("rejected: address {} is in none of NODE_NETWORKS (203.0.113.0/24 fd00::/8)", node.address()))
    });
    eventually("port 80 answers", 15, || same(&balancer.get("/", None)?.status, &503));
}

/// As in a task of Docker Swarm, where the default route leads to another network than the one that all share.
#[test]
fn of_two_addresses_a_node_announces_the_one_that_the_balancer_reaches() {
    let lab = Lab::new(Look::Hardened);
    let balancer = lab.balancer("ha");
    let node = lab.node("s1");
    node.stop();
    // Docker's default route is that of the first network by name.
    let other = format!("e2e-0{}", lab.network());
    let _ = docker(&["network", "create", &other]);
    let _ = docker(&["network", "connect", &other, &node.name]);
    node.start();
    let of = |network: &str| node.inspect(&format!("{{{{(index .NetworkSettings.Networks \"{network}\").IPAddress}}}}"));
    let route = node.exec(&["cat", "/proc/net/route"]);
    let gateway = docker(&["network", "inspect", "--format", "{{(index .IPAM.Config 0).Gateway}}", &other]);
    let little_endian: Vec<_> = gateway.split('.').rev().map(|byte| format!("{:02X}", byte.parse::<u8>().unwrap())).collect();
    assert!(route.contains(&little_endian.concat()), "the default route does not lead to {other}: {route}");
    let line = format!("{} {}", node.member(), of(lab.network()));
    eventually("it is used at the right address", 30, || {
        let servers = balancer.process()?;
        if servers.contains(&line) { Ok(()) } else { Err(format!("{line}: {servers:?}")) }
    });
    eventually("it answers", 20, || if balancer.get("/", None)?.status == 200 { Ok(()) } else { Err(balancer.logs()) });
    let log = node.logs();
    assert!(!log.contains("cannot reach"), "it was restarted: {log}");
    drop(node);
    let _ = docker(&["network", "rm", &other]);
}

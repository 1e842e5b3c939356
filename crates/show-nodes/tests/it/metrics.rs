//! The metrics, as Prometheus reads them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use lb_fixture::{Agent, eventually};

use crate::balancer::{Balancer, line};

/// The samples by name and labels; every one has a line of help and of type before it.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    let (mut helped, mut typed) = (String::new(), String::new());
    for line in text.lines() {
        let name = |rest: &str| rest.split(' ').next().unwrap().to_owned();
        if let Some(rest) = line.strip_prefix("# HELP ") {
            helped = name(rest);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            typed = name(rest);
        } else {
            let (key, value) = line.rsplit_once(' ').unwrap();
            assert!(key.starts_with(&typed) && helped == typed, "{line}");
            assert!(samples.insert(key.to_owned(), value.parse().unwrap()).is_none(), "twice: {line}");
        }
    }
    samples
}

#[test]
fn nodes_publishes_and_drift_are_counted() {
    let (s1, bad) = (Agent::start("s1", &["role=backend"]), Agent::start("bad", &["role=backend", "port=x"]));
    let balancer = Balancer::start(&[(&line("s1", s1.address()), &s1)]);
    bad.join(&balancer.agent);
    balancer.knows(&["bad", "alive"]);
    balancer.world.register(&(line("s1", s1.address()) + " weight=7"));
    balancer.publish("by-hand");

    let run = balancer.show().arg("--metrics").assert().success().stderr("");
    let text = String::from_utf8(run.get_output().stdout.clone()).unwrap();
    let samples = samples(&text);
    for (key, value) in [
        ("lb_state_readable{state=\"members\"}", 1.0),
        ("lb_state_readable{state=\"HAProxy\"}", 1.0),
        ("lb_nodes{state=\"member_alive\"}", 2.0),
        ("lb_nodes{state=\"registered\"}", 1.0),
        ("lb_nodes{state=\"in_file\"}", 1.0),
        ("lb_members_refused", 1.0),
        // The refused one, and that the member has no weight.
        ("lb_drift{state=\"registry\"}", 2.0),
        ("lb_drift{state=\"file\"}", 0.0),
        ("lb_publishes_total{applied=\"file\"}", 1.0),
        ("lb_publishes_total{applied=\"run-time\"}", 1.0),
        ("lb_publishes_total{applied=\"reload\"}", 0.0),
        ("lb_publish_failures_total", 0.0),
        ("lb_publish_duration_seconds_count", 2.0),
    ] {
        assert_eq!(samples.get(key), Some(&value), "{key}: {text}");
    }
    assert!(samples["lb_publish_duration_seconds_sum"] > 0.0, "{text}");
    let in_haproxy = ["up", "down", "drain", "maintenance"].map(|state| samples[&format!("lb_nodes{{state=\"{state}\"}}")]);
    assert_eq!(in_haproxy.iter().sum::<f64>(), 1.0, "{text}");
}

#[test]
fn the_file_of_the_collector_is_replaced_whole() {
    let balancer = Balancer::start(&[]);
    let path = balancer.world.path("haproxy/lb.prom");
    fs::write(&path, "old").unwrap();
    let path_text = path.display().to_string();
    let mut watch = balancer.show_on(&["--metrics", "--watch", "1", "--output", &path_text]);
    eventually("the file is new", || fs::read_to_string(&path).unwrap().contains("lb_publishes_total"));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
    assert!(watch.is_running() && watch.said().is_empty(), "{}", watch.said());
    balancer.show().args(["--metrics", "--output", "/nonexistent/lb.prom"]).assert().code(1);
}

#[test]
fn services_have_a_label_and_conflicts_are_counted() {
    let balancer = Balancer::start(&[]);
    for line in ["a1 127.0.0.9 role=shop host=x.example", "b1 127.0.0.8 role=web host=x.example", "c1 127.0.0.7"] {
        balancer.world.register(line);
    }
    let text = String::from_utf8(balancer.show().arg("--metrics").assert().success().get_output().stdout.clone()).unwrap();
    let samples = samples(&text);
    for (key, value) in [
        ("lb_nodes{state=\"registered\"}", 1.0),
        ("lb_nodes{state=\"registered\",service=\"shop\"}", 1.0),
        ("lb_nodes{state=\"registered\",service=\"web\"}", 1.0),
        ("lb_nodes{state=\"in_file\",service=\"web\"}", 0.0),
        ("lb_route_conflicts", 1.0),
    ] {
        assert_eq!(samples.get(key), Some(&value), "{key}: {text}");
    }
    let shown = String::from_utf8(balancer.show().assert().code(1).get_output().stdout.clone()).unwrap();
    assert!(shown.contains("\nservice web claims x.example, which shop has\n"), "{shown}");
    let json = balancer.show().args(["--routes", "--json"]).assert().success();
    let routes: serde_json::Value = serde_json::from_slice(&json.get_output().stdout).unwrap();
    assert_eq!(
        routes,
        serde_json::json!({
            "routes": [
                { "place": "x.example", "service": "shop", "nodes": 1, "up": 0 },
                { "place": "/", "service": "backend", "nodes": 1, "up": 0 },
            ],
            "conflicts": [{ "place": "x.example", "service": "web", "has": "shop" }],
        })
    );
    for wrong in [&["--routes", "--metrics"][..], &["--routes", "s1"]] {
        balancer.show().args(wrong).assert().code(2);
    }
}

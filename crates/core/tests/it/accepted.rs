//! Whatever nodes are accepted: HAProxy takes the configuration that is made of them, and it has one server for each.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use lb_core::config::template::Template;
use lb_core::config::{Config, ServerKey};
use lb_core::haproxy::check;
use lb_core::node::{Node, NodeName};
use lb_core::service::Known;
use proptest::prelude::*;

use super::any;

/// The template of the image.
const OURS: &str = include_str!("../../../../ha/config/haproxy.cfg.hb");
/// A template as a user of the lab may have it, with all that is known of a node.
const LAB: &str = "\
defaults
    mode http
    timeout connect 5s
    timeout client 50s
    timeout server 50s
listen nodes
    bind *:80
    cookie NODESESSID prefix nocache
    {{#each addresses}}
    server {{ host }} {{ ip }}:{{ port }} check cookie {{ host }} weight {{ weight }} {{#if drain}}backup{{/if}} # {{ host }}
    {{/each}}
    {{#each addresses}}
    use-server {{ host }} if { req.hdr(x-node) -m str {{ host }} }
    {{/each}}
";

fn render(template: &str, nodes: &BTreeMap<NodeName, Node>) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), template).unwrap();
    let template = Template::load(file.path()).unwrap();
    template.render(nodes.values(), &Known::default(), "3000".parse().unwrap(), &BTreeMap::new()).unwrap()
}

/// Shows that both templates give a configuration that HAProxy takes, with these nodes as its servers.
fn assert_accepted(nodes: &BTreeMap<NodeName, Node>) {
    for template in [OURS, LAB] {
        let text = render(template, nodes);
        if let Err(error) = check(&text, Path::new("rendered")) {
            panic!("{error}\n{text}");
        }
        let config = Config::parse(&text);
        assert_eq!(config.irregular, None);
        let section = |node: &Node| if template == LAB { "nodes".to_owned() } else { node.role.section().to_owned() };
        let expected: BTreeSet<_> = nodes.values().map(|node| ServerKey::new(&section(node), node.name.as_str())).collect();
        assert!(config.servers.keys().eq(&expected), "{text}");
        let lines = text.lines().filter(|line| line.trim_start().starts_with("server ")).count();
        assert_eq!(lines, nodes.len());
    }
}

#[test]
fn a_node_may_be_named_like_anything() {
    let lines = any::WORDS.iter().enumerate().map(|(number, name)| format!("{name} 172.18.1.{number} weight=5"));
    let nodes = lines.map(|line| line.parse::<Node>().unwrap()).map(|node| (node.name.clone(), node));
    assert_accepted(&nodes.collect());
}

proptest! {
    // Many nodes in one file, as HAProxy takes more time to start than to read them.
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn haproxy_takes_any_accepted_nodes(nodes in any::nodes(200..300)) {
        assert_accepted(&nodes);
    }
}

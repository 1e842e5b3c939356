//! What several fuzz targets demand of what was accepted or refused.
#![allow(missing_docs, reason = "the model is documented where it belongs, beside the property tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::fs;
use std::sync::LazyLock;

use lb_core::config::{Config, ServerKey};
use lb_core::members::event::{Line, parse_gone, parse_present};
use lb_core::members::admission::Admission;
use lb_core::node::{Node, NodeName};
use lb_core::haproxy::plan::Plan;
use lb_core::config::template::Template;
use lb_core::service::Known;

#[path = "../../crates/core/tests/it/model.rs"]
pub mod model;

/// The roles that the targets take for those of nodes: the default, and that of another service.
pub const ROLES: [&str; 2] = ["backend", "shop"];

/// Lets in all members of these roles.
pub static GATE: LazyLock<Admission> = LazyLock::new(|| Admission::anywhere(&ROLES.join(" ")));

static TEMPLATE: LazyLock<Template> = LazyLock::new(|| {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    fs::write(file.path(), include_str!("../../ha/config/haproxy.cfg.hb")).expect("write the template");
    Template::load(file.path()).expect("the template of the image")
});

/// The configuration of the image with these nodes.
fn render(nodes: &BTreeMap<NodeName, Node>) -> String {
    render_known(nodes, &Known::default())
}

/// The same with what is known about services.
pub fn render_known(nodes: &BTreeMap<NodeName, Node>, known: &Known) -> String {
    let port = "3000".parse().expect("a port");
    TEMPLATE.render(nodes.values(), known, port, &BTreeMap::new()).expect("the image's template takes any node")
}

/// An accepted name is that of one file in its folder, and never looks like an option.
pub fn check_name(name: &NodeName) {
    let text = name.as_str();
    assert!((1..=128).contains(&text.len()), "{text:?}");
    assert!(!text.starts_with(['.', '-']), "{text:?}");
    assert!(text.chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c)), "{text:?}");
    assert_eq!(text.parse().as_ref(), Ok(name));
}

/// An accepted node reads back from everything that it is written as.
pub fn check_node(node: &Node) {
    check_name(&node.name);
    let line = node.to_string();
    assert!(line.len() < 2048 && line.chars().all(|c| (' '..='~').contains(&c)), "{line:?}");
    assert_eq!(line.parse().as_ref(), Ok(node));
    let tags: Vec<&str> = line.split(' ').skip(2).filter(|pair| !pair.starts_with("role=")).collect();
    let (tags, role) = (tags.join(" "), node.role.as_str());
    let gate = Admission::anywhere(&format!("{role} x y"));
    for (separator, tags) in [("\t", tags.replace(' ', ",")), (" ", tags.to_owned())] {
        let event = [node.name.as_str(), &node.address.to_string(), role, &tags].join(separator);
        assert_eq!(parse_present(&event, &gate), Ok(Line::Node(node.clone())), "{event:?}");
        assert_eq!(parse_gone(&event).as_ref(), Ok(&node.name), "{event:?}");
    }
}

/// The configuration of accepted nodes has one server line for each of them, in the section of its service. With the default
/// service alone, it is otherwise that of no node; what is done at run time to get there is what a fresh start would do.
pub fn check_rendered(nodes: &BTreeMap<NodeName, Node>) {
    static EMPTY: LazyLock<String> = LazyLock::new(|| render(&BTreeMap::new()));
    let text = render(nodes);
    let (config, empty) = (Config::parse(&text), Config::parse(&EMPTY));
    assert_eq!(config.irregular, None, "{text}");
    let keys: BTreeSet<_> = nodes.values().map(|node| ServerKey::new(node.role.section(), node.name.as_str())).collect();
    assert!(config.servers.keys().eq(&keys), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("    server ")).count(), nodes.len(), "{text}");
    for (key, line) in &config.servers {
        assert_eq!(line.to_string().split(' ').count(), 16, "{key} {line}");
        let settings = line.settings();
        assert!(settings.check && !settings.disabled && settings.weight.is_some(), "{key} {line}");
    }
    let is_plain = |node: &Node| node.role.is_default() && node.tags.check.is_none() && node.tags.cookie.is_none();
    if !nodes.values().all(is_plain) {
        return;
    }
    assert_eq!(config.rest, empty.rest, "{text}");
    let mut process = model::Process::start(&EMPTY).expect("the model knows the image's configuration");
    assert!(matches!(process.publish(&text), Some(Plan::Commands(commands)) if commands.len() == 3 * nodes.len()), "{text}");
}

/// A message about refused text is one short line without control characters, although each may be written out.
pub fn check_message(message: &impl Display) {
    let message = message.to_string();
    assert!(!message.is_empty() && message.len() < 800, "{message:?}");
    assert!(message.chars().all(|c| c == '…' || (' '..='~').contains(&c)), "{message:?}");
}

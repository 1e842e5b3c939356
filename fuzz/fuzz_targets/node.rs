//! Node files: the content of one, and of many.
#![no_main]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use lb_core::node::Node;
use lb_core::registry::Registry;
use lb_fuzz::{check_message, check_node, check_rendered};
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

/// In memory, where files cost little.
static DIRECTORY: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir_in("/dev/shm").expect("a directory"));

/// One file with this content, which may be anything: it is the node, or is passed over and then healed.
fn check_file(directory: &Path, content: &[u8]) {
    let text = std::str::from_utf8(content).ok();
    let node = text.and_then(|text| text.parse::<Node>().ok()).filter(|_| content.len() < 2048);
    let (path, healed) = match &node {
        Some(node) => (directory.join(node.name.as_str()), node.clone()),
        None => (directory.join("s1"), "s1 172.18.0.2".parse().expect("a node")),
    };
    // A registry before this file is in it.
    fs::write(directory.join(".registry"), "").expect("mark");
    fs::write(&path, content).expect("write");
    let mut registry = Registry::read(directory).expect("read");
    assert!(registry.nodes().values().eq(&node), "{:?}", registry.skipped());
    assert_eq!(registry.skipped().len(), usize::from(node.is_none()));
    registry.skipped().iter().for_each(|(_, reason)| check_message(reason));

    assert_eq!(registry.put(&healed).expect("put"), node.is_none());
    assert!(registry.nodes().values().eq([&healed]));
    assert!(Registry::read(directory).expect("read").nodes().values().eq([&healed]));
    assert!(registry.remove(&healed.name).expect("remove"));
    assert_eq!(registry.idle().len(), usize::from(!healed.role.is_default()));
    registry.forget_idle(|_| false).expect("forget");
    assert_eq!(fs::read_dir(directory).expect("list").count(), 1, "its mark is left");
}

fuzz_target!(|content: &[u8]| {
    check_file(DIRECTORY.path(), content);
    let Ok(text) = std::str::from_utf8(content) else { return };
    let mut nodes = BTreeMap::new();
    for line in text.split('\n') {
        match line.parse::<Node>() {
            Ok(node) => {
                check_node(&node);
                nodes.insert(node.name.clone(), node);
            }
            Err(error) => check_message(&error),
        }
    }
    if !nodes.is_empty() {
        check_rendered(&nodes);
    }
});

//! A registry in which every kind of thing takes the place of a node's file: it is passed over, the other nodes go on,
//! the next sync heals it, and nothing outside of the registry is touched.
#![allow(clippy::unwrap_used, reason = "what the tests share is test code, which the lint cannot know")]

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;

use assert_cmd::assert::Assert;
use lb_core::registry::Registry;
use lb_fixture::{World, only_line, said};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

const TOOL: &str = env!("CARGO_BIN_EXE_sync-nodes");
const MEMBERS: &str = r#"{"members": [
    {"name": "ha", "addr": "172.18.0.7:7946", "tags": {"role": "balancer"}, "status": "alive"},
    {"name": "s1", "addr": "172.18.0.2:7946", "tags": {"role": "backend"}, "status": "alive"},
    {"name": "s2", "addr": "172.18.0.3:7946", "tags": {"role": "backend"}, "status": "alive"}]}"#;

/// What is done to the file, by its path and that of something precious outside of the registry.
type Breakage = fn(&Path, &Path);

/// All of them, each with its name and whether the file is one that is passed over when nobody syncs.
const BREAKAGES: [(&str, bool, Breakage); 18] = [
    ("removed", false, |_, _| {}),
    ("empty", true, |file, _| fs::write(file, "").unwrap()),
    ("cut in the name", true, |file, _| fs::write(file, "s").unwrap()),
    ("cut in the address", true, |file, _| fs::write(file, "s2 172.18.").unwrap()),
    ("cut in a tag", true, |file, _| fs::write(file, "s2 172.18.0.3 weigh").unwrap()),
    ("of another node", true, |file, _| fs::write(file, "s1 172.18.0.2\n").unwrap()),
    ("of two nodes", true, |file, _| fs::write(file, "s2 172.18.0.3\ns3 172.18.0.4\n").unwrap()),
    ("a server line", true, |file, _| fs::write(file, "s2 172.18.0.3\n    server evil 10.0.0.1:80\n").unwrap()),
    ("a template", true, |file, _| fs::write(file, "s2 {{ip}}\n").unwrap()),
    ("binary", true, |file, _| fs::write(file, [0xff, 0, 0xfe]).unwrap()),
    ("long", true, |file, _| fs::write(file, "s2 172.18.0.3 ".repeat(1000)).unwrap()),
    ("of 1 GB", true, |file, _| File::create(file).unwrap().set_len(1 << 30).unwrap()),
    ("a folder", true, |file, _| fs::create_dir_all(file.join("in/side")).unwrap()),
    ("a folder with a link", true, |file, precious| {
        fs::create_dir(file).unwrap();
        symlink(precious, file.join("link")).unwrap();
    }),
    ("a link", true, |file, precious| symlink(precious, file).unwrap()),
    ("a link to nowhere", true, |file, _| symlink("/nonexistent", file).unwrap()),
    ("a fifo", true, |file, _| mkfifo(file, Mode::S_IRWXU).unwrap()),
    ("a socket", true, |file, _| drop(UnixListener::bind(file).unwrap())),
];

fn sync(world: &World) -> Assert {
    world.command(TOOL).args(["--from", "-"]).write_stdin(MEMBERS).assert()
}

/// A world with two nodes, the file of the second one broken, and a folder with something precious beside it.
fn broken(breakage: Breakage) -> World {
    let world = World::new();
    sync(&world).success();
    fs::create_dir(world.path("precious")).unwrap();
    // The content would be that of a node, if somebody followed the link.
    fs::write(world.path("precious/s2"), "s2 172.18.0.3\n").unwrap();
    let file = world.nodes_dir().join("s2");
    fs::remove_file(&file).unwrap();
    breakage(&file, &world.path("precious/s2"));
    world
}

fn is_precious_there(world: &World) -> bool {
    fs::read_to_string(world.path("precious/s2")).is_ok_and(|text| text == "s2 172.18.0.3\n")
}

#[test]
fn whatever_a_node_s_file_was_replaced_by_the_next_sync_heals_it() {
    for (name, _, breakage) in BREAKAGES {
        let world = broken(breakage);
        let run = sync(&world).success();
        assert_eq!(world.nodes(), ["s1 172.18.0.2", "s2 172.18.0.3"], "{name}");
        assert!(fs::symlink_metadata(world.nodes_dir().join("s2")).unwrap().is_file(), "{name}");
        assert_eq!(said(&run), ["sync-nodes: registered s2 172.18.0.3"], "{name}");
        assert_eq!(world.servers().len(), 2, "{name}");
        assert!(is_precious_there(&world), "{name}");
    }
}

#[test]
fn whatever_a_node_s_file_was_replaced_by_is_removed_with_its_node() {
    let without = MEMBERS.replace(r#""name": "s2""#, r#""name": "s3""#);
    for (name, _, breakage) in BREAKAGES {
        let world = broken(breakage);
        world.command(TOOL).args(["--from", "-"]).write_stdin(without.as_str()).assert().success();
        assert_eq!(world.nodes(), ["s1 172.18.0.2", "s3 172.18.0.3"], "{name}");
        assert!(fs::symlink_metadata(world.nodes_dir().join("s2")).is_err(), "{name}");
        assert!(is_precious_there(&world), "{name}");
    }
}

/// A mistyped `--nodes-dir` has cost a file and a folder with all in it.
#[test]
fn a_folder_that_is_no_registry_is_left_alone() {
    let world = World::new();
    let home = world.path("home");
    fs::create_dir_all(home.join("letters/old")).unwrap();
    fs::write(home.join("notes"), "precious").unwrap();
    for tool in [&["--from", "-"][..], &["--from", "-", "--max-nodes", "0"]] {
        let run = world.command(TOOL).args(tool).arg("--nodes-dir").arg(&home).write_stdin(MEMBERS).assert().code(1);
        let line = only_line(&run);
        let start =
            format!("sync-nodes: registry {}: 'letters' is not a node file: is --nodes-dir (NODES_DIR) right?", home.display());
        assert!(line.starts_with(&start), "{line}");
        assert_eq!(fs::read_dir(&home).unwrap().count(), 2);
        assert!(home.join("letters/old").is_dir() && fs::read(home.join("notes")).unwrap() == b"precious");
    }
    // Somebody knows better.
    fs::write(home.join(".registry"), "").unwrap();
    world.command(TOOL).args(["--from", "-", "--nodes-dir"]).arg(&home).write_stdin(MEMBERS).assert().success();
    assert!(home.join("s1").is_file() && !home.join("notes").exists() && home.join(".letters.aside/old").is_dir());
}

/// Until then it is only no node: there is a reason for each, and the others stay.
#[test]
fn whatever_a_node_s_file_was_replaced_by_does_not_hide_the_others() {
    for (name, passed_over, breakage) in BREAKAGES {
        let world = broken(breakage);
        let registry = Registry::read(&world.nodes_dir()).unwrap();
        assert_eq!(registry.nodes().values().map(ToString::to_string).collect::<Vec<_>>(), ["s1 172.18.0.2"], "{name}");
        let skipped: Vec<_> =
            registry.skipped().iter().filter(|(path, reason)| path.ends_with("s2") && !reason.is_empty()).collect();
        assert_eq!(skipped.len(), usize::from(passed_over), "{name}: {:?}", registry.skipped());
    }
}

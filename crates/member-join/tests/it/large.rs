//! A registry of many nodes, whose files somebody changes by hand.

use std::fs::{self, File};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use lb_fixture::World;

const TOOL: &str = env!("CARGO_BIN_EXE_member-join");
/// So many nodes, `s10` on.
const NODES: usize = 80;

/// Publishes with an event that changes something.
fn publish(world: &World) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    join(world, COUNT.fetch_add(1, Ordering::Relaxed) % 256);
}

fn join(world: &World, weight: u32) {
    world.command(TOOL).write_stdin(format!("s10\t172.18.0.10\tbackend\tweight={weight}\n")).assert().success();
}

fn large() -> World {
    let world = World::new();
    for number in 10..10 + NODES {
        world.register(&format!("s{number} 172.18.0.{number}"));
    }
    publish(&world);
    assert_eq!(world.servers().len(), NODES);
    world
}

/// Address and port of a node in the configuration.
fn endpoint(world: &World, name: &str) -> Option<String> {
    let start = format!("server {name} ");
    world.servers().iter().find_map(|line| Some(line.strip_prefix(&start)?.split(' ').next()?.to_owned()))
}

#[test]
fn whatever_somebody_does_to_a_file_is_seen() {
    type Change = fn(&Path);
    fn modified(path: &Path) -> SystemTime {
        fs::metadata(path).unwrap().modified().unwrap()
    }
    let changes: [(&str, Change, Option<&str>); 6] = [
        ("written again, of the same length", |path| fs::write(path, "s40 172.18.0.41\n").unwrap(), Some("172.18.0.41:3000")),
        (
            "written again, with its old time",
            |path| {
                let before = modified(path);
                fs::write(path, "s40 172.18.0.42\n").unwrap();
                File::options().write(true).open(path).unwrap().set_modified(before).unwrap();
                assert_eq!(modified(path), before);
            },
            Some("172.18.0.42:3000"),
        ),
        (
            "replaced by an old file",
            |path| {
                let other = path.with_file_name(".other");
                fs::write(&other, "s40 172.18.0.43\n").unwrap();
                File::options().write(true).open(&other).unwrap().set_modified(modified(path)).unwrap();
                fs::rename(other, path).unwrap();
            },
            Some("172.18.0.43:3000"),
        ),
        ("another one's", |path| assert!(fs::copy(path.with_file_name("s41"), path).is_ok()), None),
        ("a folder", |path| fs::remove_file(path).and_then(|()| fs::create_dir(path)).unwrap(), None),
        ("nothing", |path| fs::remove_dir(path).unwrap(), None),
    ];
    let world = large();
    for (what, change, expected) in changes {
        change(&world.nodes_dir().join("s40"));
        publish(&world);
        assert_eq!(endpoint(&world, "s40").as_deref(), expected, "{what}");
        assert_eq!(world.servers().len(), NODES - usize::from(expected.is_none()), "{what}");
    }
    world.register("s39a 172.18.0.200");
    publish(&world);
    assert_eq!(endpoint(&world, "s39a").as_deref(), Some("172.18.0.200:3000"));
    assert_eq!(endpoint(&world, "s39").as_deref(), Some("172.18.0.39:3000"));
}

#[test]
fn a_second_run_writes_nothing() {
    let world = large();
    join(&world, 7);
    let before = world.snapshot();
    join(&world, 7);
    assert_eq!(world.snapshot(), before);
}

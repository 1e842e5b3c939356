//! What `member-join` knows of a large registry, of which it keeps an index.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use lb_fixture::{World, eventually};

const TOOL: &str = env!("CARGO_BIN_EXE_member-join");
/// So many nodes, `s10` on.
const NODES: usize = 80;

fn index(world: &World) -> PathBuf {
    world.nodes_dir().join(".index")
}

/// Publishes with an event that changes something.
fn publish(world: &World) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    join(world, COUNT.fetch_add(1, Ordering::Relaxed) % 256);
}

fn join(world: &World, weight: u32) {
    world.command(TOOL).write_stdin(format!("s10\t172.18.0.10\tbackend\tweight={weight}\n")).assert().success();
}

/// A registry that has its index: the files in it have been there for some seconds.
fn large() -> World {
    let world = World::new();
    for number in 10..10 + NODES {
        world.register(&format!("s{number} 172.18.0.{number}"));
    }
    eventually("there is an index", || {
        publish(&world);
        index(&world).exists()
    });
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
    // A new file is no change of those beside it in the index.
    world.register("s39a 172.18.0.200");
    publish(&world);
    assert_eq!(endpoint(&world, "s39a").as_deref(), Some("172.18.0.200:3000"));
    assert_eq!(endpoint(&world, "s39").as_deref(), Some("172.18.0.39:3000"));
}

#[test]
fn an_index_that_is_no_good_costs_time_only() {
    let world = large();
    let good = fs::read_to_string(index(&world)).unwrap();
    let backwards: String = good.lines().rev().flat_map(|line| [line, "\n"]).collect();
    let others = |world: &World| world.servers().split_off(1);
    let before = others(&world);
    let cut = good.find("172.18.0.2").map(|at| &good[..at + 8]).unwrap();
    for bad in ["", "\n\n", "x", "1 1 1\n1 1 1 s10", cut, &good[..good.len() / 2], &backwards, &good.replace(' ', "\t")] {
        fs::write(index(&world), bad).unwrap();
        fs::remove_file(world.config()).unwrap();
        publish(&world);
        assert_eq!(others(&world), before, "{bad:?}");
    }
    // It is written anew when many files are not in it.
    let without_first = |text: &str| text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
    assert!(without_first(&good).ends_with(&without_first(&fs::read_to_string(index(&world)).unwrap())));
    fs::remove_file(index(&world)).and_then(|()| fs::create_dir(index(&world))).unwrap();
    fs::remove_file(world.config()).unwrap();
    publish(&world);
    assert_eq!(others(&world), before);
}

#[test]
fn a_second_run_writes_nothing() {
    let world = large();
    join(&world, 7);
    // Not even an index.
    fs::remove_file(index(&world)).unwrap();
    let before = world.snapshot();
    join(&world, 7);
    assert_eq!(world.snapshot(), before);
}

//! Many nodes on one machine, whose kernel has room for the neighbours of some 30 containers unless it is told otherwise.
//!
//! `MANY_NODES` (21) sets how many; for more than 20, the limit is raised.

use std::env;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Instant;

use e2e::docker::{docker, text};
use e2e::{Balancer, Container, eventually};

use crate::scripts::{Scripts, out};

const TABLE: &str = "/proc/sys/net/ipv4/neigh/default";

/// How often the kernel had no room for a neighbour, each time with `neighbor table overflow!` in its log, unless it has
/// said that just before. Like the limit, it shows that on the machine itself only, not inside a container.
fn overflows() -> Option<u64> {
    let table = fs::read_to_string("/proc/net/stat/arp_cache").ok()?;
    let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let column = lines.next().unwrap().iter().position(|name| *name == "table_fulls").unwrap();
    Some(lines.map(|cpu| u64::from_str_radix(cpu[column], 16).unwrap()).sum())
}

/// Runs `docker` with this command on these containers at once.
fn all(command: &str, nodes: &[Container]) {
    let names = nodes.iter().map(|node| node.name.as_str());
    let _ = docker(&[command].into_iter().chain(names).collect::<Vec<_>>());
}

#[test]
fn many_nodes_start_half_of_them_stop_and_a_fifth_is_killed() {
    let count = env::var("MANY_NODES").map_or(21, |text| text.parse::<usize>().expect("MANY_NODES is a number"));
    let (lab, before) = (Scripts::new("many"), overflows());
    let began = Instant::now();
    let started = lab.start(&count.to_string(), ["0"; 3]);
    assert!(started.status.success(), "{}", out(&started));
    match fs::read_to_string(format!("{TABLE}/gc_thresh3")) {
        Ok(limit) => assert!(limit.trim().parse::<usize>().unwrap() >= 2 * count * count, "{limit}: {}", out(&started)),
        Err(_) => assert!(out(&started).contains("; as root, on the machine itself: sysctl -w "), "{}", out(&started)),
    }

    let container = |name: &str| Container { name: format!("{}{name}", lab.prefix) };
    let balancer = Balancer { container: container("ha") };
    let nodes: Vec<Container> = (1..=count).map(|number| container(&format!("s{number}"))).collect();
    let said = |what: &str, since: Instant| println!("{count} nodes: {what} after {} ms", since.elapsed().as_millis());
    balancer.settles_on(&nodes.iter().collect::<Vec<_>>(), 45);
    said("all started", began);
    let knows = |node: &Container| node.exec(&["serf", "members", "-status=alive"]).lines().count();
    eventually("they all know each other", 45, || {
        let counts: Vec<usize> = nodes.iter().map(knows).collect();
        if counts.iter().all(|known| *known == count + 1) { Ok(()) } else { Err(format!("{counts:?}")) }
    });

    let (stopped, rest) = nodes.split_at(count / 2);
    all("stop", stopped);
    let stop = Instant::now();
    balancer.settles_on(&rest.iter().collect::<Vec<_>>(), 45);
    said("half of them stopped", stop);
    let (killed, rest) = rest.split_at(count / 5);
    all("kill", killed);
    let kill = Instant::now();
    balancer.settles_on(&rest.iter().collect::<Vec<_>>(), 45);
    said("a fifth killed", kill);
    assert_eq!(overflows(), before, "no neighbor table overflow");
}

/// Other settings of the kernel are put over the real ones, for the script alone.
#[test]
fn the_limit_of_neighbours_is_raised_or_the_line_to_type_is_said() {
    let lab = Scripts::new("neighbours");
    let folder = tempfile::tempdir().unwrap();
    let fake = |name: &str| folder.path().join(name);
    let limit = |name: &str| fake("default").join(name);
    let limits =
        || ["gc_thresh1", "gc_thresh2", "gc_thresh3"].map(|name| fs::read_to_string(limit(name)).unwrap().trim().to_owned());
    fs::create_dir(fake("default")).unwrap();
    fs::write(fake("docker"), "#!/bin/sh\n[ \"$1\" != run ] || exit 1\nPATH=${PATH#*:} exec docker \"$@\"\n").unwrap();
    fs::set_permissions(fake("docker"), Permissions::from_mode(0o755)).unwrap();
    for (nodes, options, now, raised, said) in [
        ("20", "rw", "1024", "1024", None),
        ("50", "rw", "5408", "5408", None),
        (
            "50",
            "rw",
            "1024",
            "5408",
            Some("==> raised the kernel's limit of neighbour entries from 1024 to 5408 for 50 nodes, until the next boot\n"),
        ),
        (
            "50",
            "ro",
            "1024",
            "1024",
            Some(
                "start-containers.sh: the kernel's limit of neighbour entries, 1024, is too low for 50 nodes; as root, on the machine itself: sysctl -w net.ipv4.neigh.default.gc_thresh1=676 net.ipv4.neigh.default.gc_thresh2=2704 net.ipv4.neigh.default.gc_thresh3=5408\n",
            ),
        ),
    ] {
        for (name, value) in [("gc_thresh1", "128"), ("gc_thresh2", "512"), ("gc_thresh3", now)] {
            fs::write(limit(name), value).unwrap();
        }
        let path = format!("{}:{}", folder.path().display(), env::var("PATH").unwrap());
        let script = lab.command(nodes, ["0"; 3]);
        let mount = r#"mount --bind "$0" "$1" && mount -o "remount,bind,$2" "$1" && shift 2 && exec "$@""#;
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", mount]).arg(folder.path()).args([TABLE.trim_end_matches("/default"), options]);
        command.arg(script.get_program()).args(script.get_args()).current_dir(script.get_current_dir().unwrap());
        let environment = script.get_envs().filter_map(|(name, value)| Some((name, value?)));
        let output = command.envs(environment).env("PATH", path).output().unwrap();
        let all = out(&output);
        assert!(text(&output.stderr).ends_with("ha does not start: \n"), "{all}");
        assert!(said.map_or(!all.contains("neighbour entries"), |line| all.contains(line)), "{all}");
        assert_eq!(limits()[2], raised, "{all}");
        if raised != now {
            assert_eq!(limits(), ["676", "2704", "5408"]);
        }
    }
}

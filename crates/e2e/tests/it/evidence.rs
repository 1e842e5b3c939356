//! `logs/collect.sh` makes the evidence of the lab's tasks that is in `logs/`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use e2e::docker::{docker, text};

const LOGS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../logs");

/// Paths of all files below the folder, as `task0/stats.png`.
fn files(folder: &Path) -> BTreeSet<String> {
    let tasks = (0..=6).map(|number| format!("task{number}"));
    let of = |task: String| {
        let entries = fs::read_dir(folder.join(&task)).expect("a folder for each task");
        entries.map(move |entry| format!("{task}/{}", entry.unwrap().file_name().to_str().unwrap())).collect::<Vec<_>>()
    };
    tasks.flat_map(of).collect()
}

#[test]
fn one_command_makes_every_piece_of_evidence() {
    let prefix = format!("e2e-{}-logs-", std::process::id());
    let network = format!("{prefix}net");
    let folder = std::env::temp_dir().join(&network);
    let output = Command::new(Path::new(LOGS).join("collect.sh"))
        .arg(&folder)
        .envs([("PREFIX", &prefix), ("NETWORK", &network)])
        .output()
        .expect("the script runs");
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(docker(&["ps", "-aq", "--filter", &format!("name=^/{prefix}")]).is_empty(), "containers are left");
    assert!(docker(&["network", "ls", "-q", "--filter", &format!("name=^{network}")]).is_empty(), "the network is left");

    let made = files(&folder);
    assert_eq!(made, files(Path::new(LOGS)), "logs/ was made by another version: run logs/collect.sh");
    for name in &made {
        assert!(said.contains(&format!(" {name} ")), "{name} is not in the list: {said}");
        let bytes = fs::read(folder.join(name)).unwrap();
        assert!(!bytes.is_empty(), "{name}");
        if name.ends_with(".png") {
            assert_eq!((&bytes[..8], &bytes[16..20]), (&b"\x89PNG\r\n\x1a\n"[..], &1250_u32.to_be_bytes()[..]), "{name}");
        }
    }

    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    for (number, servers) in [(1, vec![]), (2, vec!["s1"]), (3, vec!["s1", "s2"]), (4, vec!["s2"])] {
        let config = read(&format!("task5/haproxy_{number}.cfg"));
        let found: Vec<&str> = config.lines().filter_map(|line| line.trim().strip_prefix("server ")?.split(' ').next()).collect();
        assert_eq!(found, servers, "task5/haproxy_{number}.cfg");
    }
    for (name, part) in [
        ("task2/ha.log", "EventMemberJoin: s2 172.18.0.4"),
        ("task2/s1.log", "EventMemberJoin: s2"),
        ("task3/ha_1.log", "Received event: member-join"),
        ("task3/serf.log", "TIME member-join: s2 172.18.0.4 joined: event member-join"),
        ("task4/docker_ps.log", "CONTAINER ID   IMAGE                  COMMAND   CREATED    STATUS             PORTS "),
        ("task4/docker_ps.log", "127.0.0.1:80->80/tcp, 127.0.0.1:1936->1936/tcp, 127.0.0.1:9999->9999/tcp   ha\n"),
        ("task5/docker_ps2.log", "   Exited (0) TIME ago   "),
        ("task5/inspect_ha.log", "\"HostPort\": \"1936\""),
        ("task5/inspect_s1.log", "\"Image\": \"softengheigvd/webapp\""),
        ("task5/inspect_network.log", "\"Name\": \"heig\""),
        ("task5/inspect_network.log", "\"IPv4Address\": \"172.18.0.4/16\""),
        ("task6/6.6_ps.log", "   s5\n"),
    ] {
        assert!(read(name).contains(part), "{name}: {}", read(name));
    }
    // PID 1 is s6-svscan over Debian's s6, and s6-svscan or the init of s6-overlay over that.
    let processes = read("task1/processes.log");
    let first = processes.lines().next().and_then(|line| line.strip_prefix("1   ")).expect(&processes);
    let program = first.split(' ').next().unwrap().rsplit('/').next().unwrap();
    assert!(["s6-svscan", "init"].contains(&program), "{processes}");
    for part in ["PID haproxy -W ", "PID /usr/bin/serf agent ", "PID sync-nodes --follow "] {
        assert!(processes.contains(part), "{part}: {processes}");
    }
    // Whatever Docker chooses anew each time is replaced.
    for name in made.iter().filter(|name| name.contains("docker_ps") || name.contains("inspect") || name.contains("_ps.log")) {
        let text = read(name);
        let mut words = text.split(|c: char| !c.is_ascii_alphanumeric());
        let is_id = |word: &str| [12, 64].contains(&word.len()) && word.bytes().all(|b| b.is_ascii_hexdigit());
        assert_eq!(words.find(|word| is_id(word)), None, "{name}: {text}");
        assert!(!text.contains(&prefix) && !text.contains("02:42:"), "{name}: {text}");
    }
    // What does not depend on the machine is the same in each run.
    for name in ["task4/haproxy_1.log", "task4/haproxy_2.log", "task4/haproxy_3.log", "task5/ls_nodes.log", "task5/ls_nodes2.log"]
    {
        assert_eq!(read(name), fs::read_to_string(Path::new(LOGS).join(name)).unwrap(), "{name}");
    }
    fs::remove_dir_all(folder).unwrap();
}

//! A disk that is really full, and one that is really read-only: the last good file stays, and what was left undone is
//! done by the next run. The tool runs in a mount namespace of its own, which takes root.
#![allow(clippy::unwrap_used, reason = "what the tests share is test code, which the lint cannot know")]

use std::process::Output;

use lb_fixture::World;

const TOOL: &str = env!("CARGO_BIN_EXE_member-join");

/// What all scripts share. `join NAME LAST` prints the exit code of `member-join`; its words go to standard error.
const SHARED: &str = r#"
disk() { mount -t tmpfs -o mode=0755,size=64k tmpfs "$1"; }
fill() { dd if=/dev/zero of="$1/.filler" bs=1k 2>/dev/null && exit 99; truncate -s 60k "$1/.filler"; cat /dev/zero >>"$1/.filler" 2>/dev/null || :; }
join() { printf '%s\t172.18.0.%s\tbackend\t\n' "$1" "$2" | "$TOOL" >/dev/null && echo 0 || echo $?; }
servers() { grep -c '^ *server ' "$HAPROXY_CFG"; }
"#;

/// Runs a script in a mount namespace of its own, and returns the lines that it prints. On standard error there may be
/// nothing but lines of the tool.
fn script(world: &World, script: &str) -> Vec<String> {
    let mut command = world.process("unshare");
    let text = format!("set -eu{SHARED}{script}");
    let output = command.args(["-m", "sh", "-c", &text]).env("TOOL", TOOL).env("ROOT", world.path("")).output().unwrap();
    let Output { status, stdout, stderr } = output;
    let said = String::from_utf8(stderr).unwrap();
    assert!(status.success(), "{status}: {said}");
    assert!(said.lines().all(|line| line.starts_with("member-join: ")), "{said}");
    String::from_utf8(stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn a_full_disk_of_the_configuration_keeps_the_last_good_file() {
    let world = World::new();
    let lines = script(
        &world,
        r#"
disk "$ROOT/haproxy"
join s1 2; servers
cp "$HAPROXY_CFG" "$ROOT/old"
fill "$ROOT/haproxy"
join s2 3; cmp "$HAPROXY_CFG" "$ROOT/old"; ls -A "$ROOT/haproxy"
rm "$ROOT/haproxy/.filler"
join s2 3; servers; ls -A "$ROOT/haproxy"
"#,
    );
    let expected = ["0", "1", "1", ".filler", "haproxy.cfg", "0", "2", "haproxy.cfg"];
    assert_eq!(lines, expected, "{:?}", world.log());
}

#[test]
fn a_full_disk_of_the_registry_keeps_every_node() {
    let world = World::new();
    let lines = script(
        &world,
        r#"
disk "$NODES_DIR"
join s1 2
fill "$NODES_DIR"
join s1 9; cat "$NODES_DIR/s1"; join s2 3; ls -A "$NODES_DIR"; servers
rm "$NODES_DIR/.filler"
join s1 9; cat "$NODES_DIR/s1"; join s2 3; servers
"#,
    );
    let expected = ["0", "1", "s1 172.18.0.2", "1", ".filler", ".registry", "s1", "1", "0", "s1 172.18.0.9", "0", "2"];
    assert_eq!(lines, expected, "{:?}", world.log());
}

#[test]
fn a_full_disk_of_the_log_stops_nothing() {
    let world = World::new();
    let lines = script(
        &world,
        r#"
mkdir "$ROOT/log"; disk "$ROOT/log"
export SERF_LOG="$ROOT/log/serf.log"
join s1 2
fill "$ROOT/log"
# Its last block may have room for a few lines still.
for last in 3 4 5 6 7 8 9; do join s2 $last; done | sort | uniq -c | tr -s ' '
servers; stat -f -c %f "$ROOT/log"
"#,
    );
    assert_eq!(lines, ["0", " 7 0", "2", "0"], "{:?}", world.log());
}

#[test]
fn a_read_only_disk_keeps_the_last_good_state() {
    for (folder, servers_then) in [("haproxy", "1"), ("nodes", "1")] {
        let world = World::new();
        let lines = script(
            &world,
            &format!(
                r#"
disk "$ROOT/{folder}"
join s1 2; servers
mount -o remount,ro "$ROOT/{folder}"
join s2 3; servers; ls -A "$ROOT/{folder}"
mount -o remount,rw "$ROOT/{folder}"
join s2 3; servers; cat "$NODES_DIR/s2"
"#
            ),
        );
        let files: &[&str] = if folder == "haproxy" { &["haproxy.cfg"] } else { &[".registry", "s1"] };
        let expected = [&["0", "1", "1", servers_then], files, &["0", "2", "s2 172.18.0.3"]].concat();
        assert_eq!(lines, expected, "{folder}: {:?}", world.log());
    }
}

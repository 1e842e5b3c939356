//! What `member-join` refuses: each bad line with its reason, and nothing else with it.
#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "what the tests share is test code, which the lint cannot know")]

use std::net::UdpSocket;

use assert_cmd::assert::Assert;
use lb_fixture::{World, said};

const TOOL: &str = env!("CARGO_BIN_EXE_member-join");
const GOOD: &[u8] = b"s1\t172.18.0.2\tbackend\t\n";
const NAME: &str = "is not 1 to 128 of A-Z a-z 0-9 . _ -";

fn join(world: &World, input: &[u8]) -> Assert {
    world.command(TOOL).write_stdin(input).assert()
}

/// Shows that a line is rejected for this reason, in one line on standard error and in the log, and that the good line
/// after it goes in.
fn assert_refused(line: &[u8], reason: &str) {
    let shown = String::from_utf8_lossy(line).chars().take(200).collect::<String>();
    let world = World::new();
    let run = join(&world, &[line, b"\n", GOOD].concat()).code(65).stdout("");
    let lines = said(&run);
    assert!(lines[0].starts_with("member-join: line 1 rejected: ") && lines[0].contains(reason), "{shown:?}: {lines:?}");
    assert!(lines[0].len() < 300, "{shown:?}: {lines:?}");
    assert_eq!(
        lines[1..],
        ["member-join: registered s1 172.18.0.2", "member-join: published generation=1 cause=by-hand applied=file added=s1"]
    );
    assert_eq!(world.log(), lines);
    assert_eq!(world.nodes(), ["s1 172.18.0.2"], "{shown:?}");
    assert_eq!(world.servers().len(), 1, "{shown:?}");
}

#[test]
fn a_name_that_is_no_safe_name_is_refused() {
    let long = "x".repeat(129);
    for name in [
        "",
        ".",
        "..",
        "...",
        ".hidden",
        "-rf",
        "--help",
        "a/b",
        "/etc/passwd",
        "../../etc/cron.d/x",
        "a b",
        "a\\tb",
        "a\\nserver evil 1.2.3.4",
        "a\rb",
        "a\0b",
        "a\x07b",
        "\x1b[31mred\x1b[0m",
        "\x1b]0;title\x07",
        "a\u{85}b",
        "\u{202e}abc",
        "é",
        "s1'",
        "\"s1\"",
        "`id`",
        "$(id)",
        "${HOME}",
        "a;b",
        "a|b",
        "a&b",
        "a#b",
        "#",
        "{{host}}",
        "{{#each addresses}}",
        "%[src]",
        "%[env(HOME)]",
        "a=b",
        "a,b",
        "a:b",
        "*",
        &long,
    ] {
        assert_refused(format!("{name}\t172.18.0.9\tbackend\t").as_bytes(), NAME);
    }
}

#[test]
fn an_address_that_no_server_can_have_is_refused() {
    for (address, reason) in [
        ("", "is not an IPv4 or IPv6 address"),
        ("s1", "is not an IPv4 or IPv6 address"),
        ("172.18.0", "is not an IPv4 or IPv6 address"),
        ("172.18.0.256", "is not an IPv4 or IPv6 address"),
        ("172.18.0.2:80", "is not an IPv4 or IPv6 address"),
        ("172.18.0.2 backup", "is not an IPv4 or IPv6 address"),
        ("[fd00::1]", "is not an IPv4 or IPv6 address"),
        ("fe80::1%eth0", "is not an IPv4 or IPv6 address"),
        ("0x7f.1", "is not an IPv4 or IPv6 address"),
        ("0.0.0.0", "is unspecified"),
        ("::", "is unspecified"),
        ("224.0.0.1", "is multicast"),
        ("ff02::1", "is multicast"),
        ("255.255.255.255", "is broadcast"),
    ] {
        assert_refused(format!("x\t{address}\tbackend\t").as_bytes(), reason);
    }
}

#[test]
fn an_ipv4_address_in_the_clothes_of_ipv6_is_refused_alike() {
    for (address, reason) in
        [("::ffff:0.0.0.0", "is unspecified"), ("::ffff:224.0.0.1", "is multicast"), ("::ffff:255.255.255.255", "is broadcast")]
    {
        assert_refused(format!("x\t{address}\tbackend\t").as_bytes(), reason);
    }
}

/// What a member with this address is told when nodes may be in these networks; `None` when it goes in.
fn refusal(networks: &str, address: &str) -> Option<String> {
    let world = World::new();
    let run = world.command(TOOL).env("NODE_NETWORKS", networks).write_stdin(format!("x\t{address}\tbackend\t\n")).assert();
    let lines = said(&run);
    let rejected = lines.iter().find_map(|line| line.strip_prefix("member-join: line 1 rejected: "));
    let code = if rejected.is_some() { 65 } else { 0 };
    let _ = run.code(code);
    assert_eq!(world.nodes().len(), usize::from(rejected.is_none()), "{lines:?}");
    rejected.map(str::to_owned)
}

#[test]
fn an_address_outside_of_the_nodes_networks_is_refused() {
    const NETWORKS: &str = "172.18.0.0/16 fd00::/8";
    for address in ["172.18.0.9", "::ffff:172.18.0.9", "fd00::9"] {
        assert_eq!(refusal(NETWORKS, address), None, "{address}");
    }
    for (address, reason) in [
        ("172.19.0.9", "address 172.19.0.9 is in none of NODE_NETWORKS (172.18.0.0/16 fd00::/8)"),
        ("64:ff9b::7f00:1", "is in none of NODE_NETWORKS"),
        ("127.0.0.1", "address 127.0.0.1 is loopback"),
        ("127.255.0.9", "is loopback"),
        ("::1", "is loopback"),
        ("::ffff:127.0.0.1", "address 127.0.0.1 is loopback"),
        ("169.254.169.254", "is link-local"),
        ("::ffff:169.254.169.254", "is link-local"),
        ("fe80::9", "is link-local"),
    ] {
        let found = refusal(NETWORKS, address).unwrap_or_default();
        assert!(found.contains(reason), "{address}: {found}");
        assert_eq!(refusal("any", address), None, "{address}");
    }
}

#[test]
fn an_address_of_the_balancer_is_refused_at_any_port() {
    // Nothing is sent: the system only chooses the address to send from. A host without a network has none.
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    let Ok(own) = socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr()) else { return };
    for networks in ["own", "", "any", "0.0.0.0/0"] {
        let found = refusal(networks, &own.ip().to_string()).unwrap_or_default();
        assert_eq!(found, format!("address {} is this balancer's own: it would send its requests to itself", own.ip()));
        assert!(refusal(networks, &format!("::ffff:{}", own.ip())).is_some());
    }
    let found = refusal("own", "255.0.113.7").unwrap_or_default();
    assert!(found.contains("is in no network that this balancer is on (") && found.contains("NODE_NETWORKS"), "{found}");
}

#[test]
fn networks_that_are_none_are_wrong_options() {
    for networks in ["lan", "172.18.0.0/33", "any 10.0.0.0/8", "172.18.0.0/16;fd00::/8"] {
        let world = World::new();
        let run = world.command(TOOL).env("NODE_NETWORKS", networks).write_stdin(GOOD).assert().code(2);
        run.stderr(predicates::str::contains("is not a network such as 172.18.0.0/16 or fd00::/8"));
        assert!(world.nodes().is_empty());
    }
}

#[test]
fn a_tag_out_of_its_range_refuses_the_member() {
    for (tags, reason) in [
        ("port=", "port '' is not 1 to 65535"),
        ("port=0", "port '0' is not 1 to 65535"),
        ("port=65536", "port '65536' is not 1 to 65535"),
        ("port=+80", "port '+80' is not 1 to 65535"),
        ("port=80 check", "port '80 check' is not 1 to 65535"),
        ("port=http", "port 'http' is not 1 to 65535"),
        ("weight=-1", "weight '-1' is not 0 to 256"),
        ("weight=257", "weight '257' is not 0 to 256"),
        ("weight=1e2", "weight '1e2' is not 0 to 256"),
        ("weight=99999999999999999999", "weight '99999999999999999999' is not 0 to 256"),
        ("drain=", "drain '' is not yes or no"),
        ("drain=Yes", "drain 'Yes' is not yes or no"),
        ("drain=\x1b[2J", "is not yes or no"),
        ("x=1,port=81,port=80", "'port' is given twice"),
        ("drain=no,drain=yes", "'drain' is given twice"),
    ] {
        assert_refused(format!("x\t172.18.0.9\tbackend\t{tags}").as_bytes(), reason);
    }
}

#[test]
fn a_line_that_is_no_event_line_is_refused() {
    let long = [b"x\t172.18.0.9\tbackend\ta=".as_slice(), &vec![b'y'; 1 << 20]].concat();
    for (line, reason) in [
        (b"x".as_slice(), "not '<name> <address> <role> [<tags>]'"),
        (b"x 172.18.0.9", "not '<name> <address> <role> [<tags>]'"),
        (b"x\t172.18.0.9", "not '<name> <address> <role> [<tags>]'"),
        (b"\xff\xfe\t172.18.0.9\tbackend\t", "not UTF-8"),
        (b"x\t172.18.0.9\tbackend\ta=\xc3\x28", "not UTF-8"),
        (&long, "longer than 16384 bytes"),
    ] {
        assert_refused(line, reason);
    }
}

#[test]
fn tags_typed_with_spaces_between_them_are_all_read() {
    let world = World::new();
    let _ = join(&world, b"x 172.18.0.9 backend port=8080 weight=50\n").code(0);
    assert_eq!(world.nodes(), ["x 172.18.0.9 port=8080 weight=50"]);
    assert_refused(b"y 172.18.0.9 backend port=8080 weight=500", "weight");
}

#[test]
fn an_over_long_line_without_an_end_is_refused() {
    let world = World::new();
    let before = world.snapshot();
    let run = join(&world, &vec![b'x'; 100 << 20]).code(65);
    assert_eq!(said(&run), ["member-join: line 1 rejected: longer than 16384 bytes"]);
    assert_eq!(world.snapshot(), before);
}

#[test]
fn every_bad_line_of_an_event_is_told_with_its_number() {
    let world = World::new();
    let run =
        join(&world, b"a/b\t1.2.3.4\tbackend\t\ns1\t172.18.0.2\tbackend\t\n\nx\t1.2.3\tbackend\t\ns2\t172.18.0.3\tbackend\t\n");
    let rejected: Vec<_> = said(&run.code(65)).into_iter().filter(|line| line.contains("rejected")).collect();
    assert_eq!(rejected.len(), 2, "{rejected:?}");
    assert!(
        rejected[0].contains("line 1 rejected: name 'a/b'") && rejected[1].contains("line 4 rejected: address '1.2.3'"),
        "{rejected:?}"
    );
    assert_eq!(world.nodes(), ["s1 172.18.0.2", "s2 172.18.0.3"]);
}

#[test]
fn a_flood_of_bad_lines_is_counted_and_not_all_told() {
    let world = World::new();
    let bad = "a/b\t1.2.3.4\tbackend\t\n".repeat(10_000);
    let run = join(&world, format!("{bad}s1\t172.18.0.2\tbackend\t\n").as_bytes()).code(65);
    let said = said(&run);
    assert_eq!(said.iter().filter(|line| line.contains(" rejected: ")).count(), 100);
    assert!(said.contains(&"member-join: 9900 more lines rejected".to_owned()), "{:?}", said.last());
    assert_eq!(world.nodes(), ["s1 172.18.0.2"]);
}

#[test]
fn an_event_of_bad_lines_only_writes_nothing() {
    let world = World::new();
    let before = world.snapshot();
    let run = join(&world, b"../x\t172.18.0.9\tbackend\t\nx\t\tbackend\t\n").code(65);
    assert_eq!(said(&run).len(), 2);
    assert_eq!(world.snapshot(), before);
}

#[test]
fn name_and_role_of_a_member_that_is_passed_over_are_quoted() {
    let world = World::new();
    let before = world.snapshot();
    let run = join(&world, "\x1b[31m'x\t172.18.0.9\trole\x07'\u{202e}\t\n".as_bytes()).success();
    assert_eq!(said(&run), ["member-join: '\\u{1b}[31m\\'x' has the role 'role\\u{7}\\'\\u{202e}', not load-balanced"]);
    assert_eq!(world.snapshot(), before);
}

//! Several services: which one answers where, in a real HAProxy.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what the tests share is test code, which the lint cannot know")]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use lb_fixture::{Background, World, said};

use crate::cli::list;

/// A world whose HAProxy says which service it has chosen, even if that has no node.
fn world() -> World {
    let world = World::self_contained();
    let template = fs::read_to_string(world.template()).unwrap();
    let say = "    http-after-response set-header X-Service {{name}}\n    balance roundrobin\n";
    world.set_template(&template.replace("    balance roundrobin\n", say));
    world
}

/// A member list with one member for each of these tags, `role=…` first.
fn members(tags: &[&str]) -> String {
    let names: Vec<String> = (1..=tags.len()).map(|number| format!("s{number}")).collect();
    let addresses: Vec<String> = (1..=tags.len()).map(|number| format!("127.9.8.{number}")).collect();
    let member = |((name, address), tags)| (name, address, tags, "alive");
    let members: Vec<(&str, &str, &str, &str)> = names
        .iter()
        .map(String::as_str)
        .zip(addresses.iter().map(String::as_str))
        .zip(tags.iter().copied())
        .map(member)
        .collect();
    list(&[&members[..], &[("ha", "172.18.0.7", "role=balancer", "alive")]].concat())
}

fn sync(world: &World, members: &str, env: &[(&str, &str)]) -> assert_cmd::assert::Assert {
    let mut command = world.command(env!("CARGO_BIN_EXE_sync-nodes"));
    command.args(["--from", "-"]).env("BACKEND_ROLE", "*").envs(env.iter().copied()).write_stdin(members).assert()
}

/// The status of a request, and the service that HAProxy chose for it.
fn ask(world: &World, host: &str, path: &str) -> (u16, String) {
    let mut stream = UnixStream::connect(world.path("run/port-80.sock")).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let service = answer.lines().find_map(|line| line.strip_prefix("x-service: ")).unwrap_or("-");
    (answer.split(' ').nth(1).unwrap().parse().unwrap(), service.to_owned())
}

fn start(world: &World) -> Background {
    world.assert_valid();
    world.start_haproxy()
}

fn assert_answers(world: &World, requests: &[(&str, &str, &str)]) {
    for (host, path, service) in requests {
        assert_eq!(ask(world, host, path).1, *service, "{host} {path}\n{}", world.text());
    }
}

#[test]
fn each_service_answers_for_its_hosts_and_paths() {
    let world = world();
    let all = members(&[
        "role=shop,host=shop.example+www.shop.example",
        "role=api,host=shop.example,path=/api",
        "role=v2,host=shop.example,path=/api/v2/",
        "role=wild,host=*.example",
        "role=deep,host=a.b.example",
        "role=docs,path=/docs",
        "role=backend",
    ]);
    sync(&world, &all, &[]).success();
    let _haproxy = start(&world);
    assert_answers(
        &world,
        &[
            ("shop.example", "/", "shop"),
            ("SHOP.Example:8080", "/?x=/api", "shop"),
            ("www.shop.example", "/api", "shop"),
            ("shop.example", "/api", "api"),
            ("shop.example", "/api/", "api"),
            ("shop.example", "/api?x", "api"),
            ("shop.example", "/api/v2", "v2"),
            ("shop.example", "/api/v2/x/y", "v2"),
            ("shop.example", "/api/v22", "api"),
            // Not at the border of a segment, and paths count by case.
            ("shop.example", "/apix", "shop"),
            ("shop.example", "/API", "shop"),
            ("shop.example", "/x/api", "shop"),
            // A wildcard is for one label, and no part of a name.
            ("other.example", "/api", "wild"),
            ("a.b.example", "/", "deep"),
            ("x.b.example", "/", "nodes"),
            ("example", "/", "nodes"),
            (".example", "/", "nodes"),
            ("shop.example.evil", "/", "nodes"),
            ("shopxexample", "/", "nodes"),
            ("", "/", "nodes"),
            // A host comes before a path alone.
            ("shop.example", "/docs", "shop"),
            ("172.18.0.7", "/docs/x", "docs"),
            ("172.18.0.7", "/", "nodes"),
        ],
    );
}

#[test]
fn what_nobody_claims_is_404_and_a_service_without_node_503() {
    let world = world();
    sync(&world, &members(&["role=shop,host=shop.example", "role=api,host=api.example,cookie=none"]), &[]).success();
    let text = world.text();
    let (api, shop) = text.split_once("backend shop\n").unwrap();
    assert!(shop.contains("cookie NODESESSID") && !api.contains("NODESESSID"), "{text}");
    sync(&world, &members(&["role=shop,host=shop.example"]), &[]).success();
    assert_eq!(world.nodes(), ["s1 127.9.8.1 role=shop host=shop.example"]);
    let haproxy = start(&world);
    assert_eq!(ask(&world, "api.example", "/"), (503, "api".to_owned()));
    assert_eq!(ask(&world, "other.example", "/"), (404, "-".to_owned()));
    assert_answers(&world, &[("shop.example", "/", "shop")]);
    // Debian 12's HAProxy does not tell how a reload has ended.
    drop(haproxy);
    // Somebody forgets the service: its place is free again.
    fs::remove_file(world.nodes_dir().join(".last-of-api")).unwrap();
    sync(&world, &members(&["role=shop,host=shop.example"]), &[]).success();
    let haproxy = start(&world);
    assert_eq!(ask(&world, "api.example", "/").0, 404);
    drop(haproxy);
    // The same, because the role is no longer load-balanced.
    sync(&world, &members(&["role=shop,host=shop.example", "role=x,host=x.example"]), &[]).success();
    assert!(world.text().contains("backend x\n"));
    sync(&world, &members(&["role=shop,host=shop.example"]), &[("BACKEND_ROLE", "shop api")]).success();
    assert!(!world.text().contains("backend x\n"), "{}", world.text());
}

#[test]
fn a_conflict_is_logged_when_it_begins() {
    let world = world();
    let run = sync(&world, &members(&["role=web,host=x.example", "role=blog,host=x.example"]), &[]).success();
    assert!(said(&run).contains(&"sync-nodes: service web claims x.example, which blog has".to_owned()), "{:?}", said(&run));
    let _haproxy = start(&world);
    assert_answers(&world, &[("x.example", "/", "blog")]);
}

#[test]
fn a_file_of_routes_is_the_only_source() {
    let world = world();
    let path = world.path("routes");
    let env = [("ROUTES", path.to_str().unwrap())];
    let all = members(&["role=shop,host=shop.example", "role=evil,host=shop.example+bank.example"]);
    fs::write(&path, "# the shop\nshop.example shop\nshop.example/new later\n").unwrap();
    sync(&world, &all, &env).success();
    let haproxy = start(&world);
    assert_answers(&world, &[("shop.example", "/", "shop"), ("shop.example", "/new", "later"), ("bank.example", "/", "-")]);

    // A bad file changes nothing.
    let before = world.config_files();
    fs::write(&path, "shop.example shop\nshop.example:80 evil\n").unwrap();
    let run = sync(&world, &all, &env).code(1);
    let reason = "line 2: host 'shop.example:80' has a port, or is an IPv6 address: it must be a name alone";
    assert_eq!(said(&run), [format!("sync-nodes: routes {}: {reason}", path.display())]);
    assert_eq!(world.config_files(), before);
    assert_answers(&world, &[("shop.example", "/", "shop")]);
    drop(haproxy);

    // A new one is read at the next sync.
    fs::write(&path, "bank.example shop\n/ evil\n").unwrap();
    sync(&world, &all, &env).success();
    let _haproxy = start(&world);
    assert_answers(&world, &[("bank.example", "/", "shop"), ("shop.example", "/", "evil")]);
}

#[test]
fn a_bad_tag_or_role_refuses_the_member_with_its_reason() {
    let world = world();
    let all = members(&[
        "role=stats",
        "role=shop,host=a b",
        "role=shop,path=/../x",
        "role=shop,cookie=a;b",
        "role=shop,host=good.example",
    ]);
    let run = sync(&world, &all, &[]).code(65);
    assert_eq!(world.nodes(), ["s5 127.9.8.5 role=shop host=good.example"]);
    for reason in [
        "member 's1' rejected: role 'stats' is the name of a section of haproxy.cfg that is no service",
        "member 's2' rejected: host 'a b' is not labels of a-z 0-9 - _ (1 to 63 each, - not at an end) with dots between them",
        "member 's3' rejected: path '/../x' has a segment . or ..",
        "member 's4' rejected: cookie 'a;b' is neither none nor 1 to 128 of A-Z a-z 0-9 . _ - (not beginning with . or -)",
    ] {
        assert!(said(&run).contains(&format!("sync-nodes: {reason}")), "{reason}: {:#?}", said(&run));
    }
}

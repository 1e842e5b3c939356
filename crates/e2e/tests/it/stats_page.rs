//! The statistics page as a browser shows it: headless Chromium loads it and says what is there.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::thread;

use e2e::docker::{docker, text};
use e2e::wait::same;
use e2e::{Balancer, Container, Lab, Look, eventually};

use crate::tls::sh;

/// The rows of the page's nodes: name, then the row's class, on which its colour depends, and what stands under Status.
type Rows = BTreeMap<String, (String, String)>;

fn rows(balancer: &Balancer) -> Rows {
    let profile = std::env::temp_dir().join(format!("{}-chromium", balancer.name));
    let page = format!("http://127.0.0.1:{}/", balancer.port(1936));
    let output = Command::new("timeout")
        .args(["60", "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(page)
        .output()
        .expect("Chromium is installed");
    let _ = fs::remove_dir_all(profile);
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).split("<tr class=\"").filter_map(row).collect()
}

/// One row of the table, from its class on.
fn row(html: &str) -> Option<(String, (String, String))> {
    let (class, cells) = html.split_once('"')?;
    let (name, _) = cells.split_once("<a name=\"nodes/")?.1.split_once('"')?;
    // Status: how long, in which state.
    let state = |cell: &str| {
        let (long, state) = cell.split_once('<')?.0.split_once(' ')?;
        long.starts_with(|digit: char| digit.is_ascii_digit()).then(|| state.to_owned())
    };
    let state = cells.split("<td class=\"ac\">").find_map(state)?;
    (name != "Backend").then(|| (name.to_owned(), (class.to_owned(), state)))
}

/// Waits until the page shows these nodes so, and no others.
fn shows(balancer: &Balancer, nodes: &[(&Container, &str, &str)]) {
    let row = |&(node, class, state): &(&Container, &str, &str)| (node.member(), (class.to_owned(), state.to_owned()));
    let expected: Rows = nodes.iter().map(row).collect();
    eventually("the page", 40, || same(&rows(balancer), &expected));
}

#[test]
fn the_page_shows_two_three_and_five_nodes_as_up() {
    let (lab, balancer, mut nodes) = Lab::with_nodes(Look::Hardened, 2);
    for count in [2, 3, 5] {
        while nodes.len() < count {
            nodes.push(lab.node(&format!("s{}", nodes.len() + 1)));
        }
        shows(&balancer, &nodes.iter().map(|node| (node, "active_up", "UP")).collect::<Vec<_>>());
    }
}

#[test]
fn a_leaving_node_is_in_maintenance_while_it_works_and_gone_when_it_is_done() {
    let lab = Lab::new(Look::Hardened);
    let balancer = lab.balancer("ha");
    let nodes = ["s1", "s2"].map(|name| lab.node_with(name, &["-e", "DRAIN_TIMEOUT=20"]));
    let [s1, s2] = &nodes;
    balancer.settles_on(&[s1, s2], 20);
    let cookie = eventually("a session of s1", 10, || {
        let answer = balancer.get("/", None)?;
        same(&answer.host()?, &s1.member())?;
        answer.cookie.ok_or("no cookie".to_owned())
    });
    thread::scope(|scope| {
        let request = scope.spawn(|| balancer.get("/slow?seconds=12", Some(&cookie)));
        eventually("the request runs", 10, || same(&sessions_of(&balancer, s1)?, &"1".to_owned()));
        scope.spawn(|| docker(&["stop", "-t", "25", &s1.name]));
        shows(&balancer, &[(s1, "maintain", "MAINT"), (s2, "active_up", "UP")]);
        assert_eq!(request.join().unwrap().unwrap().status, 200);
    });
    shows(&balancer, &[(s2, "active_up", "UP")]);
}

#[test]
fn a_node_whose_application_is_dead_is_down_until_it_answers_again() {
    let (_lab, balancer, nodes) = Lab::with_nodes(Look::Hardened, 2);
    let [s1, s2] = &nodes[..] else { unreachable!() };
    let service = "/var/run/s6/services/node";
    let _ = s1.exec(&["s6-svc", "-d", service]);
    shows(&balancer, &[(s1, "active_down", "DOWN"), (s2, "active_up", "UP")]);
    let _ = s1.exec(&["s6-svc", "-u", service]);
    shows(&balancer, &[(s1, "active_up", "UP"), (s2, "active_up", "UP")]);
}

#[test]
fn a_draining_node_has_its_colour() {
    let (_lab, balancer, nodes) = Lab::with_nodes(Look::Hardened, 2);
    let [s1, s2] = &nodes[..] else { unreachable!() };
    let _ = s1.exec(&["serf", "tags", "-set", "drain=yes"]);
    shows(&balancer, &[(s1, "active_draining", "UP"), (s2, "active_up", "UP")]);
}

/// Requests that run on the node.
fn sessions_of(balancer: &Balancer, node: &Container) -> Result<String, String> {
    let statistics = balancer.statistics("show stat")?;
    let row = format!("nodes,{},", node.member());
    let row = statistics.lines().find(|line| line.starts_with(&row)).ok_or("no such server")?;
    row.split(',').nth(4).map(str::to_owned).ok_or_else(|| row.to_owned())
}

/// What a browser gets from the port of the statistics, with this name and password.
fn status(balancer: &Balancer, path: &str, user: &str) -> String {
    let url = format!("http://127.0.0.1:{}{path}", balancer.port(1936));
    let output = Command::new("curl")
        .args(["-sS", "--max-time", "10", "-o", "/dev/null", "-w", "%{http_code}", "-u", user, &url])
        .output()
        .expect("curl");
    text(&output.stdout)
}

#[test]
fn with_a_file_of_users_the_pages_ask_for_a_password_and_prometheus_does_not() {
    let folder = std::env::temp_dir().join(format!("e2e-{}-users", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let set = |password: &str| {
        let script = format!("printf 'me:%s\\n' \"$(openssl passwd -6 {password})\" >.new && mv .new users");
        sh(&folder, &script).unwrap();
    };
    set("one");
    let lab = Lab::new(Look::Hardened);
    let volume = format!("{}:/secrets:ro", folder.display());
    let balancer = lab.balancer_with("ha", &["-v", &volume, "-e", "STATS_AUTH_FILE=/secrets/users"]);
    eventually("the right password", 20, || same(&status(&balancer, "/", "me:one").as_str(), &"200"));
    for (path, user, expected) in [
        ("/", "me:two", "401"),
        ("/", "you:one", "401"),
        ("/", "", "401"),
        ("/live", "me:two", "401"),
        ("/live", "me:one", "200"),
        ("/live/node?name=s1", "", "401"),
        ("/metrics", "", "200"),
    ] {
        assert_eq!(status(&balancer, path, user), expected, "{path} {user}");
    }
    // Another password counts within 10 s, and no log shows a hash.
    set("two");
    eventually("the new password", 20, || same(&status(&balancer, "/", "me:two").as_str(), &"200"));
    assert_eq!(status(&balancer, "/", "me:one"), "401");
    // HAProxy answers before its reload is logged.
    let reason = "line 'user me password' is new or changed";
    eventually(reason, 20, || if balancer.logs().contains(reason) { Ok(()) } else { Err(balancer.logs()) });
    assert!(!balancer.logs().contains("$6$"), "{}", balancer.logs());
    // A file that is wrong is named, and the last good one goes on.
    fs::write(folder.join("users"), "me:two\n").unwrap();
    let line = "users /secrets/users: line 1: user me: the password is not a hash as 'openssl passwd -6' prints it";
    eventually(line, 20, || if balancer.logs().contains(line) { Ok(()) } else { Err(balancer.logs()) });
    assert_eq!(status(&balancer, "/", "me:two"), "200");
    fs::remove_dir_all(folder).unwrap();
}

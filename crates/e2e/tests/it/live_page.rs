//! The live page as a browser shows it, while real nodes come and go.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use e2e::browser::Browser;
use e2e::docker::docker;
use e2e::http::Load;
use e2e::wait::same;
use e2e::{Balancer, Container, Lab, Look, eventually};
use lb_fixture::forger::{Forged, Forger};
use lb_fixture::scripted::{listed_node, member_list, scripted_agent};
use lb_fixture::{Background, World};
use serde_json::{Value, json};

/// The page of a balancer, which shows these nodes as up.
fn open(balancer: &Balancer, nodes: &[Container]) -> Browser {
    let mut page = Browser::open(&format!("http://127.0.0.1:{}/live", balancer.port(1936)));
    for node in nodes {
        shows(&mut page, &node.member(), &["alive", "yes", "yes", "UP"]);
    }
    page
}

/// The words in a node's four states, as they are read; empty if it has no row.
fn states(page: &mut Browser, name: &str) -> Value {
    let name = json!(name);
    page.evaluate(&format!(
        "[...document.querySelectorAll('tbody tr:not([hidden])')].filter((row) => row.querySelector('.name')?.textContent === {name})
            .flatMap((row) => [...row.querySelectorAll('.st b > span:last-child')].map((word) => word.textContent))"
    ))
}

/// Waits until a node's row has these words.
fn shows(page: &mut Browser, name: &str, words: &[&str]) {
    eventually(&format!("{name} on the page"), 40, || same(&states(page, name), &json!(words)));
}

fn text(page: &mut Browser, selector: &str) -> String {
    page.evaluate(&format!("document.querySelector({})?.textContent", json!(selector))).as_str().unwrap_or_default().to_owned()
}

fn says(page: &mut Browser, selector: &str, words: &str) {
    eventually(&format!("{selector} says {words:?}"), 40, || {
        let found = text(page, selector);
        if found.contains(words) { Ok(()) } else { Err(found) }
    });
}

#[test]
fn nodes_are_seen_to_join_to_drain_to_leave_and_to_die() {
    let (lab, balancer, mut nodes) = Lab::with_nodes(Look::Hardened, 2);
    let mut page = open(&balancer, &nodes);
    nodes.push(lab.node("s3"));
    let [s1, s2, s3] = &nodes[..] else { unreachable!() };
    shows(&mut page, &s3.member(), &["alive", "yes", "yes", "UP"]);
    // What was there before it came did not move.
    let moved = page
        .evaluate("[...document.querySelectorAll('.come')].map((cell) => cell.closest('tr').querySelector('.name').textContent)");
    assert!(moved.as_array().unwrap().iter().all(|name| *name == s3.member()), "{moved}");
    assert!(!moved.as_array().unwrap().is_empty());
    says(&mut page, ".st small:not(:empty)", " ms");
    says(&mut page, "#story", &format!("added={}", s3.member()));
    says(&mut page, "#said", &format!("{} joins", s3.member()));

    let _ = s1.exec(&["serf", "tags", "-set", "drain=yes"]);
    shows(&mut page, &s1.member(), &["alive", "yes", "yes", "drains"]);
    s2.stop();
    shows(&mut page, &s2.member(), &["left", "–", "–", "–"]);
    shows(&mut page, &s2.member(), &[]);
    s3.kill();
    says(&mut page, "#dead", &s3.member());

    // A click on a node tells what show-nodes tells.
    let name = json!(s1.member());
    let _ = page
        .evaluate(&format!("[...document.querySelectorAll('.name')].find((button) => button.textContent === {name}).click()"));
    says(&mut page, "#one-text", &format!("node      {}\n", s1.member()));
    assert_eq!(page.complaints(), [""; 0]);
}

#[test]
fn the_page_says_when_it_is_disconnected_and_goes_on_by_itself() {
    let (_lab, balancer, nodes) = Lab::with_nodes(Look::Hardened, 1);
    let mut page = open(&balancer, &nodes);
    let pid = balancer.service_pid("live").expect("the service runs");
    let _ = balancer.exec(&["s6-svc", "-d", "/var/run/s6/services/live"]);
    says(&mut page, "#link", "disconnected");
    let _ = balancer.exec(&["s6-svc", "-u", "/var/run/s6/services/live"]);
    says(&mut page, "#link", "● connected");
    let again = balancer.service_pid("live").expect("the service runs again");
    assert_ne!(again, pid);
    // A killed one comes back without help.
    balancer.kill_service("live");
    eventually("it is back", 20, || match balancer.service_pid("live") {
        Some(pid) if pid != again => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let _ = balancer.exec(&["reload-ha", "--force"]);
    says(&mut page, "#story", "applied=reload");
    says(&mut page, "#link", "● connected");
    shows(&mut page, &nodes[0].member(), &["alive", "yes", "yes", "UP"]);
}

#[test]
fn a_hostile_name_is_text_and_a_node_that_gossip_has_lost_is_kept() {
    let (_lab, balancer, nodes) = Lab::with_nodes(Look::Hardened, 1);
    let mut page = open(&balancer, &nodes);
    let key = balancer.exec(&["cat", "/etc/serf/encrypt_key"]);
    let forger = Forger::at(balancer.inspect("{{.State.Pid}}").parse().unwrap(), Some(key.trim()));
    let to: Ipv4Addr = balancer.address().parse().unwrap();
    let name = "<img src=x onerror=document.title='hacked'>";
    let refused = json!(["refused", "–", "–", "–"]);
    eventually("the hostile name", 20, || {
        forger.alive(to, &Forged { name: name.as_bytes(), address: &[10, 9, 8, 7], role: b"backend" });
        same(&states(&mut page, name), &refused)
    });
    assert!(!text(&mut page, "title").contains("hacked"));
    assert_eq!(page.evaluate("document.querySelectorAll('img').length"), 0);

    // Its agent is frozen; its application answers.
    let _ = nodes[0].exec(&["s6-svc", "-p", "/var/run/s6/services/serf"]);
    shows(&mut page, &nodes[0].member(), &["failed", "kept", "yes", "UP"]);
    says(&mut page, "tbody", "failed in gossip, reachable: kept");
    assert_eq!(page.complaints(), [""; 0]);
}

/// The page of the image's tool, beside an agent that only lists this many members.
fn open_beside(count: u16) -> (World, Background, Browser) {
    let world = World::self_contained();
    let (tool, image) = (world.path("show-nodes"), format!("e2e-{}-tool-{count}", std::process::id()));
    let _ = docker(&["create", "--name", &image, "softengheigvd/ha"]);
    let _ = docker(&["cp", &format!("{image}:/usr/local/bin/show-nodes"), &tool.display().to_string()]);
    let _ = docker(&["rm", &image]);
    let members: Vec<_> =
        (0..count).map(|n| listed_node(&format!("s{n}"), [10, 0, (n / 250) as u8, (n % 250) as u8 + 1])).collect();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = world.process(&tool.display().to_string());
    command.env("SERF_RPC_ADDR", scripted_agent(member_list(&members))).env("NODE_NETWORKS", "any");
    let live = Background::start(command.args(["--serve", &address.to_string()]));
    eventually("the page is served", 20, || TcpStream::connect(address).map(drop).map_err(|error| error.to_string()));
    let page = Browser::open(&format!("http://{address}/live"));
    (world, live, page)
}

fn count(page: &mut Browser, selector: &str) -> u64 {
    page.evaluate(&format!("document.querySelectorAll({}).length", json!(selector))).as_u64().unwrap()
}

#[test]
fn two_hundred_nodes_can_be_filtered_and_of_a_thousand_the_groups_are_shown() {
    const ROWS: &str = "tbody tr:not([hidden]) .name";
    let (_world, _live, mut page) = open_beside(200);
    eventually("200 rows", 40, || same(&count(&mut page, ROWS), &200));
    let _ = page.evaluate("id('find').value = 's17'; id('find').dispatchEvent(new Event('input'))");
    // s17 and s170 to s179.
    eventually("11 rows", 10, || same(&count(&mut page, ROWS), &11));
    assert_eq!(count(&mut page, "#many:not([hidden])"), 0);

    let (_world, _live, mut page) = open_beside(1000);
    eventually("it says so", 40, || same(&count(&mut page, "#many:not([hidden])"), &1));
    let said = text(&mut page, "#many");
    assert!(said.contains("1,000"), "{said}");
    assert!(count(&mut page, ROWS) <= 100);
    assert_eq!(page.complaints(), [""; 0]);
}

/// Pictures for the eye, in the folder `LIVE_PICTURES` if it is set; in any case, nothing is wider than the page.
#[test]
fn the_page_fits_every_width_and_is_accessible() {
    let (_lab, balancer, nodes) = Lab::with_nodes(Look::Hardened, 5);
    let mut page = open(&balancer, &nodes);
    let load = Load::start(&format!("http://127.0.0.1:{}/", balancer.port(80)), 2);
    let _ = nodes[4].exec(&["serf", "tags", "-set", "drain=yes"]);
    shows(&mut page, &nodes[4].member(), &["alive", "yes", "yes", "drains"]);
    for (width, is_dark) in [(360, false), (360, true), (1280, false), (1280, true), (2000, false), (2000, true)] {
        page.look_like(width, is_dark);
        let wide = page.evaluate("document.documentElement.scrollWidth");
        assert!(wide.as_u64().unwrap() <= u64::from(width), "{wide} at {width}");
        if let Ok(folder) = std::env::var("LIVE_PICTURES") {
            let name = format!("{folder}/{width}-{}.png", if is_dark { "dark" } else { "light" });
            fs::write(name, page.picture()).unwrap();
        }
    }
    let (_, lost) = load.finish();
    assert_eq!(lost, [""; 0]);
    // What a screen reader is given: the table with its rows and heads, the live region, a name for everything to act on.
    let tree = page.call("Accessibility.getFullAXTree", json!({}));
    let tree = tree["nodes"].as_array().unwrap();
    let of_role = |role: &str| tree.iter().filter(|node| node["role"]["value"] == role).collect::<Vec<_>>();
    assert_eq!((of_role("table").len(), of_role("columnheader").len(), of_role("rowheader").len()), (1, 9, 5));
    assert_eq!(of_role("status").len(), 1);
    for role in ["button", "searchbox", "combobox", "link", "table"] {
        let all = of_role(role);
        assert!(!all.is_empty(), "no {role}");
        for node in all {
            assert_ne!(node["name"]["value"], "", "a {role} without a name");
        }
    }
}

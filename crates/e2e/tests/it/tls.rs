//! A template with TLS, as docs/outside.md has it, with a certificate of the test's own.

use std::fs;
use std::path::Path;
use std::process::Command;

use e2e::docker::text;
use e2e::{Lab, Look, eventually};

const TEMPLATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../ha/config/haproxy.cfg.hb");

/// Runs the commands in the folder.
pub fn sh(folder: &Path, script: &str) -> Result<String, String> {
    let output = Command::new("sh").args(["-ec", script]).current_dir(folder).output().expect("a shell");
    let said = text(&output.stdout) + &text(&output.stderr);
    if output.status.success() { Ok(said) } else { Err(said) }
}

/// The commands of the block of `docs/<page>.md` that has this word.
pub fn block(page: &str, word: &str) -> String {
    let page = fs::read_to_string(format!("{}/../../docs/{page}.md", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let mut blocks = page.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks.find(|block| block.contains(word)).expect("a block").to_owned()
}

#[test]
fn https_is_served_with_the_certificate_of_the_template_and_nodes_come_without_a_reload() {
    let folder = std::env::temp_dir().join(format!("e2e-{}-tls", std::process::id()));
    fs::create_dir_all(folder.join("config")).unwrap();
    fs::copy(TEMPLATE, folder.join("config/haproxy.cfg.hb")).unwrap();
    let make = block("outside", "openssl req");
    sh(&folder, &make).unwrap();

    let lab = Lab::new(Look::Hardened);
    let volume = format!("{}:/config:ro", folder.join("config").display());
    let balancer = lab.balancer_with("ha", &["-v", &volume, "-p", "127.0.0.1::443"]);
    let node = lab.node("s1");
    let worker = balancer.settled_worker(&[&node]);
    let url = format!("https://localhost:{}/", balancer.port(443));
    let ask = || sh(&folder, &format!("curl -sS --max-time 5 --cacert cert.pem {url}"));
    let answer = eventually("an answer by TLS", 10, ask);
    assert!(answer.contains(&node.member()), "{answer}");
    let other = lab.node("s2");
    assert_eq!(balancer.settled_worker(&[&node, &other]), worker, "it was reloaded");

    // Another certificate in its place is read when HAProxy is told to.
    sh(&folder, &make.lines().filter(|line| !line.contains("sed ")).collect::<Vec<_>>().join("\n")).unwrap();
    assert!(ask().is_err(), "the old one is trusted");
    let _ = balancer.exec(&["reload-ha", "--force"]);
    eventually("the new certificate", 10, ask);
    fs::remove_dir_all(folder).unwrap();
}

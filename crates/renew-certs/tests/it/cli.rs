//! `renew-certs` from outside, without an authority.
#![allow(clippy::unwrap_used, reason = "what the tests share is test code, which the lint cannot know")]

use std::fs;
use std::path::Path;
use std::process::Output;

use assert_cmd::Command;
use lb_core::certificates::thumbprint;
use lb_core::haproxy::last_applied::{LastApplied, ProcessId, RecordedFor, record_path};
use lb_fixture::{World, assert_page, certificate};
use tempfile::TempDir;

const THUMBPRINT: &str = "LPJNul-wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ";

/// The tool in a directory of its own.
fn tool(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_renew-certs"));
    command.env("CERTS_DIR", directory).env("HAPROXY_MASTER_SOCKET", directory.join("master.sock"));
    command.env("SERF_LOG", directory.join("serf.log")).env("ACME_EMAIL", "me@shop.example");
    command
}

fn run(command: &mut Command, arguments: &[&str]) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = command.args(arguments).output().unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}

#[test]
fn the_page_is_right() {
    let world = World::new();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_renew-certs"));
    command.env("CERTS_DIR", world.path("certs")).env("SERF_LOG", world.path("serf.log"));
    assert_page(&world, &command);
}

#[test]
fn wrong_options_are_named() {
    let directory = TempDir::new().unwrap();
    for (arguments, reason) in [
        (["--email=-e", "--follow"], "invalid value '-e' for '--email <ADDRESS>': must be an e-mail address"),
        (["--email", "me"], "invalid value 'me' for '--email <ADDRESS>': must be an e-mail address"),
        (["--directory", "http://ca.example"], "must begin with https://"),
        (["--retry", "soon"], "invalid value 'soon' for '--retry <TIME>'"),
    ] {
        let (code, said) = run(&mut tool(directory.path()), &arguments);
        assert!(code == Some(2) && said.contains(reason), "{arguments:?}: {said}");
    }
    let (code, said) = run(tool(directory.path()).env_remove("ACME_EMAIL"), &[]);
    assert!(code == Some(2) && said.contains("--email <ADDRESS>"), "{said}");
}

#[test]
fn without_hosts_or_uacme_it_says_so_in_one_line() {
    let directory = TempDir::new().unwrap();
    let (code, said) = run(&mut tool(directory.path()), &[]);
    assert_eq!((code, said.as_str()), (Some(1), "renew-certs: no hosts: set ACME_DOMAINS, or ROUTES to a file of routes\n"));
    let (code, said) = run(tool(directory.path()).env("PATH", "/nonexistent"), &["--domains", "shop.example"]);
    assert_eq!((code, said.as_str()), (Some(1), "renew-certs: no new certificate for shop.example: uacme is not installed\n"));
    let (code, said) = run(tool(directory.path()).env("CERTS_DIR", "/proc"), &["--domains", "shop.example"]);
    assert!(code == Some(1) && said.contains("create /proc/acme: chown 10001 /proc: "), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn only_hosts_that_an_operator_names_get_certificates() {
    let directory = TempDir::new().unwrap();
    let routes = directory.path().join("routes");
    fs::write(&routes, "shop.example/api api\n*.shop.example shop\n/ backend\n").unwrap();
    let tried = |domains: &str| {
        let mut command = tool(directory.path());
        let (code, said) = run(command.env("PATH", "/nonexistent").env("ROUTES", &routes).env("ACME_DOMAINS", domains), &[]);
        assert_eq!(code, Some(1), "{said}");
        said
    };
    let missing = |host: &str| format!("renew-certs: no new certificate for {host}: uacme is not installed\n");
    let wildcard = "renew-certs: no certificate for *.shop.example: wildcards need DNS-01, which is not supported\n";
    assert_eq!(tried(""), wildcard.to_owned() + &missing("shop.example"));
    assert_eq!(tried("blog.example"), missing("blog.example"));
}

#[test]
fn a_certificate_that_is_young_is_put_in_its_place_and_no_authority_is_asked() {
    let directory = TempDir::new().unwrap();
    let [certificate, key] = certificate(&["shop.example"]);
    for (name, content) in [("acme/shop.example/cert.pem", &certificate), ("acme/private/shop.example/key.pem", &key)] {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    let mut command = tool(directory.path());
    let (code, said) = run(command.env("PATH", "/nonexistent").env("ACME_DOMAINS", "shop.example"), &[]);
    assert_eq!((code, said.as_str()), (Some(0), ""));
    let path = directory.path().join("acme-shop.example.pem");
    assert_eq!(fs::read_to_string(&path).unwrap(), certificate + &key);
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

/// As uacme calls it.
#[test]
fn only_a_challenge_that_haproxy_answers_is_accepted() {
    let directory = TempDir::new().unwrap();
    fs::create_dir(directory.path().join("acme")).unwrap();
    let runs = format!("frontend http\n    http-request return lf-string {THUMBPRINT}\n");
    let record = LastApplied { text: runs, ..LastApplied::default() };
    let process = ProcessId::of_pid(1).unwrap();
    record.store(&record_path(&directory.path().join("master.sock")), RecordedFor::Worker(process)).unwrap();
    let ask = |method: &str, kind: &str, answer: &str| {
        let token = answer.split('.').next().unwrap();
        run(&mut tool(directory.path()), &[method, kind, "shop.example", token, answer])
    };
    let answer = format!("token.{THUMBPRINT}");
    assert_eq!(ask("begin", "dns-01", &answer), (Some(1), String::new()));
    assert_eq!(thumbprint(directory.path()), None);
    assert_eq!(ask("begin", "http-01", &answer), (Some(0), String::new()));
    assert_eq!(thumbprint(directory.path()).as_deref(), Some(THUMBPRINT));
    for token in ["-token", "-h", "--help", "--"] {
        assert_eq!(ask("begin", "http-01", &format!("{token}.{THUMBPRINT}")), (Some(0), String::new()), "{token}");
    }
    for method in ["done", "failed"] {
        assert_eq!(ask(method, "http-01", &answer), (Some(0), String::new()));
    }
    for bad in ["", "token", "token.", "token.} bind :1", &format!("{answer}x")] {
        let (code, said) = ask("begin", "http-01", bad);
        assert!(code == Some(1) && said.contains("has no thumbprint"), "{bad}: {said}");
    }
    assert_eq!(thumbprint(directory.path()).as_deref(), Some(THUMBPRINT));
}

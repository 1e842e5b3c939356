//! HTTPS with the certificates of a directory.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use e2e::docker::{docker, text};
use e2e::http::client;
use e2e::{Balancer, Container, Lab, Look, eventually};
use lb_fixture::certificate;

use crate::scripts::{Scripts, out};
use crate::tls::{block, sh};

/// The user of the images.
const USER: u32 = 10_001;

/// A balancer with a node, and a directory of certificates.
struct Https {
    folder: PathBuf,
    lab: Lab,
    balancer: Balancer,
    node: Container,
}

impl Https {
    /// Starts them with these certificates and options of `docker run`, and waits for the node.
    fn start(name: &str, files: &[(&str, &[String; 2])], options: &[&str]) -> Self {
        let folder = std::env::temp_dir().join(format!("e2e-{}-{name}", std::process::id()));
        fs::create_dir_all(folder.join("certs")).unwrap();
        let lab = Lab::new(Look::Hardened);
        for (name, pair) in files {
            put(&folder, name, &pair.concat());
        }
        let volume = format!("{}:/certs:ro", folder.join("certs").display());
        let balancer = lab.balancer_with("ha", &[&["-v", &volume, "-p", "127.0.0.1::443"], options].concat());
        let node = lab.node("s1");
        let https = Self { folder, lab, balancer, node };
        https.eventually_uses(&https.node);
        https
    }

    /// Waits until HAProxy sends requests to a node.
    fn eventually_uses(&self, node: &Container) {
        let line = node.line();
        eventually(&format!("{} is used", node.name), 20, || {
            let servers = self.balancer.process()?;
            if servers.contains(&line) { Ok(()) } else { Err(format!("{servers:?}")) }
        });
    }

    fn put(&self, name: &str, content: &str) {
        put(&self.folder, name, content);
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.folder.join("certs").join(name)).unwrap();
    }

    /// What a client that trusts this certificate alone gets from a host: the HTTP version, the status and the body; or why not.
    fn get(&self, host: &str, trusted: &[String; 2], options: &[&str]) -> Result<String, String> {
        let authority = self.folder.join("authority.pem");
        fs::write(&authority, &trusted[0]).unwrap();
        let port = self.balancer.port(443);
        let output = Command::new("curl")
            .args(["-sS", "--max-time", "5", "-w", "%{stderr}%{http_version} %{http_code} ", "--cacert"])
            .arg(&authority)
            .args(["--resolve", &format!("{host}:{port}:127.0.0.1")])
            .args(options)
            .arg(format!("https://{host}:{port}/"))
            .output()
            .expect("curl");
        let said = text(&output.stderr) + &text(&output.stdout);
        if output.status.success() { Ok(said) } else { Err(said) }
    }

    /// Waits until this certificate is served to clients that ask for the host, which the service should notice within 10 s.
    fn eventually_serves(&self, host: &str, trusted: &[String; 2]) {
        let member = self.node.member();
        eventually(&format!("{host} by HTTPS"), 20, || match self.get(host, trusted, &[]) {
            Ok(said) if said.starts_with("2 200 ") && said.contains(&member) => Ok(()),
            Ok(said) | Err(said) => Err(said),
        });
    }

    /// Has the node show the headers that it is sent, in the place of the application.
    fn show_headers(&self) {
        let show = "require('http').createServer((request, answer) => answer.end(JSON.stringify(request.headers))).listen(3999)";
        let _ = docker(&["exec", "-d", &self.node.name, "node", "-e", show]);
        let _ = self.node.exec(&["serf", "tags", "-set", "port=3999"]);
        eventually("the headers are shown", 10, || {
            let agent = client();
            let response = agent.get(format!("http://127.0.0.1:{}/", self.balancer.port(80))).call();
            let body = response.map_err(|error| error.to_string())?.body_mut().read_to_string().unwrap_or_default();
            if body.contains("x-forwarded-for") { Ok(()) } else { Err(body) }
        });
    }

    /// Waits until a line of the log has this text.
    fn eventually_says(&self, what: &str) {
        eventually(what, 20, || {
            let log = self.balancer.logs();
            if log.contains(what) { Ok(()) } else { Err(log) }
        });
    }

    fn file(&self) -> String {
        self.balancer.exec(&["cat", "/usr/local/etc/haproxy/haproxy.cfg"])
    }

    /// Status and `Location` of the answer to a request by HTTP.
    fn plain(&self, path: &str) -> (u16, String) {
        let agent = ureq::Agent::new_with_config(
            ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0).max_redirects_will_error(false).build(),
        );
        let response = agent.get(format!("http://127.0.0.1:{}{path}", self.balancer.port(80))).call().unwrap();
        let location = response.headers().get("location").map_or("", |value| value.to_str().unwrap()).to_owned();
        (response.status().as_u16(), location)
    }
}

impl Drop for Https {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Puts a file in its place in one step, as one that renews certificates should.
fn put(folder: &Path, name: &str, content: &str) {
    let new = folder.join("certs/new");
    fs::write(&new, content).unwrap();
    fs::set_permissions(&new, Permissions::from_mode(0o600)).unwrap();
    chown(&new, Some(USER), Some(USER)).unwrap();
    fs::rename(new, folder.join("certs").join(name)).unwrap();
}

#[test]
fn certificates_come_renew_break_and_go() {
    let https = Https::start("certs", &[], &[]);
    let before = https.file();
    assert!(!before.contains("443") && https.plain("/").0 == 200, "{before}");

    let [shop, blog] = ["shop.example", "blog.example"].map(|host| certificate(&[host]));
    https.put("shop.pem", &shop.concat());
    https.eventually_serves("shop.example", &shop);
    https.put("blog.pem", &blog.concat());
    https.eventually_serves("blog.example", &blog);
    https.eventually_serves("shop.example", &shop);
    https.eventually_says("certificate blog.pem is new");
    let one = https.get("shop.example", &shop, &["--http1.1"]).unwrap();
    assert!(one.starts_with("1.1 200 "), "{one}");
    for (version, is_served) in [("1.1", false), ("1.2", true), ("1.3", true)] {
        let limits = [&format!("--tlsv{version}"), "--tls-max", version];
        assert_eq!(https.get("shop.example", &shop, &limits).is_ok(), is_served, "TLS {version}");
    }

    // A renewed one, put there as docs/https.md has it: at run time.
    let worker = https.balancer.worker();
    let renewed = certificate(&["shop.example"]);
    for (name, content) in ["fullchain.pem", "privkey.pem"].iter().zip(&renewed) {
        fs::write(https.folder.join(name), content).unwrap();
    }
    sh(&https.folder, &block("https", "mv certs/.shop.new")).unwrap();
    https.eventually_serves("shop.example", &renewed);
    https.eventually_says("applied=run-time certificates=shop.pem");
    https.eventually_serves("blog.example", &blog);

    // Broken ones; the last good one goes on.
    let other = certificate(&["shop.example"]);
    https.put("shop.pem", &format!("{}{}", other[0], renewed[1]));
    https.eventually_says(
        "certificate 'shop.pem' rejected: inconsistencies between private key and certificate loaded 'shop.pem'",
    );
    https.put("shop.pem", &other[0]);
    https.eventually_says("certificate 'shop.pem' rejected: it has no private key");
    https.put("shop.pem", &other.concat());
    fs::set_permissions(https.folder.join("certs/shop.pem"), Permissions::from_mode(0o644)).unwrap();
    https.eventually_says("others can read its private key: chown 10001 /certs/shop.pem && chmod 600 /certs/shop.pem");
    chown(https.folder.join("certs/shop.pem"), Some(0), Some(0)).unwrap();
    fs::set_permissions(https.folder.join("certs/shop.pem"), Permissions::from_mode(0o600)).unwrap();
    https.eventually_says("Permission denied (os error 13): chown 10001 /certs/shop.pem && chmod 600 /certs/shop.pem");
    https.eventually_serves("shop.example", &renewed);
    assert_eq!(https.balancer.worker(), worker, "it was reloaded");

    // A new node is no reason to reload either, nor is HAProxy's certificate lost when the container starts again.
    let node = https.lab.node("s2");
    https.eventually_uses(&node);
    assert_eq!(https.balancer.worker(), worker, "it was reloaded");
    node.stop();
    https.put("shop.pem", &other.concat());
    https.balancer.stop();
    https.balancer.start();
    https.eventually_serves("shop.example", &other);

    // A chain that is too long for a command.
    let long = certificate(&["shop.example"]);
    https.put("shop.pem", &(long.concat() + &blog[0].repeat(30)));
    https.eventually_serves("shop.example", &long);
    https.eventually_says("certificate shop.pem: it is too long for a command");

    https.remove("shop.pem");
    https.eventually_says("certificate shop.pem is gone");
    assert!(https.get("shop.example", &long, &[]).is_err(), "it is served nevertheless");
    https.eventually_serves("blog.example", &blog);
    https.remove("blog.pem");
    eventually("HTTP again", 20, || if https.plain("/").0 == 200 { Ok(()) } else { Err(https.balancer.logs()) });
    let servers =
        |text: &str| text.lines().filter(|line| !line.trim().starts_with("server ")).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(servers(&https.file()), servers(&before));
}

#[test]
fn http_is_redirected_unless_it_is_switched_off_and_the_node_is_told_how_the_client_came() {
    let shop = certificate(&["shop.example"]);
    let https = Https::start("redirect", &[("shop.pem", &shop)], &["-e", "HTTPS_PORT=8443"]);
    https.eventually_serves("shop.example", &shop);
    assert_eq!(https.plain("/cart?item=1"), (307, "https://127.0.0.1:8443/cart?item=1".to_owned()));
    drop(https);

    let https = Https::start("off", &[("shop.pem", &shop)], &["-e", "HTTPS_REDIRECT=off"]);
    https.eventually_serves("shop.example", &shop);
    https.show_headers();
    let lies = ["-H", "X-Forwarded-Proto: gopher", "-H", "X-Forwarded-Host: evil.example", "-H", "Forwarded: for=6.6.6.6"];
    let said = https.get("shop.example", &shop, &lies).unwrap();
    assert!(said.contains("\"x-forwarded-proto\":\"https\""), "{said}");
    assert!(said.contains("\"x-forwarded-port\":\"443\""), "{said}");
    assert!(!said.contains("evil") && !said.contains("6.6.6.6"), "{said}");
    let url = format!("http://127.0.0.1:{}/", https.balancer.port(80));
    let body = client().get(&url).header("X-Forwarded-Proto", "https").call().unwrap().body_mut().read_to_string().unwrap();
    assert!(body.contains("\"x-forwarded-proto\":\"http\""), "{body}");
}

#[test]
fn nodes_come_and_go_and_certificates_change_and_no_get_by_https_is_lost() {
    let shop = certificate(&["shop.example"]);
    let https = Https::start("churn", &[("shop.pem", &shop)], &["-e", "HTTP_LOG=errors"]);
    https.eventually_serves("shop.example", &shop);
    let second = https.lab.node("s2");
    https.eventually_uses(&second);
    let port = https.balancer.port(443);
    let stop = AtomicBool::new(false);
    let load = |version: &str| -> Vec<String> {
        let mut answers = Vec::new();
        // Bounded, whatever the test does.
        for _ in 0..200 {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let output = Command::new("curl")
                .args(["-sS", "--insecure", version, "--max-time", "20", "-o", "/dev/null", "-w", "%{http_code}\n"])
                .args(["--resolve", &format!("shop.example:{port}:127.0.0.1"), &format!("https://shop.example:{port}/?[1-100]")])
                .output()
                .expect("curl");
            answers.extend((text(&output.stdout) + &text(&output.stderr)).lines().map(str::to_owned));
        }
        answers
    };
    let answers = std::thread::scope(|scope| {
        let load = &load;
        let clients = ["--http2", "--http1.1"].map(|version| scope.spawn(move || load(version)));
        let third = https.lab.node("s3");
        https.put("shop.pem", &certificate(&["shop.example"]).concat());
        https.eventually_says("certificates=shop.pem commands=");
        second.stop();
        https.put("blog.pem", &certificate(&["blog.example"]).concat());
        https.eventually_says("certificate blog.pem is new");
        third.kill();
        https.remove("blog.pem");
        https.eventually_says("certificate blog.pem is gone");
        stop.store(true, Ordering::Relaxed);
        clients.into_iter().flat_map(|client| client.join().expect("the client ends")).collect::<Vec<_>>()
    });
    let lost: Vec<_> = answers.iter().filter(|answer| *answer != "200").collect();
    assert!(lost.is_empty() && answers.len() >= 200, "{} of {} lost: {lost:?}", lost.len(), answers.len());
}

#[test]
fn the_script_makes_a_certificate_and_prints_the_command_that_trusts_it() {
    let folder = std::env::temp_dir().join(format!("e2e-{}-script", std::process::id()));
    let lab = Scripts::new("tls");
    let start = || {
        let mut command = lab.command("--tls", ["0"; 3]);
        let started = command.env("HTTPS_PORT", "0").env("CERTS", folder.join("certs")).output().expect("the script runs");
        assert!(started.status.success(), "{}", out(&started));
        out(&started)
    };
    let said = start();
    let line = said.lines().find(|line| line.contains("curl --cacert")).expect("a command").trim().to_owned();
    let answer = sh(&std::env::temp_dir(), &format!("{line} -sS")).unwrap();
    assert!(answer.contains("\"host\""), "{line}: {answer}");
    // What is there stays.
    let certificate = fs::read(folder.join("certs/localhost.pem")).unwrap();
    assert!(start().contains("keeping "));
    assert_eq!(fs::read(folder.join("certs/localhost.pem")).unwrap(), certificate);
    drop(lab);
    fs::remove_dir_all(folder).unwrap();
}

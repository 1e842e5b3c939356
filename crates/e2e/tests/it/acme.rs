//! Certificates that `ha` gets by ACME from Pebble, which checks every host by HTTP as a real authority does.

use std::fs;
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::Command;

use e2e::browser::Browser;
use e2e::docker::{docker, text};
use e2e::{Balancer, Lab, Look, eventually};
use lb_fixture::certificate;

use crate::scripts::{Scripts, out};

/// The user of the images.
const USER: u32 = 10_001;

/// A certificate authority in a container, whose certificates are valid for a minute.
struct Authority {
    folder: PathBuf,
    container: String,
}

impl Authority {
    /// Starts it on the network of the lab, where it is called `pebble`.
    fn start(lab: &Lab) -> Self {
        let folder = std::env::temp_dir().join(lab.network());
        let config = folder.join("pebble/test/config");
        fs::create_dir_all(&config).unwrap();
        fs::create_dir(folder.join("certs")).unwrap();
        chown(folder.join("certs"), Some(USER), Some(USER)).unwrap();
        let [own, key] = certificate(&["pebble"]);
        fs::write(folder.join("pebble/key.pem"), key).unwrap();
        fs::write(folder.join("pebble/cert.pem"), &own).unwrap();
        // What a container trusts, as in the place of Debian's file.
        fs::write(folder.join("trusted.pem"), own).unwrap();
        let settings = r#"{"pebble": {"listenAddress": "0.0.0.0:14000", "managementListenAddress": "0.0.0.0:15000",
            "certificate": "cert.pem", "privateKey": "key.pem", "httpPort": 80, "tlsPort": 443, "certificateValidityPeriod": 60,
            "domainBlocklist": ["refused.example"]}}"#;
        fs::write(config.join("pebble-config.json"), settings).unwrap();
        let container = format!("{}-pebble", lab.network());
        let program = String::from_utf8(Command::new("which").arg("pebble").output().unwrap().stdout).unwrap();
        let [program, config] =
            [format!("{}:/pebble:ro", program.trim()), format!("{}:/work:ro", folder.join("pebble").display())];
        let _ = docker(
            &[
                &["run", "-d", "--name", &container, "--network", lab.network(), "--network-alias", "pebble", "--user", "0"][..],
                &["-e", "PEBBLE_VA_NOSLEEP=1", "-v", &program, "-v", &config, "--workdir", "/work", "--entrypoint", "/pebble"],
                &["softengheigvd/base"],
            ]
            .concat(),
        );
        Self { folder, container }
    }

    /// Starts a balancer that asks it for certificates for these hosts, which lead to this balancer.
    fn balancer(&self, lab: &Lab, name: &str, domains: &str, options: &[&str]) -> Balancer {
        let trusted = format!("{}:/etc/ssl/certs/ca-certificates.crt:ro", self.folder.join("trusted.pem").display());
        let certs = format!("{}:/certs", self.folder.join("certs").display());
        let domains = format!("ACME_DOMAINS={domains}");
        lab.balancer_with(
            name,
            &[
                &["-p", "127.0.0.1::443", "-v", &trusted, "-v", &certs, "-e", "ACME_EMAIL=me@shop.example", "-e", &domains][..],
                &["-e", "ACME_DIRECTORY=https://pebble:14000/dir", "-e", "ACME_RETRY=2s", "-e", "ACME_EVERY=1s"],
                options,
            ]
            .concat(),
        )
    }

    /// Its root certificate, which is another one after each start.
    fn root(&self) -> Result<PathBuf, String> {
        let address =
            docker(&["inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", &self.container]);
        let path = self.folder.join("root.pem");
        let url = format!("https://{address}:15000/roots/0");
        let answer =
            Command::new("curl").args(["-sS", "--insecure", "--max-time", "5", "-o"]).arg(&path).arg(url).output().unwrap();
        if answer.status.success() { Ok(path) } else { Err(text(&answer.stderr)) }
    }

    /// The serial number of the certificate that a balancer has for a host, if this authority has issued it.
    fn serial(&self, balancer: &Balancer, host: &str) -> Result<String, String> {
        let root = self.root()?;
        let at = format!("127.0.0.1:{}", balancer.port(443));
        let arguments = ["s_client", "-connect", &at, "-servername", host, "-verify_hostname", host, "-verify_return_error"];
        let output = Command::new("timeout").args(["5", "openssl"]).args(arguments).arg("-CAfile").arg(root).output().unwrap();
        if !output.status.success() {
            return Err(text(&output.stderr));
        }
        let mut serial = Command::new("openssl");
        serial.args(["x509", "-noout", "-serial"]).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut serial = serial.spawn().unwrap();
        std::io::Write::write_all(&mut serial.stdin.take().unwrap(), &output.stdout).unwrap();
        Ok(text(&serial.wait_with_output().unwrap().stdout))
    }

    /// Waits until a balancer has a certificate of this authority for a host, and returns its serial number.
    fn eventually_serves(&self, balancer: &Balancer, host: &str) -> String {
        eventually(&format!("a certificate for {host}"), 90, || {
            self.serial(balancer, host).map_err(|error| error + &balancer.logs())
        })
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Waits until the log has a line with all of these texts, and returns the line.
fn eventually_says(balancer: &Balancer, what: &[&str]) -> String {
    eventually(&what.concat(), 90, || {
        let log = balancer.logs();
        log.lines().rfind(|line| what.iter().all(|text| line.contains(text))).map(str::to_owned).ok_or(log.clone())
    })
}

/// What a balancer answers to an authority that asks for this token.
fn answer(balancer: &Balancer, token: &str) -> String {
    let url = format!("http://127.0.0.1:{}/.well-known/acme-challenge/{token}", balancer.port(80));
    text(&Command::new("curl").args(["-sS", "--max-time", "5", "-w", " %{http_code}", &url]).output().unwrap().stdout)
}

#[test]
fn certificates_are_got_and_renewed_and_outlast_an_authority_that_is_away() {
    let lab = Lab::new(Look::Hardened);
    let authority = Authority::start(&lab);
    let aliases = ["--network-alias", "shop.example", "--network-alias", "blog.example"];
    let first = authority.balancer(&lab, "ha", "shop.example blog.example refused.example", &aliases);
    let _node = lab.node("s1");
    let _ = authority.eventually_serves(&first, "blog.example");
    let _ = authority.eventually_serves(&first, "shop.example");
    eventually_says(&first, &["renew-certs: got a certificate for shop.example, valid until 20"]);

    // A browser that trusts the authority is redirected, and content. One that looks at the page before it has read whom it
    // trusts, on a busy machine, sticks to its error, so a new one is asked.
    let (root, address) = (authority.root().unwrap(), first.address());
    let seen = "[location.href, performance.getEntriesByType('navigation')[0]?.nextHopProtocol, document.body?.innerText]";
    let mut page = Browser::open_trusting("http://shop.example/", &root, "shop.example", &address);
    eventually("the browser shows the node", 60, || {
        let seen = page.evaluate(seen);
        if seen[0] == "chrome-error://chromewebdata/" {
            page = Browser::open_trusting("http://shop.example/", &root, "shop.example", &address);
        }
        let is_there = seen[0] == "https://shop.example/" && seen[1] == "h2";
        if is_there && seen[2].as_str().is_some_and(|text| text.contains("\"host\"")) { Ok(()) } else { Err(seen.to_string()) }
    });
    drop(page);

    // What is refused does not keep the others from being served, and is tried again after growing pauses.
    let failure = "no new certificate for refused.example: ";
    eventually_says(&first, &[failure, "rejectedIdentifier: "]);
    for pause in ["2s", "4s"] {
        eventually_says(&first, &[failure, &format!("; next try in {pause}")]);
    }

    // A balancer with the same directory answers for the first one, and does not ask itself.
    let second = authority.balancer(&lab, "hb", "shop.example blog.example", &[]);
    let _ = authority.eventually_serves(&second, "shop.example");
    let thumbprint = fs::read_to_string(authority.folder.join("certs/acme/thumbprint")).unwrap();
    for balancer in [&first, &second] {
        assert_eq!(answer(balancer, "a_b-C1"), format!("a_b-C1.{} 200", thumbprint.trim()));
        for no_token in ["", "a%22b", "a/b", "a.b"] {
            assert!(!answer(balancer, no_token).contains(thumbprint.trim()), "{no_token}");
        }
    }
    assert!(!second.logs().contains("got a certificate"), "{}", second.logs());
    second.stop();

    // A restart is no reason to ask again: what was got is in the directory.
    first.stop();
    first.start();
    let before = authority.eventually_serves(&first, "shop.example");
    let got = |host: &str| first.logs().matches(&format!("got a certificate for {host}")).count();
    assert!(got("shop.example") <= 2 && got("blog.example") <= 2, "{}", first.logs());

    // While the authority is away, the certificate that is there goes on.
    let _ = docker(&["stop", "-t", "1", &authority.container]);
    let tries = first.logs().matches("no new certificate for shop.example").count();
    eventually("a renewal that fails", 90, || {
        let log = first.logs();
        if log.matches("no new certificate for shop.example").count() > tries { Ok(()) } else { Err(log) }
    });
    let worker = first.worker();
    let served = Command::new("curl")
        .args(["-sS", "--insecure", "--max-time", "5", "-o", "/dev/null", "-w", "%{http_code}"])
        .arg(format!("https://127.0.0.1:{}/", first.port(443)))
        .output()
        .unwrap();
    assert_eq!(text(&served.stdout), "200", "{}", first.logs());

    // It is back, and has forgotten the account.
    let _ = docker(&["start", &authority.container]);
    let after = authority.eventually_serves(&first, "shop.example");
    assert_ne!(before, after);
    assert_eq!(first.worker(), worker, "it was reloaded");
}

#[test]
fn what_is_wrong_is_said_in_one_line_and_nothing_else_is_affected() {
    let lab = Lab::new(Look::Hardened);
    let authority = Authority::start(&lab);
    let nonsense = ["-e", "ACME_DIRECTORY=https://pebble:15000/roots/0"];
    let nonsense = authority.balancer(&lab, "ha", "shop.example nowhere.example", &nonsense);
    let line = eventually_says(&nonsense, &["no new certificate for shop.example"]);
    assert!(line.contains("no account: ") && line.contains("; next try in "), "{line}");

    // A host that leads nowhere, and a template that does not answer.
    let config = authority.folder.join("config");
    fs::create_dir(&config).unwrap();
    fs::write(config.join("haproxy.cfg.hb"), "defaults\n    mode http\n    timeout client 9s\n    timeout server 9s\n    timeout connect 9s\nfrontend http\n    bind *:80\nfrontend stats\n    bind *:1936\n    stats enable\n").unwrap();
    let volume = format!("{}:/config:ro", config.display());
    let silent = authority.balancer(&lab, "hb", "shop.example", &["-v", &volume]);
    let line = eventually_says(&silent, &["no new certificate for shop.example"]);
    assert!(line.contains("HAProxy does not answer challenges: "), "{line}");
    drop(silent);

    let lost = authority.balancer(&lab, "hc", "nowhere.example", &[]);
    let line = eventually_says(&lost, &["no new certificate for nowhere.example"]);
    assert!(line.contains(": connection: ") || line.contains(": dns: "), "{line}");
    let node = lab.node("s1");
    eventually("the node is used", 20, || {
        let servers = lost.process()?;
        if servers.contains(&node.line()) { Ok(()) } else { Err(format!("{servers:?}")) }
    });
}

#[test]
fn the_script_passes_on_who_asks_and_for_what() {
    let folder = std::env::temp_dir().join(format!("e2e-{}-acme", std::process::id()));
    let lab = Scripts::new("acme");
    let mut command = lab.command("1", ["0"; 3]);
    command.env("ACME_EMAIL", "me@shop.example").env("CERTS", folder.join("certs")).env("HTTPS_PORT", "0");
    let refused = command.output().expect("the script runs");
    assert!(
        out(&refused).ends_with("start-containers.sh: ACME_EMAIL needs ACME_DOMAINS too: the hosts to get certificates for\n")
    );
    command.env("ACME_DOMAINS", "shop.example blog.example").env("ACME_DIRECTORY", "https://127.0.0.1:1/dir");
    let started = command.output().expect("the script runs");
    assert!(started.status.success(), "{}", out(&started));
    let ha = format!("{}ha", lab.prefix);
    eventually("both hosts are tried", 60, || {
        let log = text(&Command::new("docker").args(["logs", &ha]).output().unwrap().stdout);
        let is_tried = |host: &str| log.contains(&format!("no new certificate for {host}: no account: "));
        if is_tried("shop.example") && is_tried("blog.example") { Ok(()) } else { Err(log) }
    });
    assert!(out(&command.output().expect("the script runs")).contains(&format!("keeping {ha}")));
    drop(lab);
    fs::remove_dir_all(folder).unwrap();
}

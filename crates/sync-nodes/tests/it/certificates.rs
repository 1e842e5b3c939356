//! Certificates from a directory, served by a real HAProxy.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what the tests share is test code, which the lint cannot know")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use lb_core::certificates::{self, fingerprint};
use lb_core::haproxy;
use lb_core::haproxy::last_applied::{LastApplied, RecordedFor, record_path};
use lb_fixture::{Background, World, assert_page_about, certificate, expired_certificate, said};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

/// A HAProxy, and a directory of certificates. Debian 12's does not tell how a reload went, so that a new set of certificates is
/// for the tests in containers.
struct Balancer {
    world: World,
    haproxy: Option<Background>,
}

impl Balancer {
    /// With these files, and without HAProxy.
    fn new(files: &[(&str, &str)]) -> Self {
        let world = World::self_contained();
        fs::create_dir(world.certs_dir()).unwrap();
        let balancer = Self { world, haproxy: None };
        files.iter().for_each(|(name, content)| balancer.put(name, content));
        balancer
    }

    /// Starts HAProxy with what is published, and records that, as its service does.
    fn start(mut self) -> Self {
        self.haproxy = Some(self.world.start_haproxy());
        let (master, admin) = (self.world.master_socket(), self.world.admin_socket());
        let worker = haproxy::find(&master, &admin).unwrap().expect("a worker").worker();
        let text = self.world.text();
        let installed = certificates::installed(&certificates::directory(&master)).into_iter();
        let certificates = installed.filter(|_| text.contains("ssl crt")).map(|(name, pem)| (name, fingerprint(&pem))).collect();
        let running = LastApplied { text, certificates, ..LastApplied::default() };
        running.store(&record_path(&master), RecordedFor::Worker(worker)).unwrap();
        self
    }

    /// With this file published, and HAProxy running.
    fn serving(pem: &str) -> Self {
        let balancer = Self::new(&[("shop.pem", pem)]);
        assert_eq!(balancer.sync(), ["published generation=1 cause=by-hand applied=file certificates=shop.pem"]);
        balancer.start()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.world.certs_dir().join(name)
    }

    /// Puts a file in the place of another in one step, as one that renews certificates should.
    fn put(&self, name: &str, content: &str) {
        let path = self.path("new");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        fs::rename(path, self.path(name)).unwrap();
    }

    /// What a sync says.
    fn sync(&self) -> Vec<String> {
        sync(&self.world)
    }

    /// Process id of the worker.
    fn worker(&self) -> i32 {
        let found = haproxy::find(&self.world.master_socket(), &self.world.admin_socket()).unwrap();
        found.expect("a worker").worker().pid
    }

    /// What a client that trusts this certificate alone gets from a host: `version status`, or why there is no connection.
    fn get(&self, host: &str, trusted: &str, options: &[&str]) -> Result<String, String> {
        let authority = self.world.path("authority.pem");
        fs::write(&authority, trusted).unwrap();
        let output = Command::new("curl")
            .args(["-sS", "--max-time", "5", "-o", "/dev/null", "-w", "%{http_version} %{http_code}", "--cacert"])
            .arg(&authority)
            .arg("--unix-socket")
            .arg(self.world.path("run/port-443.sock"))
            .args(options)
            .arg(format!("https://{host}/"))
            .output()
            .expect("curl");
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// Shows that this certificate is served to clients that ask for the host. Without nodes, the answer is 503.
    fn serves(&self, host: &str, trusted: &str) {
        assert_eq!(self.get(host, trusted, &[]), Ok("2 503".to_owned()), "{host}");
    }
}

/// A member list without nodes.
const LIST: &str = r#"{"members":[{"name":"ha","addr":"172.18.0.7:7946","tags":{"role":"balancer"},"status":"alive"}]}"#;

/// Syncs with a member list without nodes, and returns the lines without the tool's name.
fn sync(world: &World) -> Vec<String> {
    let run = world.command(env!("CARGO_BIN_EXE_sync-nodes")).args(["--from", "-"]).write_stdin(LIST).assert();
    said(&run).iter().map(|line| line.trim_start_matches("sync-nodes: ").to_owned()).collect()
}

fn whole([certificate, key]: &[String; 2]) -> String {
    format!("{certificate}{key}")
}

#[test]
fn a_renewed_certificate_is_replaced_at_run_time_and_the_name_chooses() {
    let [shop, blog] = ["shop.example", "blog.example"].map(|host| certificate(&[host]));
    let balancer = Balancer::new(&[("shop.pem", &whole(&shop)), ("blog.pem", &whole(&blog))]);
    assert_eq!(balancer.sync(), ["published generation=1 cause=by-hand applied=file certificates=blog.pem,shop.pem"]);
    let balancer = balancer.start();
    balancer.serves("shop.example", &shop[0]);
    balancer.serves("blog.example", &blog[0]);
    assert_eq!(balancer.get("shop.example", &shop[0], &["--http1.1"]), Ok("1.1 503".to_owned()));
    assert!(balancer.sync().is_empty(), "nothing has changed");

    let worker = balancer.worker();
    for generation in 2..4 {
        let renewed = certificate(&["shop.example"]);
        balancer.put("shop.pem", &format!("a comment\n\n{}", whole(&renewed)));
        let line = format!("published generation={generation} cause=by-hand applied=run-time certificates=shop.pem commands=0");
        assert_eq!(balancer.sync(), [line]);
        balancer.serves("shop.example", &renewed[0]);
        assert!(balancer.get("shop.example", &shop[0], &[]).is_err(), "the old one is served");
        balancer.serves("blog.example", &blog[0]);
        assert!(balancer.sync().is_empty(), "nothing has changed");
    }
    assert_eq!(balancer.worker(), worker, "it was reloaded");
}

#[test]
fn a_bad_file_is_refused_in_one_line_and_the_old_one_goes_on() {
    let [good, other] = [certificate(&["shop.example"]), certificate(&["shop.example"])];
    let balancer = Balancer::serving(&whole(&good));
    let worker = balancer.worker();
    let path = balancer.path("shop.pem").display().to_string();
    let user = nix::unistd::geteuid();
    let private = format!("others can read its private key: chown {user} {path} && chmod 600 {path}");
    let is_refused = |reason: &str| {
        let told = balancer.sync();
        // Newer versions of HAProxy say more.
        let is_said = |line: &String| {
            line.starts_with(&format!("certificate 'shop.pem' rejected: {reason}")) && line.ends_with("; the previous one stays")
        };
        assert!(told.len() == 1 && told.iter().all(is_said), "{reason}: {told:?}");
        balancer.serves("shop.example", &good[0]);
        assert_eq!(balancer.worker(), worker, "it was reloaded");
    };
    for (content, reason) in [
        ("", "it has no certificate"),
        (&*good[0], "it has no private key: the file needs the key too, after the certificates (cat fullchain.pem privkey.pem)"),
        (&format!("{}{}", other[0], good[1]), "inconsistencies between private key and certificate loaded 'shop.pem'."),
        (&whole(&other).replace("MI", "\nshow info\nMI"), "line 2 is not part of a certificate or key in PEM format"),
        (&format!("{}{}", good[0].replace("MI", "AA"), good[1]), "unable to load certificate from file 'shop.pem'"),
        (&"x".repeat(10 << 20), "it is larger than 100000 bytes"),
    ] {
        balancer.put("shop.pem", content);
        is_refused(reason);
    }
    for mode in [0o604, 0o644] {
        balancer.put("shop.pem", &whole(&other));
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        is_refused(&private);
    }
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    is_refused("Is a directory (os error 21)");
    fs::remove_dir(&path).unwrap();
    mkfifo(path.as_str(), Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    is_refused("not a regular file");

    // And good again.
    balancer.put("shop.pem", &whole(&other));
    assert_eq!(balancer.sync().len(), 1);
    balancer.serves("shop.example", &other[0]);
    assert_eq!(balancer.worker(), worker, "it was reloaded");
}

#[test]
fn one_bad_file_does_not_keep_others_out() {
    let good = certificate(&["shop.example"]);
    let whole = whole(&good);
    let balancer = Balancer::new(&[
        ("a.pem", "nothing"),
        ("b;show info.pem", &whole),
        ("README", "nothing"),
        (".hidden.pem", "nothing"),
        ("shop.pem", &whole),
    ]);
    assert_eq!(
        balancer.sync(),
        [
            "certificate 'a.pem' rejected: it has no certificate",
            "certificate 'b;show info.pem' rejected: its name is not 1 to 128 of A-Z a-z 0-9 . _ -",
            "published generation=1 cause=by-hand applied=file certificates=shop.pem",
        ]
    );
    balancer.start().serves("shop.example", &good[0]);
}

#[test]
fn an_expired_certificate_is_served_with_a_warning() {
    let expired = expired_certificate(&["shop.example"]);
    let balancer = Balancer::new(&[("shop.pem", &whole(&expired))]);
    let told = balancer.sync();
    assert!(told[0].starts_with("certificate shop.pem expired at 2"), "{told:?}");
    assert!(told[0].ends_with("Z, and is served nevertheless"), "{told:?}");
    let balancer = balancer.start();
    assert_eq!(balancer.get("shop.example", &expired[0], &["--insecure"]), Ok("2 503".to_owned()));
    let refusal = balancer.get("shop.example", &expired[0], &[]).unwrap_err();
    assert!(refusal.contains("expired"), "{refusal}");
}

#[test]
fn a_place_that_everybody_may_write_to_is_not_read() {
    let good = certificate(&["shop.example"]);
    let balancer = Balancer::serving(&whole(&good));
    balancer.put("shop.pem", &whole(&certificate(&["shop.example"])));
    let folder = balancer.world.certs_dir();
    fs::set_permissions(&folder, Permissions::from_mode(0o777)).unwrap();
    let folder = folder.display();
    let reason = "anyone can write to it, and so control HAProxy";
    assert_eq!(balancer.sync(), [format!("certificates in {folder} not read: {reason}: chmod o-w {folder}")]);
    balancer.serves("shop.example", &good[0]);
}

/// The template without the blocks that are for certificates.
fn without_blocks(template: &str) -> String {
    let blocks = template.split("{{#if certificates}}\n");
    blocks.map(|text| text.split_once("{{/if}}\n").map_or(text, |(_, rest)| rest)).collect()
}

#[test]
fn without_certificates_the_file_is_that_of_a_template_without_the_blocks() {
    let world = World::new();
    sync(&world);
    let before = world.text();
    let template = without_blocks(&fs::read_to_string(world.template()).unwrap());
    assert!(!template.contains("certificates") && !template.contains("443"), "{template}");
    world.set_template(&template);
    assert!(sync(&world).is_empty());
    assert_eq!(world.text(), before);
}

#[test]
fn a_template_that_does_not_use_certificates_is_not_reloaded_for_them() {
    let balancer = Balancer::new(&[]);
    let template = fs::read_to_string(balancer.world.template()).unwrap();
    balancer.world.set_template(&without_blocks(&template));
    balancer.sync();
    let balancer = balancer.start();
    for generation in 2..4 {
        balancer.put("shop.pem", &whole(&certificate(&["shop.example"])));
        let line = format!("published generation={generation} cause=by-hand applied=file certificates=shop.pem");
        assert_eq!(balancer.sync(), ["certificates are not used: the template has no {{certificates}}".to_owned(), line]);
    }
}

#[test]
fn the_page_shows_what_it_does() {
    let world = World::new();
    fs::create_dir(world.certs_dir()).unwrap();
    fs::write(world.path("members.json"), LIST).unwrap();
    assert_page_about(&world, &world.process(env!("CARGO_BIN_EXE_sync-nodes")), "https");
}

//! What a publish works on: registry, template, file and sockets in a folder of their own.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use lb_core::certificates;
use lb_core::config::template::RenderOptions;
use lb_core::haproxy::ProcessOptions;
use lb_core::haproxy::last_applied::{LastApplied, RecordedFor, record_path};
use lb_core::publish::lock::Lock;
use lb_core::publish::stats::{Stats, stats_path};
use lb_core::publish::{self, Outcome, PublishError, PublishOptions};
use lb_core::registry::Registry;
use tempfile::TempDir;
use walkdir::WalkDir;

use super::scripted::Scripted;

/// A template that says little; `haproxy -c` takes it without a warning.
pub const TEMPLATE: &str = "\
defaults
    mode http
    timeout connect 5s
    timeout client 50s
    timeout server 50s
listen nodes
    bind 127.0.0.1:8080
    balance roundrobin
    {{#each addresses}}
    server {{host}} {{ip}}:{{port}} check weight {{weight}}
    {{/each}}
";

/// Inode, time of the last change and content of all that is in a folder.
pub type Snapshot = BTreeMap<PathBuf, (u64, SystemTime, Vec<u8>)>;

/// A folder with an empty registry and [`TEMPLATE`], and without HAProxy.
#[derive(Debug)]
pub struct World {
    directory: TempDir,
    /// Where all of it is.
    pub options: PublishOptions,
}

impl World {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for folder in ["nodes", "config", "run"] {
            fs::create_dir(directory.path().join(folder)).unwrap();
        }
        let path = |name: &str| directory.path().join(name);
        let render = RenderOptions {
            nodes_dir: path("nodes"),
            template: path("haproxy.cfg.hb"),
            certs_dir: path("certs"),
            routes_file: None,
            stats_auth_file: None,
            port: "3000".parse().unwrap(),
        };
        let process = ProcessOptions {
            config: path("config/haproxy.cfg"),
            master_socket: path("run/master.sock"),
            admin_socket: path("run/admin.sock"),
        };
        let world = Self { directory, options: PublishOptions { render, process } };
        world.set_template(TEMPLATE);
        world
    }

    /// With these nodes published, and a HAProxy that was started with them and reloaded since by a publish: so it is
    /// known what it runs.
    pub fn running(nodes: &[&str]) -> (Self, Scripted) {
        let world = Self::new();
        world.set_nodes(nodes);
        world.publish().unwrap();
        let haproxy = world.start();
        world.publish().unwrap();
        haproxy.asked();
        (world, haproxy)
    }

    /// Starts HAProxy with the file that is there.
    pub fn start(&self) -> Scripted {
        Scripted::start(&self.options.process)
    }

    pub fn set_template(&self, text: &str) {
        fs::write(&self.options.render.template, text).unwrap();
    }

    /// Replaces one text in the template.
    pub fn edit_template(&self, old: &str, new: &str) {
        let text = fs::read_to_string(&self.options.render.template).unwrap();
        assert!(text.contains(old), "{text}");
        self.set_template(&text.replace(old, new));
    }

    /// Lets the template load the certificates if there are any.
    pub fn use_certificates(&self) {
        self.edit_template(
            "listen nodes",
            "{{#if certificates}}\nfrontend f\n    bind :443 ssl crt {{certificates}}\n{{/if}}\nlisten nodes",
        );
    }

    /// Gives it this certificate, with its key, as `shop.pem`.
    pub fn set_certificate(&self, pem: &str) {
        let path = self.options.render.certs_dir.join("shop.pem");
        fs::create_dir_all(&self.options.render.certs_dir).unwrap();
        fs::write(&path, pem).unwrap();
        fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    }

    /// The file from which HAProxy loads it.
    pub fn installed_certificate(&self) -> PathBuf {
        certificates::directory(&self.options.process.master_socket).join("shop.pem")
    }

    /// Makes these the nodes of the registry, each given by its line there.
    pub fn set_nodes(&self, lines: &[&str]) {
        let mut registry = Registry::read(&self.options.render.nodes_dir).unwrap();
        for name in registry.names().collect::<Vec<_>>() {
            registry.remove(&name).unwrap();
        }
        for line in lines {
            registry.put(&line.parse().unwrap()).unwrap();
        }
    }

    pub fn lock(&self) -> Lock {
        Lock::take(self.config()).unwrap()
    }

    /// Publishes the registry as it is.
    pub fn publish(&self) -> Result<Outcome, PublishError> {
        publish::publish(&self.options, &self.lock(), |_, _| Ok(()))
    }

    /// The configuration file.
    pub fn config(&self) -> &Path {
        &self.options.process.config
    }

    /// Its text.
    pub fn text(&self) -> String {
        fs::read_to_string(self.config()).unwrap()
    }

    /// The record of what runs, if there is one.
    pub fn record(&self) -> Option<(RecordedFor, LastApplied)> {
        LastApplied::load(&self.record_path())
    }

    pub fn record_path(&self) -> PathBuf {
        record_path(&self.options.process.master_socket)
    }

    /// The servers that the record has as waiting, each with its line.
    pub fn leaving(&self) -> Vec<String> {
        let (_, record) = self.record().expect("a record");
        record.leaving.iter().map(|(key, line)| format!("{key} {line}")).collect()
    }

    pub fn stats(&self) -> Stats {
        Stats::load(&stats_path(&self.options.process.master_socket))
    }

    /// All that is there.
    pub fn snapshot(&self) -> Snapshot {
        let entries = WalkDir::new(self.directory.path()).into_iter().map(Result::unwrap);
        let state = |entry: walkdir::DirEntry| {
            let metadata = entry.metadata().unwrap();
            let content = if metadata.is_file() { fs::read(entry.path()).unwrap() } else { Vec::new() };
            (entry.into_path(), (metadata.ino(), metadata.modified().unwrap(), content))
        };
        entries.map(state).collect()
    }

    /// Makes it impossible, also for root, to write a file in the folder of this one, as on a full disk; what is there stays.
    pub fn fill_disk_of(&self, file: &Path) {
        // A folder in the place of the temporary file is moved out of the way, where the place is taken as well.
        for name in [".new", "..new.aside"] {
            fs::create_dir_all(file.with_file_name(name).join("full")).unwrap();
        }
    }

    /// Undoes that.
    pub fn empty_disk_of(&self, file: &Path) {
        for name in [".new", "..new.aside"] {
            fs::remove_dir_all(file.with_file_name(name)).unwrap();
        }
    }
}

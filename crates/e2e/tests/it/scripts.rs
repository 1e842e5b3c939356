//! The scripts that a user types, with a network, names and ports of their own.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use e2e::docker::{docker, text, try_docker};
use e2e::eventually;
use e2e::http::{Load, get};

const TOP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// One user's lab, removed at the end by the documented command.
pub struct Scripts {
    pub prefix: String,
    pub network: String,
}

impl Scripts {
    pub fn new(name: &str) -> Self {
        let prefix = format!("e2e-{}-{name}-", std::process::id());
        Self { network: format!("{prefix}net"), prefix }
    }

    pub fn command(&self, argument: &str, ports: [&str; 3]) -> Command {
        let mut command = Command::new("./start-containers.sh");
        command
            .current_dir(TOP)
            .args((!argument.is_empty()).then_some(argument))
            .envs([("PREFIX", self.prefix.as_str()), ("NETWORK", &self.network), ("BIND", "127.0.0.1")])
            .envs([("HTTP_PORT", ports[0]), ("STATS_PORT", ports[1]), ("SOCKET_PORT", ports[2])]);
        command
    }

    pub fn start(&self, argument: &str, ports: [&str; 3]) -> Output {
        self.command(argument, ports).output().expect("the script runs")
    }

    fn containers(&self) -> Vec<String> {
        let mut names: Vec<String> =
            docker(&["ps", "-a", "--filter", &format!("name=^/{}", self.prefix), "--format", "{{.Names}}"])
                .lines()
                .map(|name| name.trim_start_matches(&self.prefix).to_owned())
                .collect();
        names.sort();
        names
    }

    fn network_is_there(&self) -> bool {
        try_docker(&["network", "inspect", &self.network], "").status.success()
    }
}

impl Drop for Scripts {
    fn drop(&mut self) {
        let _ = self.start("down", ["0"; 3]);
    }
}

pub fn out(output: &Output) -> String {
    text(&output.stdout) + &text(&output.stderr)
}

#[test]
fn one_command_starts_the_lab_and_one_removes_it() {
    let lab = Scripts::new("lab");
    let started = lab.start("3", ["0"; 3]);
    assert!(started.status.success(), "{}", out(&started));
    assert_eq!(lab.containers(), ["ha", "s1", "s2", "s3"]);
    let log = docker(&["inspect", "--format", "{{json .HostConfig.LogConfig}}", &format!("{}ha", lab.prefix)]);
    let restart = docker(&["inspect", "--format", "{{.HostConfig.RestartPolicy.Name}}", &format!("{}s1", lab.prefix)]);
    assert_eq!(restart, "unless-stopped", "it comes back after a reboot");
    assert!(log.contains("\"max-size\":\"10m\"") && log.contains("\"max-file\":\"2\""), "docker logs is bounded: {log}");
    let port = docker(&["port", &format!("{}ha", lab.prefix), "80"]);
    assert!(port.starts_with("127.0.0.1:"), "{port}");
    assert_eq!(get(&format!("http://{port}/"), None).unwrap().status, 200);
    assert!(out(&started).contains(&port), "the address is printed: {}", out(&started));

    // The lab's own line, as the script prints it, adds a node that is removed with the others.
    let next = format!("{}s4", lab.prefix);
    let _ = docker(&["run", "-d", "--network", &lab.network, "--name", &next, "softengheigvd/webapp"]);
    let member = docker(&["inspect", "--format", "{{.Config.Hostname}}", &next]);
    eventually("the fourth node answers", 15, || {
        let host = get(&format!("http://{port}/"), None)?.host()?;
        if host == member { Ok(()) } else { Err(host) }
    });

    let again = lab.start("", ["0"; 3]);
    assert!(again.status.success(), "{}", out(&again));
    assert_eq!(lab.containers(), ["ha", "s1", "s2"]);

    let down = lab.start("down", ["0"; 3]);
    assert!(down.status.success(), "{}", out(&down));
    assert!(lab.containers().is_empty() && !lab.network_is_there());
}

#[test]
fn the_number_of_nodes_changes_in_a_running_lab_and_no_request_is_lost() {
    let lab = Scripts::new("scale");
    let start = |nodes: &str| {
        let started = lab.start(nodes, ["0"; 3]);
        assert!(started.status.success(), "{}", out(&started));
    };
    let ids = || ["ha", "s1", "s2"].map(|name| docker(&["inspect", "--format", "{{.Id}}", &format!("{}{name}", lab.prefix)]));
    start("2");
    let before = ids();
    let load = Load::start(&format!("http://{}/", docker(&["port", &format!("{}ha", lab.prefix), "80"])), 8);
    start("8");
    assert_eq!(lab.containers(), ["ha", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8"]);
    start("3");
    assert_eq!(lab.containers(), ["ha", "s1", "s2", "s3"]);
    assert_eq!(ids(), before, "kept");
    lost_nothing(load);

    // Another port for the balancer: all is started anew.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let started = lab.start("2", ["0", "0", &port]);
    assert!(started.status.success(), "{}", out(&started));
    assert_ne!(ids()[0], before[0]);
}

/// Ends a load after some more requests.
fn lost_nothing(load: Load) {
    let sent = load.sent();
    eventually("requests go on", 20, || if load.sent() >= sent + 200 { Ok(()) } else { Err(load.sent().to_string()) });
    let (sent, lost) = load.finish();
    assert!(lost.is_empty(), "{} of {sent} lost: {:?}", lost.len(), &lost[..lost.len().min(5)]);
    println!("{sent} requests, none lost");
}

#[test]
fn a_port_that_is_taken_is_named_and_nothing_is_started() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let lab = Scripts::new("port");
    let output = lab.start("", ["0", &port, "0"]);
    assert_eq!(output.status.code(), Some(1), "{}", out(&output));
    let errors = text(&output.stderr);
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert!(errors.contains(&port) && errors.contains("STATS_PORT"), "{errors}");
    assert!(lab.containers().is_empty() && !lab.network_is_there());
}

#[test]
fn a_second_lab_on_the_same_network_is_refused_and_the_first_goes_on() {
    let first = Scripts::new("one");
    let _ = docker(&["network", "create", &first.network]);
    let ha = e2e::Container { name: format!("{}ha", first.prefix) };
    let label = "softengheigvd.start=here";
    let _ = docker(&["run", "-d", "--name", &ha.name, "--label", label, "--network", &first.network, "softengheigvd/ha"]);
    let second = Scripts { prefix: format!("{}two-", first.prefix), network: first.network.clone() };
    let output = second.start("", ["0"; 3]);
    assert_eq!(output.status.code(), Some(1), "{}", out(&output));
    let errors = text(&output.stderr);
    assert!(errors.lines().count() == 1 && errors.contains("NETWORK") && errors.contains(&ha.name), "{errors}");
    assert_eq!(first.containers(), ["ha"]);
}

#[test]
fn wrong_arguments_are_told_and_nothing_is_started() {
    let lab = Scripts::new("arguments");
    for (argument, ports) in
        [("0", ["0"; 3]), ("51", ["0"; 3]), ("two", ["0"; 3]), ("2", ["http", "0", "0"]), ("2", ["0", "70000", "0"])]
    {
        let output = lab.start(argument, ports);
        assert_eq!(output.status.code(), Some(1), "{argument} {ports:?}");
        assert_eq!(text(&output.stderr).lines().count(), 1, "{}", out(&output));
    }
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let twice = lab.start("2", ["0", &free, &free]);
    assert_eq!(
        text(&twice.stderr),
        format!("start-containers.sh: SOCKET_PORT: port {free} is published twice: choose another one\n")
    );
    assert!(!lab.network_is_there());
}

#[test]
fn a_balancer_that_was_started_by_hand_is_replaced_and_that_is_said_first() {
    let lab = Scripts::new("hand");
    let _ = docker(&["network", "create", &lab.network]);
    for (name, image) in [("ha", "softengheigvd/ha"), ("s7", "softengheigvd/webapp")] {
        let _ = docker(&["run", "-d", "--name", &format!("{}{name}", lab.prefix), "--network", &lab.network, image]);
    }
    let started = lab.start("1", ["0"; 3]);
    assert!(started.status.success(), "{}", out(&started));
    let said = text(&started.stdout);
    let removing =
        format!("==> {0}ha was started by hand: removing {0}s7 {0}ha to start again\n==> starting {0}ha\n", lab.prefix);
    assert!(said.contains(&removing), "{said}");
    assert_eq!(lab.containers(), ["ha", "s1"]);
    for name in ["ha", "s1"].map(|name| format!("{}{name}", lab.prefix)) {
        assert_eq!(docker(&["inspect", "--format", "{{.Config.Hostname}}", &name]), name, "docker ps and the cluster agree");
    }
}

#[test]
fn podman_is_asked_for_the_same_by_its_own_options() {
    let lab = Scripts::new("podman");
    let fake = tempfile::tempdir().unwrap();
    let asked = fake.path().join("asked");
    let script = format!(
        r#"#!/bin/sh
        case $1 in
            --version) echo podman version 5.4.2 ;;
            run) echo "$@" >{}; exit 1 ;;
            *) PATH=${{PATH#*:}} exec docker "$@" ;;
        esac"#,
        asked.display()
    );
    let docker = fake.path().join("docker");
    fs::write(&docker, script).unwrap();
    fs::set_permissions(&docker, Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", fake.path().display(), std::env::var("PATH").unwrap());
    let started = lab.command("1", ["0"; 3]).env("PATH", path).output().unwrap();
    assert!(!started.status.success() && !lab.network_is_there(), "{}", out(&started));
    let asked = fs::read_to_string(asked).unwrap();
    for option in
        [" --tmpfs=/run:exec,U,mode=0755 ", " --tmpfs=/nodes:U,mode=0755 ", " --sysctl=net.ipv4.ip_unprivileged_port_start=0 "]
    {
        assert!(asked.contains(option), "no {option}: {asked}");
    }
}

/// A clone that was made under umask 077.
#[test]
fn a_template_that_the_containers_cannot_read_is_found_at_once() {
    let clone = tempfile::tempdir().unwrap();
    for file in ["start-containers.sh", "scripts.sh", "container-options"] {
        fs::copy(Path::new(TOP).join(file), clone.path().join(file)).unwrap();
    }
    let config = clone.path().join("ha/config");
    fs::create_dir_all(&config).unwrap();
    fs::set_permissions(&config, Permissions::from_mode(0o700)).unwrap();
    let output = Command::new("./start-containers.sh").current_dir(clone.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", out(&output));
    let said = "start-containers.sh: the containers' user cannot read ha/config: chmod -R o+rX ha/config\n";
    assert_eq!(out(&output), said);
}

#[test]
fn a_mirror_that_does_not_answer_is_the_error_that_is_told() {
    let refusing = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = Command::new("./provision.sh")
        .arg("some-package")
        .current_dir(TOP)
        .envs([("http_proxy", format!("http://{refusing}")), ("https_proxy", format!("http://{refusing}"))])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", out(&output));
    let error = text(&output.stderr);
    assert!(error.lines().count() == 1 && error.contains("E: Failed to fetch") && error.contains("onnect to"), "{error}");
}

/// Compose cannot read the file.
#[test]
fn compose_starts_containers_with_the_options_of_all() {
    let read = |name: &str| fs::read_to_string(Path::new(TOP).join(name)).unwrap();
    let (compose, options) = (read("compose.yaml"), read("container-options"));
    for option in options.lines() {
        let (name, value) = option.trim_start_matches('-').split_once('=').unwrap_or((&option[2..], ""));
        let words = match (name, value) {
            ("network-alias", alias) => format!("aliases: [{alias}]"),
            ("read-only", _) => "read_only: true".to_owned(),
            ("cap-drop", capability) => format!("cap_drop: [{capability}]"),
            ("security-opt", option) => format!("security_opt: [{option}]"),
            ("sysctl", pair) => pair.replacen('=', ": ", 1),
            ("tmpfs", mount) => format!("- {mount}\n"),
            ("log-driver", driver) => format!("driver: {driver}\n"),
            ("log-opt", pair) => pair.replacen('=', ": ", 1).replace(": 2", ": \"2\""),
            _ => panic!("{option}: what is it in Compose?"),
        };
        assert!(compose.contains(&words), "compose.yaml has no {words:?}");
    }
    assert_eq!(compose.matches("mode=0755").count(), options.matches("--tmpfs=").count());
}

#[test]
fn compose_starts_and_scales_the_lab() {
    let project = format!("e2e{}compose", std::process::id());
    let compose = |arguments: &[&str]| {
        let output = Command::new("docker-compose")
            .current_dir(Path::new(TOP))
            .args(["-p", &project])
            .args(arguments)
            .envs([("BIND", "127.0.0.1"), ("HTTP_PORT", "0"), ("STATS_PORT", "0"), ("SOCKET_PORT", "0")])
            .output()
            .expect("docker-compose is installed");
        assert!(output.status.success(), "{arguments:?}: {}", out(&output));
        text(&output.stdout)
    };
    struct Down<F: Fn(&[&str]) -> String>(F);
    impl<F: Fn(&[&str]) -> String> Drop for Down<F> {
        fn drop(&mut self) {
            let _ = (self.0)(&["down", "-v"]);
        }
    }
    let compose = Down(compose);
    let answering = |count: usize| {
        let port = (compose.0)(&["port", "ha", "80"]);
        let port = port.trim().rsplit(':').next().unwrap().to_owned();
        let mut seen = std::collections::BTreeSet::new();
        eventually(&format!("{count} nodes answer"), 30, || {
            seen.insert(get(&format!("http://127.0.0.1:{port}/"), None)?.host()?);
            if seen.len() == count { Ok(()) } else { Err(format!("{seen:?}")) }
        });
    };
    let _ = (compose.0)(&["up", "-d"]);
    answering(1);
    let port = (compose.0)(&["port", "ha", "80"]);
    let load = Load::start(&format!("http://{}/", port.trim()), 8);
    for count in [2, 8, 3] {
        let _ = (compose.0)(&["up", "-d", "--scale", &format!("webapp={count}")]);
        answering(count);
    }
    lost_nothing(load);
}

#[test]
fn a_wrong_checksum_of_the_supervisor_s_release_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    for part in ["noarch", "symlinks-noarch", "x86_64", "aarch64"] {
        fs::write(folder.path().join(format!("s6-overlay-{part}.tar.xz")), "not the released file").unwrap();
    }
    let output = Command::new("./build-images.sh").current_dir(TOP).env("S6_OVERLAY_DIR", folder.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", out(&output));
    assert!(text(&output.stderr).contains("wrong checksum"), "{}", out(&output));
}

/// The release cannot be had here; a curl of the test's own stands for a proxy that answers with a page.
#[test]
fn a_page_of_a_proxy_does_not_become_the_supervisor_s_release() {
    let folder = tempfile::tempdir().unwrap();
    let curl = folder.path().join("curl");
    fs::write(&curl, "#!/bin/sh\nuntil [ \"$1\" = -o ]; do shift; done\necho '<html>Please log in' >\"$2\"\n").unwrap();
    fs::set_permissions(&curl, Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    for _ in 0..2 {
        let output = Command::new("./build-images.sh")
            .current_dir(TOP)
            .envs([("PATH", path.as_str()), ("SUPERVISOR", "s6-overlay")])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", out(&output));
        let error = text(&output.stderr);
        assert!(error.lines().count() == 1 && error.contains("<html>Please log in"), "{error}");
    }
}

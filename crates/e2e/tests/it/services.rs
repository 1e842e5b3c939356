//! What runs inside a container: services, their supervisor, `docker stop`.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use e2e::docker::{docker, text, try_docker};
use e2e::{Lab, Look, eventually};

#[test]
fn every_service_that_is_killed_comes_back() {
    let (_lab, balancer, nodes) = Lab::with_nodes(Look::Hardened, 2);
    let all: Vec<_> = nodes.iter().collect();
    let node = &nodes[0];
    for (container, service) in [
        (&balancer.container, "ha"),
        (&balancer.container, "sync"),
        (&balancer.container, "live"),
        (&balancer.container, "serf"),
        (&balancer.container, "join"),
        (node, "node"),
        (node, "serf"),
        (node, "join"),
    ] {
        let before = eventually("the service runs", 10, || container.service_pid(service).ok_or("down".to_owned()));
        container.kill_service(service);
        eventually(&format!("{service} comes back"), 10, || match container.service_pid(service) {
            Some(pid) if pid != before => Ok(()),
            other => Err(format!("pid {other:?}")),
        });
        balancer.settles_on(&all, 30);
    }
}

#[test]
fn docker_stop_ends_by_itself_with_0_and_a_graceful_leave() {
    for look in [Look::Plain, Look::Hardened] {
        let (_lab, balancer, nodes) = Lab::with_nodes(look, 1);
        for container in [&nodes[0], &balancer.container] {
            let begin = Instant::now();
            container.stop();
            assert!(begin.elapsed() < Duration::from_secs(10), "Docker had to kill it");
            assert_eq!(container.inspect("{{.State.ExitCode}}"), "0", "{}", container.name);
            let logs = container.logs();
            assert!(logs.contains("agent: requesting graceful leave from Serf"), "{logs}");
        }
    }
}

/// A signal to PID 1 that comes before the supervisor runs was lost: Docker waited for 10 s and killed the container.
#[test]
fn docker_stop_in_the_middle_of_the_start_is_heeded() {
    let lab = Lab::new(Look::Plain);
    let slow = tempfile::tempdir().unwrap();
    let script = slow.path().join("05-slow");
    fs::write(&script, "#!/bin/sh\necho the start takes a while\nsleep 2\n").unwrap();
    fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
    let node = lab.node_with("s1", &["-v", &format!("{}:/etc/cont-init.d/05-slow:ro", script.display())]);
    let starts = || if node.logs().contains("takes a while") { Ok(()) } else { Err(node.logs()) };
    eventually("the start script runs", 20, starts);
    let begin = Instant::now();
    node.stop();
    assert!(begin.elapsed() < Duration::from_secs(10), "Docker had to kill it");
    assert_eq!(node.inspect("{{.State.ExitCode}}"), "0");
}

#[test]
fn a_drain_timeout_that_is_no_number_of_seconds_ends_the_start() {
    for (value, code) in [("abc", 2), ("8s", 2), ("-1", 2), ("123456789", 2), ("08", 0), ("", 0)] {
        let variable = format!("DRAIN_TIMEOUT={value}");
        let output = try_docker(&["run", "--rm", "--network", "none", "-e", &variable, "softengheigvd/webapp", "true"], "");
        assert_eq!(output.status.code(), Some(code), "{value:?}: {}", text(&output.stderr));
        let said = format!("DRAIN_TIMEOUT: '{value}': must be whole seconds");
        assert_eq!(text(&output.stderr).contains(&said), code != 0, "{value:?}: {}", text(&output.stderr));
    }
}

#[test]
fn a_service_that_ignores_its_signal_is_killed_when_the_drain_time_is_over() {
    let lab = Lab::new(Look::Hardened);
    let node = lab.node_with("s1", &["-e", "DRAIN_TIMEOUT=1"]);
    let pid = || node.service_pid("join");
    let before = eventually("the service runs", 10, || pid().ok_or("down".to_owned()));
    let stubborn = "printf '#!/bin/sh\ntrap : TERM\nwhile :; do sleep 1; done\n' >run && s6-svc -r .";
    let _ = node.exec(&["sh", "-c", &format!("cd /run/service/join && {stubborn}")]);
    eventually("it ignores the signal", 10, || match pid() {
        Some(pid) if pid != before => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let _ = node.exec(&["s6-svc", "-d", "/run/service/join"]);
    eventually("it is down", 10, || match pid() {
        Some(pid) => Err(format!("pid {pid}")),
        None => Ok(()),
    });
}

#[test]
fn nothing_in_a_container_runs_as_root() {
    let (_lab, balancer, nodes) = Lab::with_nodes(Look::Hardened, 1);
    for container in [&balancer.container, &nodes[0]] {
        let users = container.exec(&["sh", "-c", "for p in /proc/[0-9]*; do stat -c %U $p 2>/dev/null; done | sort -u"]);
        assert_eq!(users.trim(), "lb", "{}", container.name);
        assert_eq!(container.inspect("{{.Config.User}}"), "lb");
    }
}

#[test]
fn no_file_of_the_images_gives_another_user_s_rights() {
    for image in ["base", "ha", "webapp"] {
        let find = ["--rm", "--user", "0", "--entrypoint", "find"];
        let image = format!("softengheigvd/{image}");
        let found = docker(&[&["run"], &find[..], &[image.as_str(), "/", "-xdev", "-type", "f", "-perm", "/6000"]].concat());
        assert_eq!(found, "", "{image}");
    }
}

#[test]
fn only_the_documented_ports_are_open() {
    let (_lab, balancer, nodes) = Lab::with_nodes(Look::Hardened, 1);
    // Docker's own resolver listens on 127.0.0.11.
    let script = "awk '$4 == \"0A\" && $2 !~ /^0B00007F/ { split($2, a, \":\"); print a[1] \":\" a[2] }' /proc/net/tcp /proc/net/tcp6 | sort -u";
    let open = |container: &e2e::Container| -> Vec<(bool, u16)> {
        let lines = container.exec(&["sh", "-c", script]);
        let mut ports: Vec<_> = lines
            .lines()
            .map(|line| line.split_once(':').unwrap())
            .map(|(address, port)| (address == "0100007F", u16::from_str_radix(port, 16).unwrap()))
            .collect();
        ports.sort_by_key(|(_, port)| *port);
        ports
    };
    assert_eq!(open(&balancer.container), [(false, 80), (false, 1936), (true, 1937), (true, 7373), (false, 7946), (false, 9999)]);
    assert_eq!(open(&nodes[0]), [(false, 3000), (true, 7373), (false, 7946)]);
}

#[test]
fn sockets_that_control_haproxy_are_in_a_folder_of_its_user_alone() {
    for look in [Look::Plain, Look::Hardened] {
        let (_lab, balancer, _nodes) = Lab::with_nodes(look, 1);
        let modes =
            balancer.exec(&["sh", "-c", "cd /run/haproxy && stat -c '%n %U %a' . admin.sock master.sock sync.wake running.cfg"]);
        let expected = ". lb 700\nadmin.sock lb 600\nmaster.sock lb 600\nsync.wake lb 600\nrunning.cfg lb 600\n";
        assert_eq!(modes, expected);
        // The key of the gossip, if there is one, is in the agent's configuration.
        assert_eq!(balancer.exec(&["stat", "-c", "%U %a", "/run/serf/agent.json"]), "lb 600\n");
    }
}

#[test]
fn both_images_are_healthy_and_say_what_they_are() {
    let (_lab, balancer, nodes) = Lab::with_nodes(Look::Plain, 1);
    for container in [&balancer.container, &nodes[0]] {
        eventually("healthy", 40, || match container.inspect("{{.State.Health.Status}}").as_str() {
            "healthy" => Ok(()),
            other => Err(other.to_owned()),
        });
    }
    for (image, role, ports) in [("ha", "balancer", "80 443 1936 7373 7946 9999"), ("webapp", "backend", "3000 7373 7946")] {
        let image = format!("softengheigvd/{image}");
        let environment = docker(&["image", "inspect", "--format", "{{range .Config.Env}}{{println .}}{{end}}", &image]);
        assert!(environment.lines().any(|line| line == format!("ROLE={role}")), "{environment}");
        let exposed = docker(&[
            "image",
            "inspect",
            "--format",
            "{{range $port, $_ := .Config.ExposedPorts}}{{println $port}}{{end}}",
            &image,
        ]);
        for port in ports.split(' ') {
            assert!(exposed.lines().any(|line| line == format!("{port}/tcp")), "{port}: {exposed}");
        }
        let supervisor = docker(&["image", "inspect", "--format", "{{index .Config.Labels \"supervisor\"}}", &image]);
        assert!(["s6", "s6-overlay"].contains(&supervisor.as_str()), "{supervisor}");
    }
    let size = |image: &str| -> u64 { docker(&["image", "inspect", "--format", "{{.Size}}", image]).parse().unwrap() };
    assert!(size("softengheigvd/ha") - size("softengheigvd/base") < 120_000_000, "HAProxy adds too much to the base image");
}

#[test]
fn the_tools_together_have_at_most_ten_megabytes() {
    let lab = Lab::new(Look::Plain);
    let node = lab.node("s1");
    // The five tools of the lab's contract; each is wholly static.
    let sizes =
        node.exec(&["sh", "-c", "cd /usr/local/bin && stat -c %s member-join member-leave render-cfg reload-ha serf-run"]);
    let total: u64 = sizes.lines().map(|line| line.parse::<u64>().unwrap()).sum();
    assert!(total <= 10_000_000, "{total} bytes");
    for tool in ["member-join", "member-leave", "render-cfg", "reload-ha", "serf-run", "sync-nodes"] {
        let linked = node.try_exec(&["sh", "-c", &format!("grep -ac /lib64/ld-linux /usr/local/bin/{tool}")], "");
        assert_eq!(text(&linked.stdout).trim(), "0", "{tool} is not static");
    }
    // They have no tables for unwinding, which must not break the errors of somebody who asks for backtraces.
    let failed = node.try_exec(&["env", "RUST_BACKTRACE=1", "reload-ha"], "");
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    assert!(text(&failed.stderr).starts_with("reload-ha: read "), "{failed:?}");
}

#[test]
fn a_container_that_finds_nobody_says_so_once() {
    let lab = Lab::new(Look::Hardened);
    let node = lab.node("s1");
    let said = || node.logs().matches("join: no other member is found").count();
    eventually("it is said", 90, || if said() > 0 { Ok(()) } else { Err(node.logs()) });
    goes_on(&node, 20);
    assert_eq!(said(), 1, "{}", node.logs());
}

#[test]
fn a_node_whose_application_does_not_answer_is_told_that_and_nothing_else() {
    let lab = Lab::new(Look::Hardened);
    let node = lab.node_with("s1", &["-e", "SERF_READY=http://127.0.0.1:3001/", "-e", "SERF_READY_TIMEOUT=2s"]);
    eventually("the reason is said", 20, || {
        let logs = node.logs();
        if logs.contains("http://127.0.0.1:3001/ is not ready after 2s, waiting on: ") { Ok(()) } else { Err(logs) }
    });
    // The service join looks for an agent and says nothing.
    goes_on(&node, 4);
    assert!(!node.logs().contains("join: "), "{}", node.logs());
}

/// Waits until the service `join` has slept and woken this often: at least once a look.
fn goes_on(node: &e2e::Container, times: u64) {
    let woken = || -> u64 {
        let pid = node.service_pid("join").expect("the service runs");
        let status = node.exec(&["cat", &format!("/proc/{pid}/status")]);
        let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        count.expect("a count").trim().parse().expect("a number")
    };
    let before = woken();
    eventually("join goes on", 60, || match woken() - before {
        count if count >= times => Ok(()),
        count => Err(format!("{count} of {times}")),
    });
}

#[test]
fn the_lab_s_paths_lead_to_what_is_here() {
    let lab = Lab::new(Look::Hardened);
    let balancer = lab.balancer("ha");
    for tool in ["member-join", "member-leave"] {
        let version = balancer.exec(&[&format!("/serf-handlers/{tool}.sh"), "--version"]);
        assert!(version.starts_with(tool), "{version}");
    }
    assert!(balancer.exec(&["/opt/bin/serf", "version"]).contains("Agent Protocol: "));
}

#[test]
fn ps_top_and_less_are_in_every_image() {
    let lab = Lab::new(Look::Hardened);
    for container in [&lab.balancer("ha").container, &lab.node("s1")] {
        let found = container.exec(&["ls", "/usr/bin/ps", "/usr/bin/top", "/usr/bin/less"]);
        assert_eq!(found.lines().count(), 3, "{found}");
    }
}

#[test]
fn the_images_have_man_pages_and_completions() {
    let lab = Lab::new(Look::Hardened);
    let balancer = lab.balancer("ha");
    let page = balancer.exec(&["zcat", "/usr/local/share/man/man1/show-nodes.1.gz"]);
    assert!(page.contains(".SH DESCRIPTION"), "{page}");
    let completion = balancer.exec(&["bash", "-ic", "complete -p show-nodes"]);
    assert!(completion.ends_with(" show-nodes\n"), "{completion}");
}

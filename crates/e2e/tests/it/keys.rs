//! The key of the gossip: the images carry one, a secret takes its place, and it can be changed while all runs. The
//! password of the agent's commands.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use e2e::docker::{docker, text, try_docker};
use e2e::{Container, Lab, Look, eventually};

const TOP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
const OLD: &str = "T2xkT2xkT2xkT2xkT2xkT2xkT2xkT2xkT2xkT2xkT2w=";
const NEW: &str = "TmV3TmV3TmV3TmV3TmV3TmV3TmV3TmV3TmV3TmV3TmU=";
/// Where a Docker secret of this name is.
const SECRET: &str = "/run/secrets/serf_encrypt_key";

fn is_member(of: &Container, member: &str) -> bool {
    of.exec(&["serf", "members", "-status=alive"]).lines().any(|line| line.split_whitespace().next() == Some(member))
}

#[test]
fn plain_lines_are_encrypted_by_the_key_of_the_images_and_strangers_stay_out() {
    let (lab, balancer, nodes) = Lab::with_nodes(Look::Plain, 1);
    let key = balancer.exec(&["cat", "/etc/serf/encrypt_key"]);
    let file = Path::new(TOP).join(".serf-key");
    assert_eq!(key, fs::read_to_string(file.join("key")).unwrap(), "the key of this clone");
    for (path, mode) in [(file.clone(), 0o700), (file.join("key"), 0o600)] {
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, mode, "{}", path.display());
    }
    for container in [&balancer.container, &nodes[0]] {
        assert!(container.exec(&["serf", "info"]).contains("encrypted = true"), "{}", container.name);
        assert_eq!(container.exec(&["stat", "-c", "%U %a", "/etc/serf/encrypt_key"]), "lb 400\n");
        let top = docker(&["top", &container.name]);
        for place in [top, container.logs(), docker(&["inspect", &container.name])] {
            assert!(!place.contains(key.trim()), "{place}");
        }
    }

    let other_key = format!("SERF_ENCRYPT_KEY={OLD}");
    let stranger = lab.node_with("other-key", &["-e", &other_key]);
    let (network, name) = (lab.network(), format!("{}-no-key", lab.network()));
    let agent = ["--entrypoint", "serf", "softengheigvd/webapp", "agent", "-node=no-key", "-tag=role=backend", "-retry-join=ha"];
    let _ = docker(&[&["run", "-d", "--network", network, "--name", &name], &agent[..]].concat());
    eventually("the balancer refuses them", 40, || {
        let logs = balancer.logs();
        let all = ["No installed keys could decrypt the message", "remote state is not encrypted"];
        if all.iter().all(|line| logs.contains(line)) { Ok(()) } else { Err(logs) }
    });
    for member in [stranger.member().as_str(), "no-key"] {
        assert!(!is_member(&balancer, member), "{member}");
    }
    assert_eq!(balancer.registry(), [nodes[0].line()].into());
}

/// As docs/outside.md has it.
#[test]
fn the_key_is_changed_in_a_running_cluster() {
    let lab = Lab::new(Look::Hardened);
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("key");
    let write = |key: &str| {
        fs::write(&secret, key).unwrap();
        fs::set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
        chown(&secret, Some(10001), Some(10001)).unwrap();
    };
    write(OLD);
    let mount = format!("{}:{SECRET}:ro", secret.display());
    let balancer = lab.balancer_with("ha", &["-v", &mount]);
    let nodes = ["s1", "s2"].map(|name| lab.node_with(name, &["-v", &mount]));
    balancer.settles_on(&nodes.each_ref(), 30);

    for step in [["-install", NEW], ["-use", NEW], ["-remove", OLD]] {
        // A member that is too busy to answer in Serf's time is a failure; the step can be repeated.
        eventually(&format!("serf keys {step:?}"), 30, || {
            let done = balancer.try_exec(&[&["serf", "keys"], &step[..]].concat(), "");
            if done.status.success() { Ok(()) } else { Err(text(&done.stdout) + &text(&done.stderr)) }
        });
    }
    let keys = balancer.exec(&["serf", "keys", "-list"]);
    assert!(keys.contains(NEW) && !keys.contains(OLD), "{keys}");
    write(NEW);
    for container in [&nodes[0], &balancer.container] {
        container.stop();
        container.start();
        balancer.settles_on(&nodes.each_ref(), 30);
    }
    let new = lab.node_with("s3", &["-v", &mount]);
    balancer.settles_on(&[&nodes[0], &nodes[1], &new], 30);
}

#[test]
fn commands_to_the_agent_need_its_password_and_work_as_they_are_typed() {
    let lab = Lab::new(Look::Hardened);
    let node = lab.node("s1");
    eventually("the agent takes commands", 20, || {
        let output = node.try_exec(&["serf", "members"], "");
        if output.status.success() { Ok(()) } else { Err(text(&output.stdout)) }
    });
    assert_eq!(node.exec(&["/opt/bin/serf", "members"]), node.exec(&["serf", "members"]));
    // Another user of the same host.
    let stranger = ["run", "--rm", "--network", &format!("container:{}", node.name), "--entrypoint", "/usr/bin/serf"];
    let output = try_docker(&[&stranger[..], &["softengheigvd/base", "leave"]].concat(), "");
    assert!(!output.status.success());
    assert!(text(&output.stdout).contains("Authentication required"), "{}{}", text(&output.stdout), text(&output.stderr));
    assert!(is_member(&node, &node.member()));
}

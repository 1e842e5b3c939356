//! The tools by hand, in `docker exec`, against a running HAProxy.

use std::process::Output;

use e2e::docker::text;
use e2e::wait::same;
use e2e::{Balancer, Container, Lab, Look, eventually};

const CONFIG: &str = "/usr/local/etc/haproxy/haproxy.cfg";
const TEMPLATE: &str = "/config/haproxy.cfg.hb";

/// A lab whose balancer has no event handlers, which would come a second late into what a test does by hand. Nodes may be
/// anywhere.
fn lab(look: Look, count: usize) -> (Lab, Balancer, Vec<Container>) {
    let lab = Lab::new(look);
    let balancer = lab.balancer_with("ha", &["-e", "SERF_EVENT_HANDLERS=", "-e", "NODE_NETWORKS=any"]);
    let nodes = (1..=count).map(|number| lab.node(&format!("s{number}"))).collect();
    (lab, balancer, nodes)
}

/// Stops the services that would undo what is done by hand, once the balancer has settled.
fn quiet(balancer: &Balancer, nodes: &[&Container]) -> String {
    let worker = balancer.settled_worker(nodes);
    for service in ["sync", "join"] {
        let _ = balancer.exec(&["s6-svc", "-d", "-wD", "-T", "5000", &format!("/var/run/s6/services/{service}")]);
    }
    // The services may have been stopped in the middle of something.
    eventually("Serf knows the nodes", 15, || {
        let members = text(&balancer.try_exec(&["serf", "members", "-status=alive"], "").stdout);
        if nodes.iter().all(|node| members.contains(&node.member())) { Ok(()) } else { Err(members) }
    });
    worker
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

fn errors(output: &Output) -> String {
    text(&output.stderr)
}

#[test]
fn an_event_line_by_hand_registers_publishes_and_touches_one_server_only() {
    let (_lab, balancer, nodes) = lab(Look::Hardened, 2);
    let worker = quiet(&balancer, &nodes.iter().collect::<Vec<_>>());

    let joined = balancer.try_exec(&["member-join"], "s9\t127.0.0.1\tbackend\trole=backend,weight=7,port=3999\n");
    assert_eq!(code(&joined), 0, "{}", errors(&joined));
    assert!(joined.stdout.is_empty());
    assert!(balancer.registry().contains("s9 127.0.0.1 port=3999 weight=7"));
    assert!(balancer.file().contains("s9 127.0.0.1"));
    assert!(balancer.process().unwrap().contains("s9 127.0.0.1"));

    let moved = balancer.try_exec(&["member-join"], "s9\t127.0.0.2\tbackend\trole=backend\n");
    assert_eq!(code(&moved), 0, "{}", errors(&moved));
    assert!(balancer.process().unwrap().contains("s9 127.0.0.2"));

    let left = balancer.try_exec(&["member-leave"], "s9\t127.0.0.2\tbackend\t\n");
    assert_eq!(code(&left), 0, "{}", errors(&left));
    balancer.settles_on(&nodes.iter().collect::<Vec<_>>(), 5);
    assert_eq!(balancer.worker(), worker, "no reload was needed");

    let log = balancer.exec(&["cat", "/var/log/serf.log"]);
    for line in ["member-join: registered s9 127.0.0.1 port=3999 weight=7", "member-leave: unregistered s9"] {
        assert!(log.contains(line), "{log}");
    }
}

#[test]
fn bad_lines_are_refused_and_the_good_ones_of_the_event_go_in() {
    let (_lab, balancer, nodes) = lab(Look::Plain, 1);
    let _ = quiet(&balancer, &[&nodes[0]]);
    let input = "../evil\t1.2.3.4\tbackend\t\ns8\t127.0.0.1\tbackend\t\ns7\t1.2.3.4\tbackend\tport=99999\nonly\n";
    let output = balancer.try_exec(&["member-join"], input);
    assert_eq!(code(&output), 65);
    assert_eq!(errors(&output).lines().filter(|line| line.contains("rejected")).count(), 3, "{}", errors(&output));
    assert_eq!(balancer.registry().len(), 2);
    assert!(balancer.process().unwrap().contains("s8 127.0.0.1"));
}

#[test]
fn what_somebody_did_to_the_process_by_hand_is_undone() {
    let (_lab, balancer, nodes) = lab(Look::Hardened, 2);
    let all: Vec<_> = nodes.iter().collect();
    let worker = quiet(&balancer, &all);
    let member = nodes[0].member();
    // The image has no other client for a Unix socket.
    let ask = |command: &str| {
        let perl = "use IO::Socket::UNIX; my $s = IO::Socket::UNIX->new(Peer => '/run/haproxy/admin.sock') or die; print $s \"$ARGV[0]\\n\"; print while <$s>;";
        balancer.exec(&["perl", "-e", perl, command])
    };
    for command in [
        format!("set server nodes/{member} state maint"),
        format!("set server nodes/{member} addr 127.0.0.77 port 3000"),
        format!("set server nodes/{member} weight 3"),
        format!("set server nodes/{member} state maint; del server nodes/{member}"),
        "add server nodes/stranger 127.0.0.5:80; enable server nodes/stranger".to_owned(),
    ] {
        let _ = ask(&command);
        let plan = balancer.exec(&["reload-ha", "--dry-run"]);
        assert!(plan.contains("server nodes/") && !plan.contains("reload"), "{command}: {plan}");
        let _ = balancer.exec(&["reload-ha"]);
        balancer.settles_on(&all, 5);
        assert_eq!(balancer.exec(&["reload-ha", "--dry-run"]), "# nothing to do\n", "{command}");
    }
    assert_eq!(balancer.worker(), worker);
}

#[test]
fn a_changed_template_is_reloaded_and_a_bad_one_changes_nothing() {
    let (_lab, balancer, nodes) = lab(Look::Plain, 2);
    let all: Vec<_> = nodes.iter().collect();
    let worker = quiet(&balancer, &all);
    let root = |script: &str| {
        let arguments = ["exec", "-u", "0", &balancer.name, "sh", "-c", script];
        let _ = e2e::docker::docker(&arguments);
    };
    root(&format!("cp {TEMPLATE} /tmp/good"));

    let good = balancer.exec(&["cat", CONFIG]);
    for (edit, words) in [
        ("s/check inter/chekc inter/", "unknown keyword 'chekc'"),
        ("s/balance roundrobin/balance roundrobbin/", "balance only supports"),
        ("s/{{host}}/{{hots}}/", "hots"),
        ("s/{{host}}/{{host}/", "line 10"),
    ] {
        root(&format!("sed '{edit}' /tmp/good > {TEMPLATE}"));
        let output = balancer.try_exec(&["sync-nodes"], "");
        assert_eq!(code(&output), 1, "{edit}: {}", errors(&output));
        assert_eq!(errors(&output).lines().count(), 1, "{edit}: {}", errors(&output));
        assert!(errors(&output).contains(words), "{edit}: {}", errors(&output));
        assert_eq!(balancer.exec(&["cat", CONFIG]), good, "{edit}");
        assert_eq!(balancer.worker(), worker, "{edit}");
    }

    root(&format!("sed 's/maxconn 100/maxconn 101/' /tmp/good > {TEMPLATE}"));
    assert!(balancer.exec(&["render-cfg", "--diff"]).contains("+    stats maxconn 101"));
    let output = balancer.try_exec(&["sync-nodes"], "");
    assert_eq!(code(&output), 0, "{}", errors(&output));
    assert!(errors(&output).contains("applied=reload reason=\"line 'stats maxconn 101'"), "{}", errors(&output));
    assert_ne!(balancer.worker(), worker);
    balancer.settles_on(&all, 5);
}

#[test]
fn a_reload_by_somebody_else_does_not_fool_the_tools() {
    let (_lab, balancer, nodes) = lab(Look::Plain, 1);
    let worker = quiet(&balancer, &[&nodes[0]]);
    let _ = balancer.exec(&["s6-svc", "-h", "/var/run/s6/services/ha"]);
    let other =
        eventually(
            "HAProxy reloads",
            10,
            || if balancer.worker() == worker { Err(worker.clone()) } else { Ok(balancer.worker()) },
        );
    assert!(balancer.exec(&["reload-ha", "--dry-run"]).contains("it is unknown which configuration"));
    let _ = balancer.exec(&["reload-ha"]);
    assert_ne!(balancer.worker(), other);
    assert_eq!(balancer.exec(&["reload-ha", "--dry-run"]), "# nothing to do\n");
}

#[test]
fn a_file_that_haproxy_refuses_leaves_the_old_worker() {
    let (_lab, balancer, nodes) = lab(Look::Plain, 1);
    let worker = quiet(&balancer, &[&nodes[0]]);
    let _ = balancer.exec(&["sh", "-c", &format!("echo nonsense >> {CONFIG}")]);
    let output = balancer.try_exec(&["reload-ha"], "");
    assert_eq!(code(&output), 1);
    assert!(errors(&output).contains("unknown keyword 'nonsense'"), "{}", errors(&output));
    assert_eq!(balancer.worker(), worker);
    assert_eq!(balancer.get("/", None).unwrap().status, 200);
    // The next publish puts the file right again.
    let _ = balancer.exec(&["sync-nodes"]);
    balancer.settles_on(&[&nodes[0]], 5);
}

#[test]
fn the_lab_s_own_template_works_without_a_reload() {
    let lab = Lab::new(Look::Plain);
    let balancer = lab.balancer("ha");
    let template = "global\n    log stdout format raw local0\n    stats socket ipv4@0.0.0.0:9999 level user\n\ndefaults\n    mode http\n    timeout connect 5s\n    timeout client 50s\n    timeout server 50s\n\nlisten stats\n    bind *:1936\n    stats enable\n    stats uri /\n\nfrontend localnodes\n    bind *:80\n    default_backend nodes\n\nbackend nodes\n    balance roundrobin\n    {{#each addresses}}\n    server {{ host }} {{ ip }}:3000 check\n    {{/each}}\n";
    eventually("port 80 answers", 15, || balancer.get("/", None));
    let write =
        e2e::docker::try_docker(&["exec", "-i", "-u", "0", &balancer.name, "sh", "-c", &format!("cat > {TEMPLATE}")], template);
    assert!(write.status.success());
    let first = lab.node("s1");
    let worker = balancer.settled_worker(&[&first]);
    let second = lab.node("s2");
    balancer.settles_on(&[&first, &second], 10);
    first.stop();
    balancer.settles_on(&[&second], 10);
    assert_eq!(balancer.worker(), worker);
}

#[test]
fn a_haproxy_that_has_just_started_is_not_reloaded_for_a_node() {
    let lab = Lab::new(Look::Plain);
    let balancer = lab.balancer("ha");
    eventually("port 80 answers", 15, || balancer.get("/", None));
    let first = balancer.worker();
    let node = lab.node("s1");
    assert_eq!(balancer.settled_worker(&[&node]), first);

    balancer.kill_service("ha");
    let second = eventually("another HAProxy answers", 15, || {
        let _ = balancer.get("/", None)?;
        let worker = balancer.worker();
        if worker == first { Err(worker) } else { Ok(worker) }
    });
    let other = lab.node("s2");
    assert_eq!(quiet(&balancer, &[&node, &other]), second);
    // That it was not reloaded does not mean that it is not known: a changed template is noticed.
    let plan = |balancer: &Balancer| balancer.exec(&["reload-ha", "--dry-run"]);
    assert!(plan(&balancer).contains("nothing to do"), "{}", plan(&balancer));
    // A handler or a sync that comes between mends the file.
    eventually("the change by hand is noticed", 10, || {
        let _ = balancer.exec(&["sh", "-c", &format!("echo '# by hand\nglobal\n    maxconn 77' >> {CONFIG}")]);
        let plan = plan(&balancer);
        if plan.contains("is new or changed") { Ok(()) } else { Err(plan) }
    });
}

#[test]
fn haproxy_that_does_not_run_is_no_error() {
    let (_lab, balancer, nodes) = lab(Look::Hardened, 1);
    let _ = quiet(&balancer, &[&nodes[0]]);
    let _ = balancer.exec(&["s6-svc", "-d", "-wD", "-T", "5000", "/var/run/s6/services/ha"]);
    let output = balancer.try_exec(&["member-join"], "s9\t127.0.0.9\tbackend\t\n");
    assert_eq!(code(&output), 0, "{}", errors(&output));
    assert!(balancer.file().contains("s9 127.0.0.9"));
    assert!(balancer.exec(&["reload-ha", "--dry-run"]).contains("HAProxy is not running"));
    // It reads the file when it starts. The member list knows no s9, but that alone takes no node out.
    let _ = balancer.exec(&["s6-svc", "-u", "/var/run/s6/services/ha"]);
    eventually("HAProxy answers", 15, || balancer.process().map(drop));
    assert!(balancer.file().contains("s9 127.0.0.9"));
    // Its health check fails as well.
    let _ = balancer.exec(&["s6-svc", "-u", "/var/run/s6/services/sync"]);
    balancer.settles_on(&[&nodes[0]], 15);
}

#[test]
fn render_cfg_by_hand() {
    let (_lab, balancer, nodes) = lab(Look::Plain, 1);
    let _ = quiet(&balancer, &[&nodes[0]]);
    assert_eq!(balancer.exec(&["render-cfg", "--stdout"]), balancer.exec(&["cat", CONFIG]));
    assert_eq!(balancer.exec(&["render-cfg", "--diff"]), "");
    let check = balancer.try_exec(&["render-cfg", "--check"], "");
    assert_eq!((code(&check), errors(&check).as_str()), (0, "render-cfg: the configuration is valid\n"));
    let script = "printf '{{ name }} has {{ ip }}\\n' > /tmp/t.hb && render-cfg --template /tmp/t.hb --set name=s1 --set ip=172.18.0.3 --stdout";
    assert_eq!(balancer.exec(&["sh", "-c", script]), "s1 has 172.18.0.3\n");
}

#[test]
fn what_root_leaves_behind_the_unprivileged_user_can_replace() {
    let (_lab, balancer, nodes) = lab(Look::Plain, 1);
    let _ = quiet(&balancer, &[&nodes[0]]);
    let root = |command: &str| {
        let output = e2e::docker::try_docker(
            &["exec", "-i", "-u", "0", &balancer.name, "sh", "-c", command],
            "s9\t127.0.0.9\tbackend\t\n",
        );
        assert!(output.status.success(), "{command}: {}", text(&output.stderr));
    };
    root("rm -f /var/log/serf.log; umask 077; member-join");
    eventually("root's node is there", 5, || same(&balancer.registry().len(), &2));
    let output = balancer.try_exec(&["member-leave"], "s9\t127.0.0.9\tbackend\t\n");
    assert_eq!((code(&output), errors(&output).contains("log file")), (0, false), "{}", errors(&output));
    balancer.settles_on(&[&nodes[0]], 5);
}

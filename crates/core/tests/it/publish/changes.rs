//! What a publish sends and writes when all goes well.

use std::fs;

use lb_core::node::NodeName;
use lb_core::publish::{self, Applied};
use lb_fixture::certificate;

use super::{ADD_S2, S1, S2, S3, assert_recorded, commands, error, reason};
use crate::scripted::Socket;
use crate::world::World;

#[test]
fn the_first_publish_reloads_and_the_next_gives_commands() {
    let world = World::new();
    fs::write(world.config(), "listen nodes\n    bind 127.0.0.1:8080\n").unwrap();
    let haproxy = world.start();
    world.set_nodes(&[S1]);

    let outcome = world.publish().unwrap();
    assert_eq!(reason(&outcome.applied), "it is unknown which configuration this HAProxy process has read");
    assert!(outcome.written && outcome.servers.added.contains("s1"), "{outcome:?}");
    assert_eq!(haproxy.commands(), ["reload"]);
    haproxy.assert_runs_its_file();
    assert_recorded(&world, &haproxy);

    world.set_nodes(&[S1, S2]);
    let outcome = world.publish().unwrap();
    assert_eq!(commands(&outcome.applied), ADD_S2);
    assert!(outcome.written && outcome.generation == 2, "{outcome:?}");
    assert_eq!(haproxy.commands(), ADD_S2);
    haproxy.assert_runs_its_file();
    assert_recorded(&world, &haproxy);
    let stats = world.stats();
    assert_eq!((stats.reload, stats.run_time, stats.file, stats.failed), (1, 1, 0, 0));
}

#[test]
fn a_change_of_the_registry_is_published_with_it() {
    let (world, haproxy) = World::running(&[S1]);
    let s2 = "s2 172.18.0.3 port=80 weight=7".parse().unwrap();
    let s1: NodeName = "s1".parse().unwrap();
    let outcome = publish::publish(&world.options, &world.lock(), |registry, _| {
        registry.put(&s2)?;
        registry.remove(&s1)?;
        Ok(())
    })
    .unwrap();
    assert_eq!(
        (outcome.servers.added.into_iter().collect(), outcome.servers.removed.into_iter().collect()),
        (vec!["s2".to_owned()], vec!["s1".to_owned()])
    );
    assert!(outcome.servers.waiting.is_empty(), "it had no connection");
    haproxy.assert_runs_its_file();
    assert!(world.text().contains("server s2 172.18.0.3:80 check weight 7\n"));
    assert_recorded(&world, &haproxy);
}

#[test]
fn when_nothing_differs_nothing_is_sent_or_written() {
    let (world, haproxy) = World::running(&[S1, S2]);
    for socket in [Socket::Admin, Socket::Master] {
        if socket == Socket::Master {
            haproxy.close_admin_socket();
        }
        let before = world.snapshot();
        let outcome = world.publish().unwrap();
        assert_eq!((outcome.changed(), outcome.generation, outcome.applied), (false, 0, Applied::Nothing));
        assert_eq!(world.snapshot(), before, "{socket:?}");
        let asked = haproxy.asked();
        let expected: &[&str] = match socket {
            Socket::Admin => &["prompt", "show servers state", "show cli level", "show info"],
            Socket::Master => &["prompt", "show proc", &format!("@!{}", haproxy.worker()), "show servers state"],
        };
        let expected: Vec<_> = expected.iter().map(|line| (socket, (*line).to_owned())).collect();
        assert_eq!(asked, expected);
    }
}

#[test]
fn what_was_not_written_to_the_end_is_cleared_away_when_nothing_differs() {
    let (world, _haproxy) = World::running(&[S1]);
    let left = world.record_path().with_file_name(".new");
    fs::write(&left, "half a reco").unwrap();
    assert!(!world.publish().unwrap().changed());
    assert!(!left.exists());
}

/// Then the worker is looked for through the master, and nothing is reloaded.
#[test]
fn an_admin_socket_that_reaches_another_worker_or_may_change_nothing_is_not_used() {
    let (world, haproxy) = World::running(&[S1]);
    let worker = haproxy.worker();
    let info = |pid: i32, stopping: u8| format!("Name: HAProxy\nPid: {pid}\nStopping: {stopping}\n");
    for (number, (command, answer)) in [
        ("show info", info(worker + 1, 0)),
        ("show info", info(worker, 1)),
        ("show cli level", "operator".to_owned()),
        ("prompt", "Unknown command".to_owned()),
    ]
    .into_iter()
    .enumerate()
    {
        haproxy.answer(command, &answer);
        let nodes = [S1, &format!("x 172.18.0.{number}")];
        world.set_nodes(&nodes[..2]);
        assert!(world.publish().unwrap().changed(), "{answer}");
        let asked = haproxy.asked();
        let is_change = |line: &str| ["add", "del", "set", "enable"].iter().any(|word| line.starts_with(word));
        assert!(asked.iter().all(|(socket, line)| *socket == Socket::Master || !is_change(line)), "{answer}: {asked:?}");
        assert!(asked.iter().any(|(_, line)| is_change(line)) && haproxy.worker() == worker, "{answer}: {asked:?}");
        haproxy.assert_runs_its_file();
    }
}

#[test]
fn a_worker_that_somebody_else_has_reloaded_is_not_known() {
    let (world, haproxy) = World::running(&[S1]);
    haproxy.reload_by_hand();
    let outcome = world.publish().unwrap();
    assert_eq!(reason(&outcome.applied), "it is unknown which configuration this HAProxy process has read");
    assert!(!outcome.written);
    assert_recorded(&world, &haproxy);
    assert_eq!(world.publish().unwrap().applied, Applied::Nothing);
}

#[test]
fn what_somebody_changed_by_hand_is_undone() {
    let (world, haproxy) = World::running(&[S1, S2]);
    let record = world.record();
    haproxy.by_hand(|servers| {
        servers.command("set server nodes/s1 state drain").unwrap();
        servers.command("set server nodes/s1 weight 9").unwrap();
        servers.command("set server nodes/s2 addr 172.18.0.99 port 81").unwrap();
    });
    let outcome = world.publish().unwrap();
    assert_eq!(outcome.servers.changed.into_iter().collect::<Vec<_>>(), ["s1", "s2"]);
    assert!(!outcome.written);
    haproxy.assert_runs_its_file();
    assert_eq!(world.record(), record);
}

#[test]
fn a_busy_server_waits_and_is_deleted_when_it_is_idle() {
    let (world, haproxy) = World::running(&[S1, S2]);
    haproxy.by_hand(|servers| servers.set_busy("nodes/s2", true));
    world.set_nodes(&[S1]);
    let outcome = world.publish().unwrap();
    assert_eq!(commands(&outcome.applied), ["set server nodes/s2 state maint"]);
    assert_eq!(outcome.servers.waiting.into_iter().collect::<Vec<_>>(), ["s2"]);
    assert_eq!(world.leaving(), ["nodes/s2 172.18.0.3:3000 check weight 100"]);

    // It is tried again each time, and nothing is written.
    let before = world.snapshot();
    haproxy.asked();
    let outcome = world.publish().unwrap();
    assert!(!outcome.changed(), "{outcome:?}");
    assert_eq!((haproxy.commands(), world.snapshot()), (vec!["del server nodes/s2".to_owned()], before));

    haproxy.by_hand(|servers| servers.set_busy("nodes/s2", false));
    let outcome = world.publish().unwrap();
    assert_eq!(commands(&outcome.applied), ["del server nodes/s2"]);
    assert_eq!(outcome.servers.finished.into_iter().collect::<Vec<_>>(), ["s2"]);
    assert!(world.leaving().is_empty() && !outcome.written);
    haproxy.assert_runs_its_file();
}

#[test]
fn a_server_that_comes_back_while_it_waits_is_used_again() {
    let (world, haproxy) = World::running(&[S1, S2]);
    haproxy.by_hand(|servers| servers.set_busy("nodes/s2", true));
    world.set_nodes(&[S1]);
    world.publish().unwrap();
    world.set_nodes(&[S1, "s2 172.18.0.9"]);
    let outcome = world.publish().unwrap();
    // It is not made anew: its connections go on.
    assert_eq!(commands(&outcome.applied), ["set server nodes/s2 addr 172.18.0.9 port 3000", "set server nodes/s2 state ready"]);
    assert_eq!(outcome.servers.added.into_iter().collect::<Vec<_>>(), ["s2"]);
    assert!(world.leaving().is_empty());
    haproxy.assert_runs_its_file();
}

/// Two publishes later it is still known how the server was made.
#[test]
fn a_server_that_waits_keeps_its_line_in_the_record() {
    let (world, haproxy) = World::running(&[S1, S2]);
    haproxy.by_hand(|servers| servers.set_busy("nodes/s2", true));
    world.set_nodes(&[S1]);
    world.publish().unwrap();
    world.set_nodes(&[S1, S3]);
    world.publish().unwrap();
    assert_eq!(world.leaving(), ["nodes/s2 172.18.0.3:3000 check weight 100"]);
    world.set_nodes(&[S1, S2, S3]);
    assert_eq!(commands(&world.publish().unwrap().applied), ["set server nodes/s2 state ready"]);
    haproxy.assert_runs_its_file();
}

#[test]
fn a_server_is_made_anew_only_after_a_check() {
    let (world, haproxy) = World::running(&[S1]);
    world.edit_template("check weight", "check inter 1s weight");
    let outcome = world.publish().unwrap();
    let made = "add server nodes/s1 172.18.0.2:3000 check inter 1s weight 100";
    let expected = ["set server nodes/s1 state maint", "del server nodes/s1", made];
    assert_eq!(commands(&outcome.applied)[..3], expected);
    assert!(outcome.times.iter().any(|(step, _)| *step == "check"), "{:?}", outcome.times);
    haproxy.assert_runs_its_file();
    haproxy.asked();

    let before = (world.text(), world.record(), haproxy.servers());
    world.edit_template("check inter", "chekc inter");
    let said = error(world.publish());
    assert!(said.starts_with("HAProxy rejects the configuration: ") && said.contains("chekc"), "{said}");
    assert_eq!((world.text(), world.record(), haproxy.servers()), before);
    assert_eq!(haproxy.commands(), Vec::<String>::new());

    // What only changes servers in their place is not checked.
    world.edit_template("chekc inter", "check inter");
    world.set_nodes(&["s1 172.18.0.2 weight=7", S2]);
    let outcome = world.publish().unwrap();
    assert!(outcome.times.iter().all(|(step, _)| *step != "check"), "{:?}", outcome.times);
}

#[test]
fn a_busy_server_that_must_be_made_anew_needs_a_reload() {
    let (world, haproxy) = World::running(&[S1]);
    haproxy.by_hand(|servers| servers.set_busy("nodes/s1", true));
    world.edit_template("check weight", "check inter 1s weight");
    let outcome = world.publish().unwrap();
    let refused = "HAProxy answered 'Server still has connections attached to it, cannot remove it.' to 'del server nodes/s1'";
    assert_eq!(reason(&outcome.applied), refused);
    haproxy.assert_runs_its_file();
}

#[test]
fn a_certificate_is_loaded_by_a_reload_and_replaced_at_run_time() {
    let (world, haproxy) = World::running(&[S1]);
    world.set_certificate(&certificate(&["shop.example"]).concat());
    let unused = "certificates are not used: the template has no {{certificates}}";
    assert!(world.publish().unwrap().certificate_problems.contains(unused));
    world.use_certificates();
    let outcome = world.publish().unwrap();
    assert_eq!((reason(&outcome.applied), outcome.certificate_problems.len()), ("line 'frontend f' is new or changed", 0));
    haproxy.asked();

    let second = certificate(&["shop.example"]).concat();
    world.set_certificate(&second);
    let outcome = world.publish().unwrap();
    assert!(outcome.changed() && outcome.certificates.contains("shop.pem"), "{outcome:?}");
    let path = world.installed_certificate();
    let commands = [format!("set ssl cert {} <<", path.display()), format!("commit ssl cert {}", path.display())];
    assert_eq!(haproxy.commands(), commands);
    assert_eq!(fs::read_to_string(path).unwrap(), second);
    assert_eq!(world.publish().unwrap().applied, Applied::Nothing);
    assert_eq!(haproxy.commands(), [""; 0]);
    assert_recorded(&world, &haproxy);
}

#[test]
fn without_haproxy_only_the_file_is_written_after_a_check() {
    let world = World::new();
    world.set_nodes(&[S1]);
    let outcome = world.publish().unwrap();
    assert!(outcome.written && outcome.applied == Applied::NotRunning, "{outcome:?}");
    assert!(outcome.times.iter().any(|(step, _)| *step == "check"), "{:?}", outcome.times);
    assert_eq!((world.stats().file, world.record()), (1, None));

    let before = world.snapshot();
    let outcome = world.publish().unwrap();
    assert_eq!((outcome.changed(), outcome.applied), (false, Applied::NotRunning));
    assert_eq!(world.snapshot(), before);

    let old = world.text();
    world.edit_template("mode http", "mode htpt");
    let said = error(world.publish());
    assert!(said.starts_with("HAProxy rejects the configuration: ") && said.contains("htpt"), "{said}");
    assert_eq!(world.text(), old);
}

#[test]
fn files_that_are_skipped_and_claims_that_are_void_are_told() {
    let world = World::new();
    world.set_nodes(&["s1 172.18.0.2 role=shop host=a.example", "s2 172.18.0.3 role=wiki host=a.example"]);
    fs::write(world.options.render.nodes_dir.join("s3"), "s3\n").unwrap();
    let outcome = world.publish().unwrap();
    let skipped: Vec<_> = outcome.skipped_files.iter().map(|(path, _)| path.file_name().unwrap()).collect();
    assert_eq!(skipped, ["s3"]);
    let conflicts: Vec<_> = outcome.conflicts.iter().map(ToString::to_string).collect();
    assert_eq!(conflicts, ["service wiki claims a.example, which shop has"]);
}

#[test]
fn a_haproxy_that_ended_is_not_running() {
    let (world, haproxy) = World::running(&[S1]);
    drop(haproxy);
    world.set_nodes(&[S1, S2]);
    let outcome = world.publish().unwrap();
    assert!(outcome.written && outcome.applied == Applied::NotRunning, "{outcome:?}");
    // The one that starts now may have read either file.
    let haproxy = world.start();
    assert!(matches!(world.publish().unwrap().applied, Applied::Reload(_)));
    assert_recorded(&world, &haproxy);
}

#[test]
fn hundreds_of_servers_are_changed_in_one_publish() {
    let (world, haproxy) = World::running(&[S1]);
    let nodes: Vec<_> = (0..300).map(|number| format!("n{number} 10.0.{}.{}", number / 250, number % 250 + 1)).collect();
    world.set_nodes(&nodes.iter().map(String::as_str).collect::<Vec<_>>());
    let outcome = world.publish().unwrap();
    assert_eq!(commands(&outcome.applied).len(), 902);
    haproxy.assert_runs_its_file();
    // One more would be too many commands; a reload is sooner done.
    world.set_nodes(&[]);
    let outcome = world.publish().unwrap();
    assert_eq!(commands(&outcome.applied).len(), 600);
    haproxy.assert_runs_its_file();
}

//! Only the file, or only the process: what `render-cfg` and `reload-ha` do.

use std::collections::BTreeMap;
use std::fs;

use lb_core::haproxy::last_applied::{ProcessId, RecordedFor};
use lb_core::haproxy::plan::Plan;
use lb_core::publish::{Applied, Outcome, PublishError, apply_file, plan_file, write_file};
use nix::unistd::getppid;

use super::world::{TEMPLATE, World};

const S1: &str = "s1 172.18.0.2";
const S2: &str = "s2 172.18.0.3";

fn write(world: &World) -> Result<Outcome, PublishError> {
    write_file(&world.options, BTreeMap::new(), &world.lock())
}

fn apply(world: &World, force: bool) -> Result<Outcome, PublishError> {
    apply_file(&world.options.process, force, &world.lock())
}

fn plan(world: &World) -> Result<Option<Plan>, PublishError> {
    plan_file(&world.options.process)
}

/// Adds a server to the file, as a person might.
fn add_to_file(world: &World, server: &str) {
    fs::write(world.config(), format!("{}    server {server}\n", world.text())).unwrap();
}

#[test]
fn write_file_leaves_the_process_alone() {
    let (world, haproxy) = World::running(&[S1]);
    let record = world.record();
    world.set_nodes(&[S1, S2]);
    let outcome = write(&world).unwrap();
    assert!(outcome.written && outcome.applied == Applied::Nothing && outcome.generation > 0, "{outcome:?}");
    assert!(world.text().contains(S2));
    assert_eq!((haproxy.asked(), world.record()), (Vec::new(), record));

    let before = world.snapshot();
    assert!(!write(&world).unwrap().changed());
    assert_eq!(world.snapshot(), before);
}

#[test]
fn write_file_checks_before_it_writes() {
    let world = World::new();
    world.set_nodes(&[S1]);
    write(&world).unwrap();
    let old = world.text();
    world.edit_template("mode http", "mode htpt");
    let error = write(&world).unwrap_err().to_string();
    assert!(error.starts_with("HAProxy rejects the configuration: ") && error.contains("htpt"), "{error}");
    assert_eq!(world.text(), old);

    // A node that clashes with a server of the template is excluded.
    world.set_template(&TEMPLATE.replace("    {{#each", "    server s2 172.18.0.99:3000\n    {{#each"));
    world.set_nodes(&[S1, S2]);
    let outcome = write(&world).unwrap();
    assert_eq!(outcome.excluded.keys().map(ToString::to_string).collect::<Vec<_>>(), ["s2"]);
    assert!(world.text().contains(S1) && !world.text().contains(S2));
}

#[test]
fn write_file_fills_in_the_names_that_it_is_given() {
    let world = World::new();
    world.edit_template("127.0.0.1:8080", "127.0.0.1:{{listen}}");
    fs::remove_dir_all(&world.options.render.nodes_dir).unwrap();
    let settings = BTreeMap::from([("listen".to_owned(), "8081".to_owned())]);
    write_file(&world.options, settings, &world.lock()).unwrap();
    assert!(world.text().contains("127.0.0.1:8081\n"));
    assert!(write(&world).is_err(), "without such names the registry must be there");
}

/// Its parent becomes HAProxy, as in the service's run script.
#[test]
fn what_the_first_worker_reads_is_known_from_write_file() {
    let world = World::new();
    world.set_nodes(&[S1]);
    write(&world).unwrap();
    let (reader, record) = world.record().unwrap();
    let master = ProcessId::of_pid(getppid().as_raw()).unwrap();
    assert_eq!((reader, record.text.as_str()), (RecordedFor::Master(master), world.text().as_str()));

    let haproxy = world.start();
    world.set_nodes(&[S1, S2]);
    let outcome = world.publish().unwrap();
    assert!(matches!(outcome.applied, Applied::Commands(_)), "{}", outcome.applied);
    haproxy.assert_runs_its_file();
    let worker = ProcessId::of_pid(haproxy.worker()).unwrap();
    assert_eq!(world.record().unwrap().0, RecordedFor::Worker(worker));
}

/// So that the next tool finds the worker at once, on its own socket.
#[test]
fn a_record_of_the_master_becomes_one_of_the_worker_even_if_nothing_differs() {
    let world = World::new();
    write(&world).unwrap();
    let haproxy = world.start();
    let outcome = world.publish().unwrap();
    assert!(!outcome.changed(), "{outcome:?}");
    let worker = ProcessId::of_pid(haproxy.worker()).unwrap();
    assert_eq!(world.record().unwrap().0, RecordedFor::Worker(worker));
    assert!(haproxy.commands().is_empty());
}

#[test]
fn what_write_file_foretold_does_not_hold_for_another_file_or_a_later_worker() {
    for change in ["by hand", "reload", "publish"] {
        let world = World::new();
        world.set_nodes(&[S1]);
        write(&world).unwrap();
        match change {
            "by hand" => add_to_file(&world, "x 172.18.0.9:3000"),
            "publish" => {
                world.set_nodes(&[S2]);
                assert_eq!(world.publish().unwrap().applied, Applied::NotRunning);
                assert_eq!(world.record(), None, "the master may read either file");
            }
            _ => {}
        }
        let haproxy = world.start();
        if change == "reload" {
            haproxy.reload_by_hand();
        }
        let outcome = world.publish().unwrap();
        assert!(matches!(outcome.applied, Applied::Reload(_)), "{change}: {}", outcome.applied);
        haproxy.assert_runs_its_file();
    }
}

#[test]
fn apply_file_makes_the_process_equal_to_the_file() {
    let (world, haproxy) = World::running(&[S1]);
    add_to_file(&world, "x 172.18.0.9:3000");
    let before = world.text();
    let outcome = apply(&world, false).unwrap();
    let Applied::Commands(commands) = &outcome.applied else { panic!("{}", outcome.applied) };
    assert_eq!(commands[0].to_string(), "add server nodes/x 172.18.0.9:3000");
    assert!(!outcome.written && outcome.generation > 0, "{outcome:?}");
    haproxy.assert_runs_its_file();
    assert_eq!(world.text(), before);
    assert_eq!(world.record().unwrap().1.text, before);

    let before = world.snapshot();
    assert_eq!(apply(&world, false).unwrap().applied, Applied::Nothing);
    assert_eq!(world.snapshot(), before);
}

#[test]
fn apply_file_with_force_reloads_even_if_nothing_differs() {
    let (world, haproxy) = World::running(&[S1]);
    let worker = haproxy.worker();
    let outcome = apply(&world, true).unwrap();
    assert_eq!((outcome.written, outcome.applied), (false, Applied::Reload("forced".to_owned())));
    assert_eq!(haproxy.commands(), ["reload"]);
    assert_ne!(haproxy.worker(), worker);
    assert_eq!(apply(&world, false).unwrap().applied, Applied::Nothing);
}

#[test]
fn apply_file_without_haproxy_does_nothing() {
    let world = World::new();
    assert!(matches!(apply(&world, true), Err(PublishError::Read { .. })));
    write(&world).unwrap();
    let before = world.snapshot();
    let outcome = apply(&world, true).unwrap();
    assert_eq!((outcome.changed(), outcome.applied), (false, Applied::NotRunning));
    assert_eq!(world.snapshot(), before);
}

/// The file is somebody else's: it is not put back, and nothing was changed that would have to be.
#[test]
fn apply_file_whose_reload_fails_leaves_all_as_it_was() {
    let (world, haproxy) = World::running(&[S1]);
    let before = (world.text(), world.record(), haproxy.servers());
    haproxy.answer("reload", "Success=0\n--\n[ALERT]    (9) : config : no\n");
    let error = apply(&world, true).unwrap_err().to_string();
    assert_eq!(error, "HAProxy failed to reload, the old worker keeps running: no");
    assert_eq!((world.text(), world.record(), haproxy.servers()), before);
    assert_eq!(haproxy.commands(), ["reload"]);
}

#[test]
fn plan_file_says_what_apply_file_would_do_and_changes_nothing() {
    let (world, haproxy) = World::running(&[S1]);
    let steps: [&dyn Fn(); 5] = [
        &|| {},
        &|| add_to_file(&world, "x 172.18.0.9:3000"),
        &|| assert!(haproxy.by_hand(|servers| servers.command("set server nodes/s1 weight 9")).is_some()),
        &|| fs::write(world.config(), world.text().replace("roundrobin", "leastconn")).unwrap(),
        &|| haproxy.reload_by_hand(),
    ];
    for (number, step) in steps.into_iter().enumerate() {
        step();
        let before = (world.snapshot(), haproxy.servers());
        haproxy.asked();
        let plan = plan(&world).unwrap().expect("HAProxy runs");
        assert_eq!(haproxy.commands(), Vec::<String>::new(), "{number}");
        assert_eq!((world.snapshot(), haproxy.servers()), before, "{number}");
        let planned = match plan {
            Plan::Reload(reason) => Applied::Reload(reason),
            Plan::Commands(commands) if commands.is_empty() => Applied::Nothing,
            Plan::Commands(commands) => Applied::Commands(commands),
        };
        assert_eq!(apply(&world, false).unwrap().applied, planned, "{number}");
        assert_eq!(matches!(planned, Applied::Reload(_)), number >= 3, "{planned}");
        haproxy.assert_runs_its_file();
    }
}

#[test]
fn plan_file_needs_a_file_and_a_running_haproxy() {
    let world = World::new();
    assert!(matches!(plan(&world), Err(PublishError::Read { path, .. }) if path == world.config()));
    write(&world).unwrap();
    assert_eq!(plan(&world).unwrap(), None);
}

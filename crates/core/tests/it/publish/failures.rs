//! What a publish does when HAProxy refuses, fails or hangs up, or nothing can be written: the last good file and process
//! stay, or the next publish brings them back.

use std::fs;

use lb_core::publish::{Applied, PublishError};
use lb_fixture::certificate;

use super::{ADD_S2, S1, S2, S3, assert_recorded, commands, error, reason};
use crate::scripted::Reply;
use crate::world::{TEMPLATE, World};

#[test]
fn a_refused_command_leads_to_a_reload() {
    for refused in ADD_S2 {
        let (world, haproxy) = World::running(&[S1]);
        haproxy.answer(refused, "Not today.");
        world.set_nodes(&[S1, S2]);
        let outcome = world.publish().unwrap();
        assert_eq!(reason(&outcome.applied), format!("HAProxy answered 'Not today.' to '{refused}'"));
        assert!(outcome.written);
        haproxy.assert_runs_its_file();
        assert_recorded(&world, &haproxy);
        assert_eq!(world.publish().unwrap().applied, Applied::Nothing);
    }
}

#[test]
fn a_refused_command_and_a_failed_reload_lead_back() {
    let (world, haproxy) = World::running(&[S1]);
    let old = world.text();
    haproxy.answer("enable health", "Not today.");
    haproxy.answer("reload", "Success=0\n--\n[ALERT]    (9) : [haproxy.main()] Cannot bind.\n");
    world.set_nodes(&[S1, S2]);
    assert_eq!(error(world.publish()), "HAProxy failed to reload, the old worker keeps running: [haproxy.main()] Cannot bind.");
    assert_eq!(world.text(), old);
    // What was done in part is undone by the old file.
    assert_eq!(haproxy.commands(), [&ADD_S2[..], &["reload", "reload"]].concat());
    haproxy.assert_runs_its_file();
    assert_eq!(world.record(), None);
    assert_eq!(world.stats().failed, 1);

    assert!(matches!(world.publish().unwrap().applied, Applied::Reload(_)));
    haproxy.assert_runs_its_file();
    assert!(world.text().contains("s2"));
}

#[test]
fn a_refused_command_and_a_file_that_haproxy_refuses_lead_back() {
    let (world, haproxy) = World::running(&[]);
    let old = world.text();
    world.edit_template("check", "chekc");
    world.set_nodes(&[S1]);
    let said = error(world.publish());
    assert!(said.starts_with("HAProxy rejects the configuration: ") && said.contains("chekc"), "{said}");
    assert_eq!((world.text(), world.record()), (old, None));
    let add = "add server nodes/s1 172.18.0.2:3000 chekc weight 100";
    assert_eq!(haproxy.commands(), [add, "set server nodes/s1 state ready", "reload"]);
    haproxy.assert_runs_its_file();
}

#[test]
fn a_node_whose_server_is_refused_at_run_time_is_excluded_and_the_others_go_in() {
    let (world, haproxy) = World::running(&[]);
    world.edit_template("check", "check {{#if drain}}chekc 1{{/if}}");
    world.set_nodes(&[S1, "s2 172.18.0.3 drain=yes", S3]);
    let outcome = world.publish().unwrap();
    assert_eq!(outcome.excluded.keys().map(ToString::to_string).collect::<Vec<_>>(), ["s2"]);
    assert!(haproxy.commands().iter().all(|command| command != "reload"));
    haproxy.assert_runs_its_file();
    assert!(world.text().contains(S1) && world.text().contains(S3) && !world.text().contains(S2));
    assert_recorded(&world, &haproxy);
}

#[test]
fn a_failed_reload_puts_the_old_file_back() {
    let (world, haproxy) = World::running(&[S1]);
    let (old, record) = (world.text(), world.record());
    haproxy.answer("reload", "Success=0\n--\n[ALERT]    (9) : config : no file descriptor is left\n");
    world.edit_template("roundrobin", "leastconn");
    let expected = "HAProxy failed to reload, the old worker keeps running: no file descriptor is left";
    assert_eq!(error(world.publish()), expected);
    assert_eq!((world.text(), world.record()), (old, record));
    assert_eq!(haproxy.commands(), ["reload"], "the old worker has not changed");

    let outcome = world.publish().unwrap();
    assert_eq!(reason(&outcome.applied), "line 'balance leastconn' is new or changed");
    assert_recorded(&world, &haproxy);
}

#[test]
fn a_failed_reload_takes_away_a_file_that_was_not_there() {
    let (world, haproxy) = World::running(&[S1]);
    fs::remove_file(world.config()).unwrap();
    world.edit_template("roundrobin", "leastconn");
    haproxy.answer("reload", "Success=0\n--\nno\n");
    error(world.publish());
    assert!(!world.config().exists());
}

#[test]
fn an_answer_to_a_reload_that_is_none_is_an_error() {
    let (world, haproxy) = World::running(&[S1]);
    let old = world.text();
    haproxy.answer("reload", "Loading\n");
    world.edit_template("roundrobin", "leastconn");
    let socket = world.options.process.master_socket.display().to_string();
    assert_eq!(error(world.publish()), format!("HAProxy socket {socket} gave an unexpected answer to 'reload'"));
    assert_eq!(world.text(), old);
}

/// It once counted as the answers of commands that HAProxy had never seen.
#[test]
fn answers_that_break_off_are_an_error_and_the_next_publish_reloads() {
    for reply in [Reply::BreakOff, Reply::HangUp] {
        for command in ADD_S2 {
            let (world, haproxy) = World::running(&[S1]);
            let old = world.text();
            haproxy.reply(command, reply.clone());
            world.set_nodes(&[S1, S2]);
            let result = world.publish();
            assert!(matches!(result, Err(PublishError::Haproxy(_))), "{reply:?} {command}: {result:?}");
            assert_eq!((world.text(), world.record()), (old, None), "{reply:?} {command}");

            let outcome = world.publish().unwrap();
            assert_eq!(reason(&outcome.applied), "it is unknown which configuration this HAProxy process has read");
            haproxy.assert_runs_its_file();
            assert!(world.text().contains(S2));
        }
    }
}

#[test]
fn a_command_without_an_answer_is_given_up_in_time() {
    let (world, haproxy) = World::running(&[S1]);
    let old = world.text();
    haproxy.reply("enable health", Reply::Silence);
    world.set_nodes(&[S1, S2]);
    let said = error(world.publish());
    assert!(said.ends_with(": timed out"), "{said}");
    assert_eq!((world.text(), world.record()), (old, None));
}

#[test]
fn an_admin_socket_that_does_not_answer_costs_only_time() {
    let (world, haproxy) = World::running(&[S1]);
    haproxy.reply("show info", Reply::Silence);
    world.set_nodes(&[S1, S2]);
    assert_eq!(commands(&world.publish().unwrap().applied), ADD_S2);
    haproxy.assert_runs_its_file();
}

#[test]
fn servers_that_cannot_be_read_are_an_error() {
    let (world, haproxy) = World::running(&[S1]);
    let before = world.text();
    haproxy.answer("show servers state", "2\n# another version");
    world.set_nodes(&[S1, S2]);
    let said = error(world.publish());
    assert!(said.ends_with("gave an unexpected answer to 'show servers state'"), "{said}");
    assert_eq!((world.text(), haproxy.commands()), (before, Vec::new()));
}

#[test]
fn a_template_that_is_no_good_changes_nothing() {
    for (template, said) in [
        (TEMPLATE.replace("{{host}}", "{{hots}}"), "unknown name 'hots'"),
        (TEMPLATE.replace("{{/each}}", ""), "missing?"),
        (String::new(), "renders to nothing"),
        (TEMPLATE.replace("roundrobin", "roundrobbin"), "HAProxy rejects the configuration: "),
    ] {
        let (world, haproxy) = World::running(&[S1]);
        let before = (world.text(), world.record(), haproxy.servers());
        world.set_template(&template);
        world.set_nodes(&[S1, S2]);
        let error = error(world.publish());
        assert!(error.contains(said), "{error}");
        assert_eq!((world.text(), world.record(), haproxy.servers()), before);
        assert_eq!(haproxy.commands(), Vec::<String>::new());
        assert_eq!(world.stats().failed, 1);
        // Nothing half-written is left.
        assert_eq!(fs::read_dir(world.config().parent().unwrap()).unwrap().count(), 1);
    }
}

#[test]
fn routes_that_are_no_good_change_nothing() {
    let (mut world, haproxy) = World::running(&[S1]);
    let routes = world.config().with_file_name("routes");
    fs::write(&routes, "shop.example\n").unwrap();
    world.options.render.routes_file = Some(routes);
    world.set_nodes(&[S1, S2]);
    let before = world.text();
    let error = error(world.publish());
    assert!(error.contains("line 1") && error.contains("'shop.example' is not '<host>[/<path>] <role>'"), "{error}");
    assert_eq!((world.text(), haproxy.commands()), (before, Vec::new()));
}

#[test]
fn a_node_that_haproxy_would_refuse_is_excluded_and_the_others_go_in() {
    let (world, haproxy) = World::running(&[S1]);
    // A server of the template's own, named as a node is.
    world.edit_template("    {{#each", "    server s2 172.18.0.99:3000\n    {{#each");
    world.set_nodes(&[S1, S2, S3]);
    for round in 0..2 {
        let outcome = world.publish().unwrap();
        let excluded: Vec<_> = outcome.excluded.iter().map(|(name, words)| (name.as_str(), words.contains("'s2'"))).collect();
        assert_eq!(excluded, [("s2", true)], "{round}: {:?}", outcome.excluded);
        assert_eq!(outcome.changed(), round == 0, "{:?}", outcome.applied);
        haproxy.assert_runs_its_file();
        assert!(world.text().contains(S3) && !world.text().contains(S2), "{}", world.text());
    }
    // The registry has it, so that a mended template takes it in.
    world.set_template(TEMPLATE);
    assert!(world.publish().unwrap().excluded.is_empty());
    assert!(world.text().contains(S2));
}

#[test]
fn a_full_disk_leaves_file_and_process() {
    for template in [TEMPLATE.to_owned(), TEMPLATE.replace("roundrobin", "leastconn")] {
        let (world, haproxy) = World::running(&[S1]);
        let before = (world.text(), world.record(), haproxy.servers());
        world.fill_disk_of(world.config());
        world.set_template(&template);
        world.set_nodes(&[S1, S2]);
        let result = world.publish();
        assert!(matches!(&result, Err(PublishError::Write { path, .. }) if path == world.config()), "{result:?}");
        assert_eq!((world.text(), world.record(), haproxy.servers()), before);
        assert_eq!(haproxy.commands(), Vec::<String>::new());

        world.empty_disk_of(world.config());
        assert!(world.publish().unwrap().written);
        haproxy.assert_runs_its_file();
    }
}

/// The file is the new one by then, so that there is no way back.
#[test]
fn a_full_disk_of_the_record_after_a_refused_command_and_a_reload_needs_no_other_reload() {
    let (world, haproxy) = World::running(&[S1]);
    haproxy.answer("enable health", "Not today.");
    world.fill_disk_of(&world.record_path());
    world.set_nodes(&[S1, S2]);
    error(world.publish());
    assert_eq!(haproxy.commands(), [&ADD_S2[..], &["reload"]].concat());
    haproxy.assert_runs_its_file();
    assert!(world.text().contains(S2));
}

/// The next publish makes anew what it does not know, and all is well again.
#[test]
fn a_full_disk_of_the_record_is_an_error_and_is_mended_by_the_next_publish() {
    for template in [TEMPLATE.to_owned(), TEMPLATE.replace("roundrobin", "leastconn")] {
        let (world, haproxy) = World::running(&[S1]);
        world.fill_disk_of(&world.record_path());
        world.set_template(&template);
        world.set_nodes(&[S1, S2]);
        let result = world.publish();
        assert!(matches!(&result, Err(PublishError::Write { path, .. }) if *path == world.record_path()), "{result:?}");
        haproxy.assert_runs_its_file();

        world.empty_disk_of(&world.record_path());
        assert!(world.publish().unwrap().changed());
        haproxy.assert_runs_its_file();
        assert_recorded(&world, &haproxy);
        assert_eq!(world.publish().unwrap().applied, Applied::Nothing);
    }
}

#[test]
fn a_publish_that_fails_leaves_the_certificates_as_they_were() {
    let (world, haproxy) = World::running(&[S1]);
    world.use_certificates();
    haproxy.answer("reload", "Success=0\n--\n[ALERT]    (9) : [haproxy.main()] Cannot bind.\n");
    world.set_certificate(&certificate(&["shop.example"]).concat());
    assert!(error(world.publish()).ends_with("Cannot bind."));
    assert!(!world.installed_certificate().exists() && !world.text().contains("443"), "{}", world.text());

    let good = certificate(&["shop.example"]).concat();
    world.set_certificate(&good);
    assert!(world.publish().unwrap().certificates.contains("shop.pem"));
    assert_eq!(fs::read_to_string(world.installed_certificate()).unwrap(), good);
    assert!(world.text().contains("443"));
    assert_eq!(world.publish().unwrap().applied, Applied::Nothing);
}

#[test]
fn a_certificate_that_is_refused_at_run_time_leads_to_a_reload() {
    let (world, haproxy) = World::running(&[S1]);
    world.use_certificates();
    world.set_certificate(&certificate(&["shop.example"]).concat());
    world.publish().unwrap();
    haproxy.asked();
    haproxy.answer("commit ssl cert", "Not today.");
    let second = certificate(&["shop.example"]).concat();
    world.set_certificate(&second);
    let outcome = world.publish().unwrap();
    assert_eq!(reason(&outcome.applied), "certificate shop.pem: Not today.");
    let path = world.installed_certificate();
    let commands = ["set", "commit", "abort"].map(|verb| format!("{verb} ssl cert {}", path.display()));
    assert_eq!(haproxy.commands(), [format!("{} <<", commands[0]).as_str(), &commands[1], &commands[2], "reload"]);
    assert_eq!(fs::read_to_string(path).unwrap(), second);
    assert_recorded(&world, &haproxy);
}

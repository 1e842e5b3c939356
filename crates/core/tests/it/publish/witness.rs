//! What a publish can ask HAProxy before it changes the registry.

use lb_core::haproxy::HaproxyError;
use lb_core::node::Node;
use lb_core::publish::{self, PublishError};
use lb_core::registry::witness::{Health, Witness};

use super::{S1, S2};
use crate::scripted::Reply;
use crate::world::World;

/// What HAProxy says about these two.
fn health(witness: &Witness) -> [Option<Health>; 2] {
    [S1, S2].map(|line| witness.health(line.parse::<Node>().unwrap().endpoint("3000".parse().unwrap())))
}

/// Publishes, and tells what HAProxy has said.
fn asked(world: &World) -> Result<Witness, PublishError> {
    let mut witness = None;
    publish::publish(&world.options, &world.lock(), |_, haproxy| {
        witness = Some(haproxy.witness()?);
        Ok(())
    })?;
    Ok(witness.unwrap())
}

#[test]
fn it_is_asked_once_and_its_checks_are_told() {
    let (world, haproxy) = World::running(&[S1, S2]);
    haproxy.by_hand(|servers| servers.set_down("nodes/s2", true));
    let witness = asked(&world).unwrap();
    assert_eq!(health(&witness), [Some(Health::Passes), Some(Health::Fails)]);
    assert!(witness.is_running());
    assert_eq!(haproxy.asked().iter().filter(|(_, line)| line == "show servers state").count(), 1);
}

#[test]
fn about_a_server_of_the_file_that_it_lacks_nothing_is_known() {
    let (world, haproxy) = World::running(&[S1, S2]);
    haproxy.by_hand(|servers| {
        servers.command("set server nodes/s2 state maint").unwrap();
        servers.command("del server nodes/s2").unwrap();
    });
    assert_eq!(health(&asked(&world).unwrap()), [Some(Health::Passes), Some(Health::Pending)]);
}

#[test]
fn one_that_is_not_running_says_nothing() {
    let world = World::new();
    world.set_nodes(&[S1]);
    assert_eq!(asked(&world).unwrap(), Witness::absent());
}

#[test]
fn an_answer_that_is_none_changes_nothing() {
    let (world, haproxy) = World::running(&[S1, S2]);
    haproxy.close_admin_socket();
    for reply in [Reply::Text("Permission denied".to_owned()), Reply::HangUp] {
        let before = world.snapshot();
        haproxy.reply("show servers state", reply);
        let result = publish::publish(&world.options, &world.lock(), |registry, haproxy| {
            haproxy.witness()?;
            registry.remove(&"s1".parse().unwrap())?;
            Ok(())
        });
        assert!(matches!(result, Err(PublishError::Haproxy(HaproxyError::Answer { .. } | HaproxyError::Socket { .. }))));
        let mut after = world.snapshot();
        // A failure is counted.
        after.retain(|path, _| !path.ends_with("run") && !path.ends_with("stats.json"));
        assert!(after.iter().all(|(path, state)| before.get(path) == Some(state)));
    }
}

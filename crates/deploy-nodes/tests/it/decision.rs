//! The decision: examples, and what holds for whatever happens meanwhile.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what the tests share is test code, which the lint cannot know"
)]

use std::collections::BTreeSet;
use std::time::Duration;

use deploy_nodes::decision::{Decider, Node, Policy, Step};
use proptest::collection::vec;
use proptest::prelude::*;

const READY_WITHIN: u64 = 30;
const IDLE: u64 = 5;
const DRAIN: u64 = 20;

fn policy(at_once: usize) -> Policy {
    let [ready_within, idle, drain] = [READY_WITHIN, IDLE, DRAIN].map(Duration::from_secs);
    Policy { at_once, ready_within, idle, drain }
}

/// A container, and how HAProxy has it.
#[derive(Debug, Clone)]
struct Container {
    node: Node,
    image: u8,
    /// Whether its clients send requests, one a second.
    busy: bool,
}

/// Nodes to which everything happens that is decided, one look a second.
struct World {
    decider: Decider,
    image: u8,
    now: u64,
    /// The oldest first.
    containers: Vec<Container>,
    started: usize,
    /// Whether a new node is ready at the next look.
    get_ready: bool,
}

impl World {
    /// One with this many nodes of image 1, in which image 2 is deployed.
    fn new(count: usize, at_once: usize) -> Self {
        let decider = Decider::new(policy(at_once));
        let mut world = Self { decider, image: 1, now: 0, containers: Vec::new(), started: 0, get_ready: true };
        for _ in 0..count {
            world.start(None);
            world.containers.last_mut().unwrap().node.ready = true;
        }
        world.image = 2;
        world
    }

    /// What another run begins with.
    fn run_again(&mut self, at_once: usize, image: u8) {
        self.decider = Decider::new(policy(at_once));
        self.image = image;
    }

    fn start(&mut self, place: Option<&str>) {
        self.started += 1;
        let (id, name) = (format!("id{}", self.started), format!("s{}", self.started));
        let node = Node {
            place: place.unwrap_or(&id).to_owned(),
            id,
            name,
            new: true,
            ready: false,
            state: None,
            draining: false,
            requests: 0,
            total: 0,
        };
        self.containers.push(Container { node, image: self.image, busy: false });
    }

    fn of(&mut self, id: &str) -> &mut Container {
        self.containers.iter_mut().find(|container| container.node.id == id).unwrap()
    }

    fn look(&mut self) -> Step {
        self.now += 1;
        for container in &mut self.containers {
            container.node.new = container.image == self.image;
            container.node.total += u64::from(container.busy);
        }
        let nodes: Vec<Node> = self.containers.iter().map(|container| container.node.clone()).collect();
        let step = self.decider.decide(Duration::from_secs(self.now), &nodes);
        match &step {
            Step::Start(places) => {
                for place in places {
                    self.start(Some(place));
                    let node = &self.containers.last().unwrap().node;
                    self.decider.started(place, &node.id, &node.name);
                }
            }
            Step::Drain(nodes) => nodes.iter().for_each(|node| self.of(&node.id).drain(true)),
            Step::Undrain(nodes) => nodes.iter().for_each(|node| self.of(&node.id).drain(false)),
            Step::Stop(nodes) => {
                self.containers.retain(|container| !nodes.iter().any(|(node, _)| node.id == container.node.id));
            }
            Step::Wait if self.get_ready => {
                self.containers.iter_mut().for_each(|container| container.node.ready = !container.node.draining);
            }
            Step::Wait | Step::Fail { .. } | Step::Done => {}
        }
        step
    }

    /// The next steps that are no waiting, in short.
    fn steps(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| short(&self.next())).collect()
    }

    fn next(&mut self) -> Step {
        for _ in 0..100 {
            let step = self.look();
            if step != Step::Wait {
                return step;
            }
        }
        panic!("it waits for ever: {:?}", self.containers);
    }

    fn names(&self) -> Vec<&str> {
        self.containers.iter().map(|container| container.node.name.as_str()).collect()
    }

    /// All places that there are.
    fn places(&self) -> BTreeSet<String> {
        self.containers.iter().map(|container| container.node.place.clone()).collect()
    }
}

impl Container {
    fn drain(&mut self, drain: bool) {
        (self.node.draining, self.node.ready) = (drain, !drain);
    }
}

fn short(step: &Step) -> String {
    let names = |nodes: &[Node]| nodes.iter().map(|node| node.name.clone()).collect::<Vec<_>>().join(" ");
    match step {
        Step::Start(places) => format!("start {}", places.join(" ")),
        Step::Undrain(nodes) => format!("undrain {}", names(nodes)),
        Step::Drain(nodes) => format!("drain {}", names(nodes)),
        Step::Stop(nodes) => nodes.iter().map(|(node, why)| format!("stop {}: {why}", node.name)).collect::<Vec<_>>().join(", "),
        Step::Fail { name, why, .. } => format!("fail {name}: {why}"),
        Step::Wait => "wait".to_owned(),
        Step::Done => "done".to_owned(),
    }
}

#[test]
fn one_after_the_other_is_replaced_and_each_old_one_drains_first() {
    let mut world = World::new(2, 1);
    let first = ["start id1", "drain s1", "stop s1: no request for 5s"];
    let second = ["start id2", "drain s2", "stop s2: no request for 5s", "done"];
    assert_eq!(world.steps(7), [&first[..], &second].concat());
    assert_eq!(world.names(), ["s3", "s4"]);
}

#[test]
fn blue_green_no_old_one_drains_before_all_new_ones_are_ready() {
    let mut world = World::new(3, 50);
    world.get_ready = false;
    assert_eq!(world.steps(1), ["start id1 id2 id3"]);
    for number in 4..=6 {
        assert_eq!(world.look(), Step::Wait, "with {} of 3 ready", number - 4);
        world.of(&format!("id{number}")).node.ready = true;
    }
    assert_eq!(world.steps(1), ["drain s1 s2 s3"]);
}

#[test]
fn a_node_whose_clients_go_on_is_stopped_after_the_limit_and_others_before() {
    let mut world = World::new(2, 2);
    world.of("id1").busy = true;
    assert_eq!(world.steps(2), ["start id1 id2", "drain s1 s2"]);
    let began = world.now;
    assert_eq!(world.steps(1), ["stop s2: no request for 5s"]);
    assert_eq!(world.steps(2), ["stop s1: still in use after 20s", "done"]);
    assert_eq!(world.now - began - 1, DRAIN);
}

#[test]
fn a_request_in_progress_is_no_idleness() {
    let mut world = World::new(1, 1);
    world.of("id1").node.requests = 1;
    assert_eq!(world.steps(2), ["start id1", "drain s1"]);
    for _ in 0..=IDLE {
        assert_eq!(world.look(), Step::Wait);
    }
    world.of("id1").node.requests = 0;
    assert_eq!(world.steps(1), ["stop s1: no request for 5s"]);
}

#[test]
fn nothing_is_drained_when_a_new_one_does_not_get_ready() {
    let mut world = World::new(2, 2);
    world.get_ready = false;
    assert_eq!(world.steps(1), ["start id1 id2"]);
    world.of("id3").node.ready = true;
    world.of("id4").node.state = Some("DOWN L4CON".to_owned());
    assert_eq!(world.steps(1), ["fail s4: not ready after 30s (HAProxy: DOWN L4CON)"]);
    assert!(world.containers.iter().all(|container| !container.node.draining));
}

#[test]
fn a_new_one_that_ends_is_not_started_again() {
    let mut world = World::new(2, 1);
    assert_eq!(world.steps(1), ["start id1"]);
    assert_eq!(world.containers.pop().unwrap().node.name, "s3");
    assert_eq!(world.steps(1), ["fail s3: its container has ended"]);
}

#[test]
fn a_new_one_of_an_image_that_has_just_been_replaced_is_no_new_one() {
    let mut world = World::new(1, 1);
    assert_eq!(world.steps(1), ["start id1"]);
    world.of("id2").image = 3;
    assert_eq!(world.steps(1), ["fail s2: it has another image than this run began with"]);
}

#[test]
fn an_old_one_goes_on_while_its_new_one_is_not_ready_any_more() {
    let mut world = World::new(1, 1);
    assert_eq!(world.steps(2), ["start id1", "drain s1"]);
    world.get_ready = false;
    world.of("id2").node.ready = false;
    for _ in 0..READY_WITHIN {
        assert_eq!(world.look(), Step::Wait, "not stopped, although it is idle");
    }
    assert_eq!(world.steps(1), ["fail s2: not ready after 30s (HAProxy: not a server)"]);
}

#[test]
fn with_the_old_one_gone_a_new_one_must_get_ready_all_the_same() {
    let mut world = World::new(1, 1);
    world.get_ready = false;
    assert_eq!(world.steps(1), ["start id1"]);
    world.containers.remove(0);
    assert_eq!(world.steps(1), ["fail s2: not ready after 30s (HAProxy: not a server)"]);
}

#[test]
fn an_interrupted_run_is_continued_where_it_was() {
    let mut world = World::new(3, 1);
    assert_eq!(world.steps(5), ["start id1", "drain s1", "stop s1: no request for 5s", "start id2", "drain s2"]);
    world.run_again(1, 2);
    assert_eq!(world.steps(2), ["drain s2", "stop s2: no request for 5s"]);
    assert_eq!(world.steps(4), ["start id3", "drain s3", "stop s3: no request for 5s", "done"]);
}

#[test]
fn back_to_the_old_image_halfway_the_nodes_that_have_it_stay_and_get_sessions_again() {
    let mut world = World::new(2, 2);
    assert_eq!(world.steps(2), ["start id1 id2", "drain s1 s2"]);
    world.run_again(2, 1);
    assert_eq!(
        world.steps(4),
        ["undrain s1 s2", "drain s3 s4", "stop s3: no request for 5s, stop s4: no request for 5s", "done"]
    );
    assert_eq!(world.names(), ["s1", "s2"]);
}

#[test]
fn a_third_image_halfway_replaces_both_in_one_place() {
    let mut world = World::new(1, 1);
    assert_eq!(world.steps(2), ["start id1", "drain s1"]);
    world.run_again(1, 3);
    assert_eq!(world.steps(3), ["start id1", "drain s1 s2", "stop s1: no request for 5s, stop s2: no request for 5s"]);
    assert_eq!(world.names(), ["s3"]);
}

#[test]
fn with_the_image_everywhere_nothing_is_done() {
    let mut world = World::new(2, 1);
    world.run_again(1, 1);
    assert_eq!(world.look(), Step::Done);
}

proptest! {
    /// Clients that come and go, new nodes that fail a check, and runs that are interrupted and continued, with this image or
    /// another one.
    #[test]
    fn whatever_happens_every_place_has_a_node_that_serves_and_in_the_end_one_new_one(
        count in 1_usize..6,
        at_once in 1_usize..7,
        events in vec((0_u8..20, 0_usize..12), 0..200),
    ) {
        let mut world = World::new(count, at_once);
        let places = world.places();
        for (event, number) in events {
            let index = number % world.containers.len();
            let container = &mut world.containers[index];
            match event {
                0..3 => container.busy = !container.busy,
                3..5 => container.node.ready = false,
                5 => world.run_again(at_once, world.image),
                6 => world.run_again(at_once, 1 + u8::try_from(number % 3).unwrap()),
                _ => {}
            }
            let (before, image) = (world.containers.clone(), world.image);
            let serves = |place: &str| before.iter().any(|one| one.image == image && one.node.ready && one.node.place == place);
            match world.look() {
                Step::Start(places) => {
                    prop_assert!(places.len() <= at_once);
                    prop_assert!(!before.iter().any(|one| one.image == image && places.contains(&one.node.place)));
                }
                Step::Drain(nodes) => prop_assert!(nodes.iter().all(|node| !node.new && serves(&node.place))),
                Step::Stop(nodes) => prop_assert!(nodes.iter().all(|(node, _)| !node.new && serves(&node.place))),
                step => prop_assert!(!matches!(step, Step::Fail { .. }), "{step:?}"),
            }
            prop_assert_eq!(&world.places(), &places);
        }
        while world.look() != Step::Done {
            prop_assert!(world.now < 10_000, "never done: {:?}", world.containers);
        }
        prop_assert_eq!(world.containers.len(), count);
        prop_assert_eq!(&world.places(), &places);
        prop_assert!(world.containers.iter().all(|one| one.image == world.image && !one.node.draining));
    }
}

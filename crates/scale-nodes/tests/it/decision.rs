//! The decision: examples, and what holds for any load.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what the tests share is test code, which the lint cannot know"
)]

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use scale_nodes::decision::{Decider, Decision, Figures, Node, Policy, Reason};

const COOL_DOWN: u64 = 10;
const READY_WITHIN: u64 = 30;

fn policy(min: usize, max: usize) -> Policy {
    let [cool_down, ready_within] = [COOL_DOWN, READY_WITHIN].map(Duration::from_secs);
    Policy { min, max, up: 10.0, down: 5.0, looks: 3, cool_down, ready_within }
}

fn node(number: usize, ours: bool) -> Node {
    Node { id: format!("id{number}"), name: format!("s{number}"), ours, ready: true }
}

/// A world in which everything that is decided happens, one look a second.
struct World {
    decider: Decider,
    now: u64,
    /// The newest first, as Docker lists them.
    nodes: Vec<Node>,
    started: usize,
}

impl World {
    /// One with two nodes that are not ours.
    fn new(policy: Policy) -> Self {
        Self { decider: Decider::new(policy), now: 0, nodes: vec![node(2, false), node(1, false)], started: 2 }
    }

    fn look(&mut self, requests: u32) -> Decision {
        self.now += 1;
        let figures = Figures { nodes: self.nodes.clone(), requests };
        let decision = self.decider.decide(Duration::from_secs(self.now), &figures);
        match &decision {
            Decision::Start(count, _) => {
                for _ in 0..*count {
                    self.started += 1;
                    self.nodes.insert(0, node(self.started, true));
                }
            }
            Decision::Stop(node, _) => self.nodes.retain(|other| other.id != node.id),
            Decision::Nothing(..) => {}
        }
        decision
    }

    /// Looks for this many seconds; how many nodes there were after each.
    fn looks(&mut self, seconds: u64, requests: u32) -> Vec<usize> {
        let mut look = || {
            let _ = self.look(requests);
            self.nodes.len()
        };
        (0..seconds).map(|_| look()).collect()
    }

    /// The next decision that is not only a matter of time.
    fn next(&mut self, requests: u32) -> Decision {
        loop {
            let decision = self.look(requests);
            if !matches!(decision, Decision::Nothing(Reason::CoolDown | Reason::TooFewLooks, _)) {
                return decision;
            }
        }
    }
}

fn reason(decision: Decision) -> Reason {
    match decision {
        Decision::Nothing(reason, _) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn as_many_nodes_are_started_as_the_load_needs_and_says_why() {
    let mut world = World::new(policy(2, 8));
    let why = "25.0 requests in progress on each of 2 nodes, more than --up 10";
    assert_eq!(world.next(50), Decision::Start(3, why.to_owned()));
    assert_eq!(reason(world.next(50)), Reason::Fits);
}

#[test]
fn never_more_than_max() {
    let mut world = World::new(policy(2, 4));
    assert!(matches!(world.next(1_000_000), Decision::Start(2, _)));
    assert_eq!(reason(world.next(1_000_000)), Reason::AtMax);
}

#[test]
fn the_newest_of_ours_is_stopped_one_at_a_time_and_others_never() {
    let mut world = World::new(policy(1, 8));
    let _ = world.next(40);
    for name in ["s4", "s3"] {
        let Decision::Stop(node, why) = world.next(0) else { panic!("{name}") };
        assert_eq!(node.name, name);
        assert!(why.ends_with("fewer than --down 5 for one node less"), "{why}");
    }
    assert_eq!(reason(world.next(0)), Reason::NotOurs);
    assert_eq!(world.nodes.len(), 2);
}

#[test]
fn a_load_between_down_and_up_changes_nothing() {
    let mut world = World::new(policy(1, 8));
    assert_eq!(reason(world.next(20)), Reason::Fits, "just 10 each");
    world.nodes.push(node(9, true));
    world.looks(2, 10);
    assert_eq!(reason(world.next(10)), Reason::Fits, "one less would have 5 each");
    assert!(matches!(world.next(8), Decision::Stop(..)));
}

#[test]
fn a_peak_within_the_looks_that_are_averaged_starts_nothing() {
    let mut world = World::new(policy(2, 8));
    for requests in [12, 12, 30, 12, 12, 12, 30, 12, 12] {
        assert!(matches!(world.look(requests), Decision::Nothing(..)), "{requests}");
    }
}

#[test]
fn too_few_containers_are_made_up_for_whatever_the_load() {
    let mut world = World::new(policy(4, 8));
    assert!(matches!(world.look(0), Decision::Start(2, _)), "at the first look");
    world.nodes.remove(0);
    assert!(matches!(world.next(0), Decision::Start(1, _)));
}

#[test]
fn containers_above_max_are_stopped_if_they_are_ours() {
    let mut world = World::new(policy(1, 1));
    assert_eq!(reason(world.next(0)), Reason::NotOurs);
    let mut world = World::new(policy(1, 2));
    world.nodes.insert(0, node(3, true));
    assert!(matches!(world.look(1000), Decision::Stop(node, _) if node.name == "s3"));
}

#[test]
fn a_node_of_ours_that_does_not_get_ready_is_stopped_and_nothing_is_started_meanwhile() {
    let mut world = World::new(policy(2, 8));
    let _ = world.next(30);
    world.nodes[0].ready = false;
    let decision = world.next(1000);
    assert_eq!(decision, Decision::Nothing(Reason::NotReady, "2 of 3 nodes are ready".to_owned()));
    let begin = world.now;
    loop {
        match world.look(1000) {
            Decision::Stop(node, why) => {
                assert_eq!((node.name.as_str(), why.as_str()), ("s3", "not ready for 30s"));
                break;
            }
            decision => assert!(matches!(decision, Decision::Nothing(..)), "{decision:?}"),
        }
        assert!(world.now < begin + READY_WITHIN, "it is kept for ever");
    }
}

#[test]
fn somebody_else_s_node_that_is_not_ready_is_left_alone_and_made_up_for() {
    let mut world = World::new(policy(2, 4));
    world.nodes[0].ready = false;
    let why = "30.0 requests in progress on each of 1 nodes, more than --up 10";
    assert_eq!(world.next(30), Decision::Start(2, why.to_owned()));
    assert_eq!(reason(world.next(30)), Reason::Fits);
    world.looks(3, 1000);
    assert_eq!(reason(world.next(1000)), Reason::AtMax, "it counts for --max");
}

#[test]
fn without_a_ready_node_there_is_nothing_to_measure() {
    let mut world = World::new(policy(2, 8));
    world.nodes.iter_mut().for_each(|node| node.ready = false);
    assert_eq!(reason(world.next(1000)), Reason::NotReady);
}

proptest! {
    /// Any load, and any node that comes, goes, or is not ready.
    #[test]
    fn bounds_pauses_and_ownership_hold(
        (min, max) in (1_usize..6).prop_flat_map(|min| (Just(min), min..10)),
        steps in vec((0_u32..200, 0_u8..20), 1..300),
    ) {
        let mut world = World::new(policy(min, max));
        let mut acted = None;
        for (number, (requests, event)) in steps.into_iter().enumerate() {
            match event {
                0 => world.nodes.insert(0, node(1000 + number, false)),
                1 => drop(world.nodes.pop()),
                2 => world.nodes.iter_mut().take(1).for_each(|node| node.ready = !node.ready),
                _ => {}
            }
            let before = world.nodes.clone();
            let decision = world.look(requests);
            match &decision {
                Decision::Start(count, _) => {
                    prop_assert!(*count > 0 && before.len() + count <= max, "{count} more than {}", before.len());
                }
                Decision::Stop(node, _) => {
                    prop_assert!(node.ours && before.contains(node));
                    prop_assert!(before.len() > min || !node.ready, "{} nodes", before.len());
                }
                Decision::Nothing(..) => continue,
            }
            prop_assert!(acted.is_none_or(|acted| world.now >= acted + COOL_DOWN), "{decision:?} too soon");
            acted = Some(world.now);
        }
    }

    /// From anywhere, a load that stays comes to an end, within the thresholds where the bounds allow it.
    #[test]
    fn a_steady_load_settles(first in 0_u32..300, load in 0_u32..300) {
        let mut world = World::new(policy(2, 8));
        world.looks(60, first);
        let counts = world.looks(300, load);
        let settled = &counts[200..];
        prop_assert!(settled.iter().all(|count| *count == settled[0]), "{settled:?}");
        let (count, load) = (settled[0], f64::from(load));
        let each = |count: usize| load / f64::from(u32::try_from(count).unwrap());
        prop_assert!(count == 8 || each(count) <= 10.0, "{count} for {load}");
        prop_assert!(count == 2 || each(count - 1) >= 5.0, "{count} for {load}");
    }
}

//! What to do next, decided from the running nodes and from time alone.
//!
//! Every node has a place, which it shares with those that it replaces. So the next step follows from what is running, also
//! after an interrupted run: a place with an old node needs a new one; once that is ready, the old one drains and is stopped.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How nodes are replaced.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Number of places to work on at a time; the next ones begin when these are done.
    pub at_once: usize,
    /// Time that a new node has to become ready.
    pub ready_within: Duration,
    /// The sessions of a draining node count as over when it has had no request for this long.
    pub idle: Duration,
    /// A draining node is stopped after this time at the latest.
    pub drain: Duration,
}

/// A running node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Identifier of its container.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its place.
    pub place: String,
    /// Whether it runs the image that is being deployed.
    pub new: bool,
    /// Whether it gets new sessions, and its last health check has passed.
    pub ready: bool,
    /// HAProxy's own words for its state; `None` if HAProxy does not know it.
    pub state: Option<String>,
    /// Whether it gets no new sessions.
    pub draining: bool,
    /// Requests in progress.
    pub requests: u32,
    /// A number that changes with each request.
    pub total: u64,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Start a new node in each of these places; report each to [`Decider::started`].
    Start(Vec<String>),
    /// Give new sessions to these new nodes.
    Undrain(Vec<Node>),
    /// Give no more new sessions to these old nodes.
    Drain(Vec<Node>),
    /// Stop these old nodes, each for a reason.
    Stop(Vec<(Node, String)>),
    /// Look again in a moment.
    Wait,
    /// Give up because of a new node.
    Fail {
        /// Identifier of its container.
        id: String,
        /// Its name.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// Every node is new.
    Done,
}

/// A draining node.
#[derive(Debug)]
struct Draining {
    since: Duration,
    total: u64,
    idle_since: Duration,
}

/// Decides after each look.
#[derive(Debug)]
pub struct Decider {
    policy: Policy,
    /// The places that are worked on.
    batch: BTreeSet<String>,
    /// Nodes started in this run, by place: identifier and name.
    started: BTreeMap<String, (String, String)>,
    /// Since when each new node of the batch has not been ready, by identifier.
    unready: BTreeMap<String, Duration>,
    /// By identifier.
    draining: BTreeMap<String, Draining>,
    /// Identifiers of new nodes that were told to get new sessions.
    undrained: BTreeSet<String>,
}

impl Decider {
    /// The initial state: nothing seen, nothing done.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            batch: BTreeSet::new(),
            started: BTreeMap::new(),
            unready: BTreeMap::new(),
            draining: BTreeMap::new(),
            undrained: BTreeSet::new(),
        }
    }

    /// Notes that a new node was started in a place.
    pub fn started(&mut self, place: &str, id: &str, name: &str) {
        self.started.insert(place.to_owned(), (id.to_owned(), name.to_owned()));
    }

    /// What to do after a look at `now`, which must not go backwards. The step is assumed to be carried out. Places are taken
    /// in the order of the nodes.
    pub fn decide(&mut self, now: Duration, nodes: &[Node]) -> Step {
        self.choose(nodes);
        self.note(now, nodes);
        if self.batch.is_empty() {
            return Step::Done;
        }
        let (new, old): (Vec<&Node>, Vec<&Node>) =
            nodes.iter().filter(|node| self.batch.contains(&node.place)).partition(|node| node.new);
        if let Some(step) = self.start(&new, &old) {
            return step;
        }
        if let Some(node) = new.iter().find(|node| self.is_late(now, node)) {
            let state = node.state.as_deref().unwrap_or("not a server");
            let why = format!("not ready after {:?} (HAProxy: {state})", self.policy.ready_within);
            return Step::Fail { id: node.id.clone(), name: node.name.clone(), why };
        }
        let undrain = |node: &&&Node| node.draining && !self.undrained.contains(&node.id);
        let undrain: Vec<Node> = new.iter().filter(undrain).copied().cloned().collect();
        if !undrain.is_empty() {
            self.undrained.extend(undrain.iter().map(|node| node.id.clone()));
            return Step::Undrain(undrain);
        }
        if !self.unready.is_empty() {
            return Step::Wait;
        }
        self.retire(now, &old)
    }

    /// Goes on to the next places once those of the batch have no old node any more, and their new ones are ready. Those that an
    /// earlier run has begun with come first.
    fn choose(&mut self, nodes: &[Node]) {
        let places = |new: bool| nodes.iter().filter(move |node| node.new == new).map(|node| node.place.as_str());
        let (begun, old): (BTreeSet<&str>, BTreeSet<&str>) = (places(true).collect(), places(false).collect());
        let is_ready = |place: &String| {
            let has_ended = |(id, _): &(String, String)| !nodes.iter().any(|node| node.id == *id);
            let unready = nodes.iter().any(|node| node.new && !node.ready && node.place == *place);
            !unready && !self.started.get(place).is_some_and(has_ended)
        };
        self.batch.retain(|place| old.contains(place.as_str()) || !is_ready(place));
        if self.batch.is_empty() {
            let next = |is_begun: bool| places(false).filter(move |place| begun.contains(place) == is_begun);
            let mut chosen = BTreeSet::new();
            for place in next.clone()(true).chain(next(false)) {
                if chosen.len() < self.policy.at_once {
                    chosen.insert(place.to_owned());
                }
            }
            self.batch = chosen;
        }
    }

    fn note(&mut self, now: Duration, nodes: &[Node]) {
        let unready = nodes.iter().filter(|node| node.new && !node.ready && self.batch.contains(&node.place));
        self.unready = unready.map(|node| (node.id.clone(), self.unready.get(&node.id).copied().unwrap_or(now))).collect();
        for node in nodes {
            if let Some(draining) = self.draining.get_mut(&node.id) {
                if node.requests > 0 || node.total != draining.total {
                    (draining.total, draining.idle_since) = (node.total, now);
                }
            }
        }
    }

    /// The places of the batch without a new node, unless one was started there already.
    fn start(&self, new: &[&Node], old: &[&Node]) -> Option<Step> {
        for (id, name) in self.batch.iter().filter_map(|place| self.started.get(place)) {
            let is_in = |nodes: &[&Node]| nodes.iter().any(|node| node.id == *id);
            if !is_in(new) {
                let why = if is_in(old) { "it has another image than this run began with" } else { "its container has ended" };
                return Some(Step::Fail { id: id.clone(), name: name.clone(), why: why.to_owned() });
            }
        }
        let mut missing: Vec<String> = Vec::new();
        for place in old.iter().map(|node| &node.place) {
            if !missing.contains(place) && !new.iter().any(|node| node.place == *place) {
                missing.push(place.clone());
            }
        }
        (!missing.is_empty()).then_some(Step::Start(missing))
    }

    fn is_late(&self, now: Duration, node: &Node) -> bool {
        self.unready.get(&node.id).is_some_and(|since| now - *since >= self.policy.ready_within)
    }

    /// With all new nodes of the batch ready: drains its old ones, and stops those whose sessions are over.
    fn retire(&mut self, now: Duration, old: &[&Node]) -> Step {
        let drain: Vec<Node> = old.iter().filter(|node| !self.draining.contains_key(&node.id)).copied().cloned().collect();
        if !drain.is_empty() {
            let begun = |node: &Node| (node.id.clone(), Draining { since: now, total: node.total, idle_since: now });
            self.draining.extend(drain.iter().map(begun));
            return Step::Drain(drain);
        }
        let stop: Vec<_> = old.iter().filter_map(|node| Some(((*node).clone(), self.over(now, &node.id)?))).collect();
        if stop.is_empty() { Step::Wait } else { Step::Stop(stop) }
    }

    /// Why a draining node can be stopped, if it can.
    fn over(&self, now: Duration, id: &str) -> Option<String> {
        let (draining, Policy { idle, drain, .. }) = (self.draining.get(id)?, &self.policy);
        if now - draining.idle_since >= *idle {
            Some(format!("no request for {idle:?}"))
        } else if now - draining.since >= *drain {
            Some(format!("still in use after {drain:?}"))
        } else {
            None
        }
    }
}

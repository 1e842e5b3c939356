//! What to do, decided from figures and time alone.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// When nodes are started and stopped.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Never fewer containers than this.
    pub min: usize,
    /// Never more containers than this.
    pub max: usize,
    /// With more requests in progress per node than this, more nodes are needed.
    pub up: f64,
    /// If, with one node fewer, each would still have fewer requests than this, there is one node too many. Must be below
    /// `up`: the gap keeps a steady load from starting and stopping nodes in turn.
    pub down: f64,
    /// Number of measurements that the load is averaged over.
    pub looks: usize,
    /// Minimum time between two actions.
    pub cool_down: Duration,
    /// Time that a node started by this tool has to become ready.
    pub ready_within: Duration,
}

/// A container with a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its identifier.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Whether it was started by this tool, which may therefore stop it.
    pub ours: bool,
    /// Whether the balancer sends it requests.
    pub ready: bool,
}

/// One measurement.
#[derive(Debug, Clone)]
pub struct Figures {
    /// The containers, newest first.
    pub nodes: Vec<Node>,
    /// Requests in progress on all nodes together.
    pub requests: u32,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Start this many nodes.
    Start(usize, String),
    /// Stop this one.
    Stop(Node, String),
    /// Do nothing, for this kind of reason.
    Nothing(Reason, String),
}

/// Why nothing is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The last action was too recent.
    CoolDown,
    /// No node is ready, or one started by this tool is not.
    NotReady,
    /// Not enough measurements yet.
    TooFewLooks,
    /// The load fits the nodes.
    Fits,
    /// The maximum number of nodes is reached.
    AtMax,
    /// The minimum number of nodes is reached.
    AtMin,
    /// No surplus node was started by this tool.
    NotOurs,
}

/// Decides after each measurement.
#[derive(Debug)]
pub struct Decider {
    policy: Policy,
    looks: VecDeque<u32>,
    acted: Option<Duration>,
    /// Since when each node started by this tool has not been ready, by identifier.
    unready: BTreeMap<String, Duration>,
}

impl Decider {
    /// The initial state: nothing measured, nothing done.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self { policy, looks: VecDeque::new(), acted: None, unready: BTreeMap::new() }
    }

    /// What to do after a measurement at `now`, which must not go backwards. The decision is assumed to be carried out.
    pub fn decide(&mut self, now: Duration, figures: &Figures) -> Decision {
        self.note(now, figures);
        let decision = match self.acted {
            Some(acted) if now < acted + self.policy.cool_down => {
                Decision::Nothing(Reason::CoolDown, format!("{:?} to cool down are not over", self.policy.cool_down))
            }
            _ => self.count_is_wrong(now, figures).unwrap_or_else(|| self.load_is_wrong(figures)),
        };
        if !matches!(decision, Decision::Nothing(..)) {
            self.acted = Some(now);
            // Earlier measurements were for a different number of nodes.
            self.looks.clear();
        }
        decision
    }

    fn note(&mut self, now: Duration, figures: &Figures) {
        self.looks.push_back(figures.requests);
        if self.looks.len() > self.policy.looks {
            self.looks.pop_front();
        }
        let unready = figures.nodes.iter().filter(|node| node.ours && !node.ready);
        self.unready = unready.map(|node| (node.id.clone(), self.unready.get(&node.id).copied().unwrap_or(now))).collect();
    }

    /// Decisions that do not depend on the load: too few or too many containers, or one that does not become ready.
    fn count_is_wrong(&self, now: Duration, figures: &Figures) -> Option<Decision> {
        let (count, Policy { min, max, ready_within, .. }) = (figures.nodes.len(), &self.policy);
        if count < *min {
            return Some(Decision::Start(min - count, format!("{count} nodes are fewer than --min {min}")));
        }
        let late = |node: &&Node| self.unready.get(&node.id).is_some_and(|since| now - *since >= *ready_within);
        if let Some(node) = figures.nodes.iter().find(late) {
            return Some(Decision::Stop(node.clone(), format!("not ready for {ready_within:?}")));
        }
        let why = format!("{count} nodes are more than --max {max}");
        (count > *max).then(|| stop_ours(figures, why))
    }

    fn load_is_wrong(&self, figures: &Figures) -> Decision {
        let Policy { min, max, up, down, looks, .. } = &self.policy;
        let count = figures.nodes.len();
        // Do not count or wait for unready nodes that others started.
        let ready = figures.nodes.iter().filter(|node| node.ready).count();
        if ready == 0 || !self.unready.is_empty() {
            return Decision::Nothing(Reason::NotReady, format!("{ready} of {count} nodes are ready"));
        }
        if self.looks.len() < *looks {
            return Decision::Nothing(Reason::TooFewLooks, format!("fewer than {looks} looks at {ready} nodes so far"));
        }
        let load = average(&self.looks);
        let each = format!("{:.1} requests in progress on each of {ready} nodes", load / number(ready));
        if load > up * number(ready) {
            let more = (1..max.saturating_sub(count)).find(|more| load <= up * number(ready + more));
            return match more.unwrap_or(max.saturating_sub(count)) {
                0 => Decision::Nothing(Reason::AtMax, format!("{each}, more than --up {up}, but --max {max} is reached")),
                more => Decision::Start(more, format!("{each}, more than --up {up}")),
            };
        }
        if load < down * number(ready - 1) {
            let why = format!("{each}, fewer than --down {down} for one node less");
            return match count > *min {
                true => stop_ours(figures, why),
                false => Decision::Nothing(Reason::AtMin, format!("{why}, but --min {min} is reached")),
            };
        }
        Decision::Nothing(Reason::Fits, each)
    }
}

/// Stops the newest node started by this tool, never one started by others.
fn stop_ours(figures: &Figures, why: String) -> Decision {
    match figures.nodes.iter().find(|node| node.ours) {
        Some(node) => Decision::Stop(node.clone(), why),
        None => Decision::Nothing(Reason::NotOurs, format!("{why}, but none was started by this tool")),
    }
}

fn average(looks: &VecDeque<u32>) -> f64 {
    looks.iter().copied().map(f64::from).sum::<f64>() / number(looks.len())
}

#[expect(clippy::cast_precision_loss, reason = "a few nodes")]
fn number(count: usize) -> f64 {
    count as f64
}

//! Whatever happens, the four states become equal: random steps on real containers.
//!
//! `CONVERGENCE_STEPS` (105) sets how many steps, `CONVERGENCE_SEED` repeats a run.

use std::collections::BTreeSet;
use std::env;

use e2e::docker::docker;
use e2e::wait::same;
use e2e::{Balancer, Container, Lab, Look, eventually};
use fastrand::Rng;

/// Labs that are driven side by side: most of the time is spent waiting.
const LABS: u64 = 3;
/// Maximum number of nodes of a lab.
const MAX_NODES: usize = 6;

fn setting(name: &str, default: u64) -> u64 {
    env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn random_steps_always_end_with_four_equal_states() {
    let seed = setting("CONVERGENCE_SEED", Rng::new().u64(..));
    let steps = setting("CONVERGENCE_STEPS", 105).div_ceil(LABS);
    println!("CONVERGENCE_SEED={seed}, {LABS} labs with {steps} steps each");
    std::thread::scope(|scope| {
        for number in 0..LABS {
            let name = format!("lab {number} of CONVERGENCE_SEED={seed}");
            let look = if number == 0 { Look::Plain } else { Look::Hardened };
            std::thread::Builder::new()
                .name(name)
                .spawn_scoped(scope, move || Driver::new(seed.wrapping_add(number), look).drive(steps))
                .unwrap();
        }
    });
}

struct Driver {
    random: Rng,
    balancer: Balancer,
    running: Vec<Container>,
    stopped: Vec<Container>,
    /// Until the next check.
    paused: Vec<Container>,
    // Dropped after the containers, whose logs tell what went wrong.
    lab: Lab,
    started: usize,
    /// What was done since the last check.
    done: Vec<String>,
    /// Whether an agent could not be heard since then.
    is_unheard: bool,
}

impl Driver {
    fn new(seed: u64, look: Look) -> Self {
        let lab = Lab::new(look);
        let balancer = lab.balancer("ha");
        Self {
            random: Rng::with_seed(seed),
            lab,
            balancer,
            running: Vec::new(),
            stopped: Vec::new(),
            paused: Vec::new(),
            started: 0,
            done: Vec::new(),
            is_unheard: false,
        }
    }

    fn drive(mut self, steps: u64) {
        for step in 1..=steps {
            self.step();
            if step % 5 == 0 || step == steps {
                self.check();
            }
        }
        // Serf keeps the name of a dead member for half a minute from a newcomer with another address.
        eventually("every running node is a member", 60, || {
            let members = members(&self.balancer)?;
            let addresses: BTreeSet<String> =
                members.iter().filter_map(|line| Some(line.split_once(' ')?.1.to_owned())).collect();
            same(&addresses, &self.running.iter().map(Container::address).collect())
        });
        self.check();
    }

    fn step(&mut self) {
        let choice = self.random.u32(..100);
        match choice {
            0..25 => self.join(),
            25..40 => self.stop(),
            40..47 => self.kill(),
            47..62 => self.start(),
            62..70 => self.swap(),
            70..79 => self.tag(),
            79..82 => self.pause(),
            82..85 => self.cut_gossip(),
            85..88 => self.restart_balancer(),
            88..90 => self.reconnect(),
            _ => self.kill_service(),
        }
    }

    fn note(&mut self, what: &str, container: &str) {
        self.done.push(format!("{what} {container}"));
    }

    fn join(&mut self) {
        if self.running.len() >= MAX_NODES {
            return self.stop();
        }
        self.started += 1;
        let node = self.lab.node(&format!("s{}", self.started));
        self.note("join", &node.name);
        self.running.push(node);
    }

    fn any_running(&mut self) -> Option<Container> {
        (!self.running.is_empty()).then(|| self.running.swap_remove(self.random.usize(..self.running.len())))
    }

    fn stop(&mut self) {
        let Some(node) = self.any_running() else { return self.join() };
        self.note("stop", &node.name);
        node.stop();
        self.stopped.push(node);
    }

    fn kill(&mut self) {
        let Some(node) = self.any_running() else { return self.join() };
        self.note("kill", &node.name);
        node.kill();
        self.stopped.push(node);
    }

    fn start(&mut self) {
        let Some(node) = self.stopped.pop() else { return self.join() };
        self.note("start", &node.name);
        node.start();
        self.running.push(node);
    }

    /// Two nodes leave and come back in the other order, so that they get each other's addresses.
    fn swap(&mut self) {
        let (Some(first), Some(second)) = (self.any_running(), self.any_running()) else { return self.join() };
        self.note("swap", &format!("{} {}", first.name, second.name));
        let (before, after) = if self.random.bool() { (&first, &second) } else { (&second, &first) };
        before.stop();
        after.stop();
        after.start();
        before.start();
        self.running.extend([first, second]);
    }

    fn tag(&mut self) {
        let Some(node) = self.any_running() else { return self.join() };
        let change = *self.random.choice(&["weight=1", "weight=200", "drain=yes", "drain=no", "colour=blue"]).expect("a choice");
        self.note(&format!("tag {change}"), &node.name);
        // The agent may not be up yet, or refused; then there is nothing to follow.
        drop(node.try_exec(&["serf", "tags", "-set", change], ""));
        self.running.push(node);
    }

    fn pause(&mut self) {
        let Some(node) = self.any_running() else { return self.join() };
        self.note("pause", &node.name);
        node.pause();
        self.is_unheard = true;
        self.paused.push(node);
    }

    /// Until the next check, the balancer or a node hears nobody, is not heard, or both.
    fn cut_gossip(&mut self) {
        let chains: &[&str] = self.random.choice(&[&["INPUT", "OUTPUT"][..], &["INPUT"], &["OUTPUT"]]).expect("a choice");
        let node = if self.random.bool() { self.any_running() } else { None };
        let container = node.as_ref().unwrap_or(&self.balancer);
        container.cut_gossip(chains);
        self.is_unheard = true;
        let name = container.name.clone();
        self.note("cut", &format!("{} {name}", chains.join(" and ")));
        self.running.extend(node);
    }

    /// It leaves the network and comes back, mostly with another address, as another one may have started meanwhile.
    fn reconnect(&mut self) {
        let Some(node) = self.any_running() else { return self.join() };
        self.note("disconnect", &node.name);
        self.is_unheard = true;
        let _ = docker(&["network", "disconnect", self.lab.network(), &node.name]);
        self.join();
        self.note("connect", &node.name);
        let _ = docker(&["network", "connect", self.lab.network(), &node.name]);
        self.running.push(node);
    }

    /// Ends the pauses and cuts.
    fn mend(&mut self) {
        self.paused.iter().for_each(Container::unpause);
        self.running.append(&mut self.paused);
        self.running.iter().chain([&self.balancer.container]).for_each(Container::mend_network);
    }

    fn restart_balancer(&mut self) {
        if self.random.bool() {
            self.note("stop and start", "ha");
            self.balancer.stop();
        } else {
            self.note("kill and start", "ha");
            self.balancer.kill();
        }
        self.balancer.start();
    }

    fn kill_service(&mut self) {
        let service = *self.random.choice(&["serf", "ha", "sync"]).expect("a choice");
        self.note("kill in ha:", service);
        // A service that is just down has nothing to kill.
        drop(self.balancer.try_exec(&["s6-svc", "-k", &format!("/var/run/s6/services/{service}")], ""));
    }

    /// All four states become the same, which takes Serf some seconds after a failure, and on a busy machine after a join too.
    /// It tries every half a minute to reach those whom it could not hear.
    fn check(&mut self) {
        self.mend();
        let within = if std::mem::take(&mut self.is_unheard) { 90 } else { 20 };
        let done = std::mem::take(&mut self.done).join(", ");
        eventually(&format!("four equal states after: {done}"), within, || {
            let members = members(&self.balancer)?;
            same(&plain(&self.balancer.registry()), &members).map_err(|text| format!("registry: {text}"))?;
            same(&self.balancer.file(), &members).map_err(|text| format!("file: {text}"))?;
            same(&self.balancer.process()?, &members).map_err(|text| format!("process: {text}"))
        });
    }
}

/// The alive members of the role, as `<name> <address>`.
fn members(balancer: &Balancer) -> Result<BTreeSet<String>, String> {
    let output = balancer.try_exec(&["serf", "members", "-status=alive", "-tag", "role=backend", "-format=json"], "");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
    let line = |member: &serde_json::Value| {
        let address = member["addr"].as_str()?.rsplit_once(':')?.0;
        Some(format!("{} {address}", member["name"].as_str()?))
    };
    // Without one, it is `null`.
    let none = Vec::new();
    let members = if json["members"].is_null() { &none } else { json["members"].as_array().ok_or("no members")? };
    Ok(members.iter().filter_map(line).map(|line| e2e::balancer::without_number(&line)).collect())
}

/// Name and address alone.
fn plain(registry: &BTreeSet<String>) -> BTreeSet<String> {
    registry.iter().map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect()
}

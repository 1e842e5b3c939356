//! The start of a balancer: it accepts requests once it knows the nodes, and has nothing to change after that.
//!
//! `RESTARTS` (2) sets how often one is restarted beside another.

use std::collections::BTreeMap;
use std::env;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use e2e::http::get;
use e2e::{Balancer, Lab, Look, eventually};

/// Requests `/` of this address until `stop`, and counts the answers by status. While nobody listens, there are none.
fn ask_on(address: &str, stop: &AtomicBool) -> BTreeMap<u16, u32> {
    let mut answers = BTreeMap::new();
    while !stop.load(Ordering::Relaxed) {
        match get(&format!("http://{address}/"), None) {
            Ok(answer) => *answers.entry(answer.status).or_default() += 1,
            Err(_) => thread::sleep(Duration::from_millis(2)),
        }
    }
    answers
}

/// Starts a stopped balancer and returns the time until it answers a request.
fn time_to_serve(balancer: &Balancer) -> Duration {
    let began = Instant::now();
    balancer.start();
    let address = balancer.address();
    eventually("port 80 answers", 20, || get(&format!("http://{address}/"), None));
    began.elapsed()
}

/// The lines that a balancer has logged since its log was this long, of a publish or a change of the registry.
fn changes(balancer: &Balancer, since: usize) -> Vec<String> {
    let logs = balancer.logs();
    let is_change = |line: &&str| [": registered ", ": unregistered ", ": published "].iter().any(|word| line.contains(word));
    logs[since..].lines().filter(is_change).map(str::to_owned).collect()
}

/// The registry of a hardened balancer is empty at each start; a plain one has that of before.
#[test]
fn a_balancer_that_restarts_beside_another_serves_with_all_nodes_and_changes_nothing_after_that() {
    let restarts = env::var("RESTARTS").map_or(2, |text| text.parse().expect("RESTARTS is a number"));
    for look in [Look::Hardened, Look::Plain] {
        let (lab, balancer, nodes) = Lab::with_nodes(look, 3);
        let nodes: Vec<_> = nodes.iter().collect();
        let other = lab.balancer("ha2");
        other.settles_on(&nodes, 15);
        let address = balancer.address();
        for restart in 1..=restarts {
            let since = balancer.logs().len();
            let stop = AtomicBool::new(false);
            let (time, answers) = thread::scope(|scope| {
                let client = scope.spawn(|| ask_on(&address, &stop));
                // Of one that was killed the members think that it is alive, and send it what they hear.
                if restart % 2 == 0 {
                    balancer.kill()
                } else {
                    balancer.stop()
                }
                let time = time_to_serve(&balancer);
                assert_eq!(balancer.address(), address, "nobody else takes it");
                balancer.settles_on(&nodes, 10);
                let _ = balancer.exec(&["sync-nodes"]);
                stop.store(true, Ordering::Relaxed);
                (time, client.join().unwrap())
            });
            println!("{look:?}, restart {restart}: answers after {} ms; {answers:?}", time.as_millis());
            assert!(answers.keys().eq(&[200]), "{look:?}, restart {restart}: {answers:?}");

            // Each node is registered once, and the file that HAProxy reads has all of them.
            let changes = changes(&balancer, since);
            let count = |word: &str| changes.iter().filter(|line| line.contains(word)).count();
            let registered = if look == Look::Hardened { nodes.len() } else { 0 };
            assert_eq!((count(": registered "), count(": unregistered ")), (registered, 0), "{changes:#?}");
            assert_eq!(count(": published "), count(" applied=file "), "{changes:#?}");
        }
    }
}

/// Nobody is there, so that there is nothing to wait for.
#[test]
fn a_balancer_without_nodes_starts_at_once() {
    for look in [Look::Hardened, Look::Plain] {
        let lab = Lab::new(look);
        let began = Instant::now();
        let balancer = lab.balancer("ha");
        let answer = eventually("port 80 answers", 20, || balancer.get("/", None));
        assert_eq!(answer.status, 503);
        let first = began.elapsed();
        balancer.stop();
        let again = time_to_serve(&balancer);
        println!("{look:?}: answers {} ms after docker run, {} ms after docker start", first.as_millis(), again.as_millis());
        assert!(!balancer.logs().contains("no other member has answered"), "{}", balancer.logs());
    }
}

//! HAProxy's answers, each by itself: its servers, its processes, its alerts.
#![no_main]

use std::fmt::Write;

use lb_core::haproxy::{alerts, current_worker, parse_servers};
use lb_core::registry::witness::Health;
use libfuzzer_sys::fuzz_target;

/// Columns that HAProxy 3.0 has before, between and after those that are read.
const HEADER: &str = "1\n# be_id be_name srv_id srv_name srv_addr srv_port srv_uweight srv_admin_state srv_check_state srv_op_state srv_check_status";

/// What the columns of one server say, as far as it can be seen.
type Seen = (String, Option<std::net::IpAddr>, u16, u32, bool, bool, bool, Option<Health>);

fn servers(answer: &str) -> Option<Vec<Seen>> {
    let servers = parse_servers(answer)?;
    let seen = servers.into_iter().map(|(key, server)| {
        let states = (server.is_forced(), server.is_in_maintenance(), server.is_checked());
        (key.to_string(), server.address, server.port, server.weight, states.0, states.1, states.2, server.health())
    });
    Some(seen.collect())
}

fuzz_target!(|answer: &str| {
    if let Some(seen) = servers(answer) {
        assert!(answer.starts_with("1\n# ") || answer.starts_with("1\r\n# "));
        assert!(seen.len() + 2 <= answer.lines().count(), "a server out of nothing");
        let mut printed = HEADER.to_owned();
        for (key, address, port, weight, forced, maintenance, checked, health) in &seen {
            // No key of HAProxy's has a slash in its backend's name.
            let Some((backend, server)) = key.split_once('/').filter(|(backend, _)| !backend.is_empty()) else { return };
            let address = address.map_or("-".to_owned(), |address| address.to_string());
            let admin = u32::from(*maintenance) | (u32::from(*forced && !maintenance) << 3);
            let check = u32::from(*checked) << 2;
            let (state, status) = match health {
                None | Some(Health::Pending) => (0, 1),
                Some(Health::Fails) => (0, 8),
                Some(Health::Passes) => (2, 15),
            };
            write!(printed, "\n3 {backend} 1 {server} {address} {port} {weight} {admin} {check} {state} {status}").expect("memory");
        }
        let again = servers(&printed).expect("what is printed can be read");
        assert!(seen.iter().filter(|seen| !seen.0.contains("//")).all(|seen| again.contains(seen)), "{seen:?}\n{again:?}");
    }

    if let Some(pid) = current_worker(answer) {
        let mut lines = answer.lines().skip_while(|line| *line != "# workers");
        let words: Vec<&str> = lines.nth(1).expect("the first worker").split_whitespace().take(2).collect();
        assert!(words[1] == "worker" && words[0].trim_start_matches(['+', '-', '0']).len() <= 10, "{words:?}");
        assert_eq!(words[0].parse(), Ok(pid));
    }

    let alerts = alerts(answer);
    assert!(!alerts.is_empty() && !alerts.contains('\n'), "{alerts:?}");
});

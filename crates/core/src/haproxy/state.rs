//! The servers of a worker, from `show servers state`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::config::ServerKey;
use crate::registry::witness::Health;

/// Bits of `srv_admin_state` that are only set by commands: forced maintenance and forced drain
/// (HAProxy 3.0, `include/haproxy/server-t.h`).
const FORCED: u32 = 0x01 | 0x08;
/// Bit of `srv_admin_state`: forced maintenance.
const MAINTENANCE: u32 = 0x01;
/// Bit of `srv_check_state`: health checks are enabled.
const CHECKED: u32 = 0x04;
/// Value of `srv_op_state`: the server is down.
const STOPPED: u32 = 0;
/// Values of `srv_check_status` up to this one mean that no check has ended since HAProxy started the server, or that it was
/// marked down because of failed requests (HAProxy 3.0, `include/haproxy/check-t.h`).
const LAST_WITHOUT_CHECK: u32 = 3;

/// The current state of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Address; `None` if its host name is not resolved.
    pub address: Option<IpAddr>,
    /// Port.
    pub port: u16,
    /// Current weight.
    pub weight: u32,
    /// Value of `srv_admin_state`.
    admin_state: u32,
    /// Value of `srv_check_state`.
    check_state: u32,
    /// Value of `srv_op_state`.
    op_state: u32,
    /// Value of `srv_check_status`.
    check_status: u32,
}

impl Server {
    /// Whether a command has put it into maintenance or drain.
    #[must_use]
    pub fn is_forced(&self) -> bool {
        self.admin_state & FORCED != 0
    }

    /// Whether a command has put it into maintenance, so that it gets no new requests.
    #[must_use]
    pub fn is_in_maintenance(&self) -> bool {
        self.admin_state & MAINTENANCE != 0
    }

    /// Whether its health checks are running.
    #[must_use]
    pub fn is_checked(&self) -> bool {
        self.check_state & CHECKED != 0
    }

    /// What its health checks say; `None` if it has none, or they are paused by maintenance.
    #[must_use]
    pub fn health(&self) -> Option<Health> {
        if !self.is_checked() || self.is_in_maintenance() {
            return None;
        }
        Some(match (self.op_state, self.check_status) {
            (_, ..=LAST_WITHOUT_CHECK) => Health::Pending,
            (STOPPED, _) => Health::Fails,
            _ => Health::Passes,
        })
    }
}

/// Names of the columns that are read, in the order used by [`parse_line`].
const COLUMNS: [&str; 9] = [
    "be_name",
    "srv_name",
    "srv_addr",
    "srv_port",
    "srv_uweight",
    "srv_admin_state",
    "srv_check_state",
    "srv_op_state",
    "srv_check_status",
];

/// Parses the answer to `show servers state`; `None` if it is not one. Columns are found by name.
#[must_use]
pub fn parse_servers(answer: &str) -> Option<BTreeMap<ServerKey, Server>> {
    let mut lines = answer.lines();
    lines.next().filter(|version| *version == "1")?;
    let names: Vec<&str> = lines.next()?.strip_prefix("# ")?.split(' ').collect();
    // For each column of the answer, its index in `COLUMNS`.
    let mut wanted: Vec<Option<usize>> = names.iter().map(|name| COLUMNS.iter().position(|column| column == name)).collect();
    wanted.truncate(wanted.iter().rposition(Option::is_some).map_or(0, |last| last + 1));
    lines.filter(|line| !line.is_empty()).map(|line| parse_line(line, &wanted)).collect()
}

fn parse_line(line: &str, wanted: &[Option<usize>]) -> Option<(ServerKey, Server)> {
    let mut words = [None; COLUMNS.len()];
    // A search for the end of such short words would be slower than this.
    for (wanted, word) in wanted.iter().zip(line.split(|c: char| c.is_ascii_whitespace())) {
        if let Some(place) = wanted.and_then(|at| words.get_mut(at)) {
            *place = Some(word);
        }
    }
    let [backend, server, address, port, weight, admin_state, check_state, op_state, check_status] = words;
    let server_state = Server {
        address: address?.parse().ok(),
        port: port?.parse().ok()?,
        weight: weight?.parse().ok()?,
        admin_state: admin_state?.parse().ok()?,
        check_state: check_state?.parse().ok()?,
        op_state: op_state?.parse().ok()?,
        check_status: check_status?.parse().ok()?,
    };
    Some((ServerKey::new(backend?, server?), server_state))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr srv_agent_addr srv_agent_port\n";

    #[test]
    fn servers_are_read_by_the_names_of_the_columns() {
        let text = format!(
            "{HEADER}3 nodes 1 s1 127.0.0.1 0 1 50 1 29 8 2 0 6 0 0 0 - 3000 - 0 0 - - 0\n3 nodes 2 s2 - 2 0 100 100 0 1 0 0 2 0 0 0 - 3001 - 0 0 - - 0\n"
        );
        let servers: Vec<_> = parse_servers(&text).unwrap().into_iter().collect();
        let (key, server) = &servers[0];
        assert_eq!(key.to_string(), "nodes/s1");
        assert_eq!((server.address, server.port, server.weight), ("127.0.0.1".parse().ok(), 3000, 50));
        assert!(server.is_forced() && server.is_in_maintenance() && server.is_checked());
        let (_, server) = &servers[1];
        assert!(server.address.is_none() && !server.is_forced() && !server.is_checked());
    }

    #[test]
    fn what_the_checks_say_is_told_from_what_is_not_known() {
        // As HAProxy 2.6 and 3.0 print it: op_state, admin_state, check_status, check_state.
        for (op, admin, status, state, health) in [
            (2, 0, 15, 6, Some(Health::Passes)),
            // A check is under way.
            (2, 0, 15, 7, Some(Health::Passes)),
            // One has failed, and it takes two.
            (2, 0, 12, 6, Some(Health::Passes)),
            (0, 0, 12, 6, Some(Health::Fails)),
            (0, 0, 8, 7, Some(Health::Fails)),
            // It has just started.
            (2, 0, 1, 6, Some(Health::Pending)),
            // It was marked down because of failed requests.
            (0, 0, 3, 6, Some(Health::Pending)),
            // It has no checks; they are disabled; it is in maintenance.
            (2, 0, 1, 0, None),
            (2, 0, 15, 2, None),
            (0, 1, 15, 14, None),
        ] {
            let line = format!("{HEADER}3 nodes 1 s1 127.0.0.1 {op} {admin} 1 1 0 {status} 0 0 {state} 0 0 0 - 80 - 0 0 - - 0\n");
            let servers = parse_servers(&line).unwrap();
            assert_eq!(servers.values().next().unwrap().health(), health, "{line}");
        }
    }

    #[test]
    fn no_server_is_no_error_but_another_answer_is() {
        assert_eq!(parse_servers(HEADER).unwrap().len(), 0);
        for bad in ["", "1", "2\n# x", "Unknown command", &format!("{HEADER}3 nodes 1")] {
            assert!(parse_servers(bad).is_none(), "{bad:?}");
        }
    }
}

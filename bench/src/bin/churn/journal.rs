//! HAProxy's log of requests that failed or were retried, and the requests lost to a kill.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

/// Maximum time between the end of a connection and the client's report.
const LAG: Duration = Duration::from_millis(500);

/// A killed node. Nothing else happened until HAProxy noticed.
#[derive(Debug, Clone)]
pub struct Kill {
    /// Its name in the cluster.
    pub member: String,
    /// Just before the kill.
    pub at: SystemTime,
    /// When HAProxy had noticed. Later losses have another reason.
    pub noticed: SystemTime,
}

impl Kill {
    /// Whether a request lost at this time may be lost to this kill.
    #[must_use]
    pub fn explains(&self, time: SystemTime) -> bool {
        self.at <= time && time <= self.noticed + LAG
    }
}

/// A request that HAProxy logged because something went wrong.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// When it ended.
    pub at: SystemTime,
    /// Name of the last server that it was sent to.
    pub server: String,
    /// Status that was sent to the client.
    pub status: String,
    /// HAProxy's termination state, four letters (HAProxy 3.0 configuration manual, section 8.5).
    pub state: String,
    /// Whether it was sent more than once.
    pub retried: bool,
    /// Method of the request.
    pub method: String,
}

impl Entry {
    /// Parses a line of `docker logs --timestamps`; `None` if it is not about a request (`option httplog`).
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [at, _client, _accepted, "http", server, _timers, status, _bytes, _, _, state, connections, _, method, ..] =
            words[..]
        else {
            return None;
        };
        let retries = connections.rsplit('/').next()?;
        Some(Self {
            at: humantime::parse_rfc3339(at).ok()?,
            server: server.rsplit_once('/')?.1.to_owned(),
            status: status.to_owned(),
            state: state.to_owned(),
            retried: retries != "0",
            method: method.trim_start_matches('"').to_owned(),
        })
    }

    /// Whether the client got no successful response.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.status != "200" || !self.state.starts_with('-')
    }

    /// Whether a kill explains the loss: it was on the server of a dead node.
    #[must_use]
    pub fn is_lost_to(&self, kills: &[Kill]) -> bool {
        // Not only that kill: until Serf has noticed, a container that got the address of a dead one is used under both
        // names. And a node that came back may have a number appended to its name.
        let is_dead = |kill: &Kill| self.server.starts_with(&kill.member) && kill.at <= self.at;
        self.is_lost() && kills.iter().any(|kill| kill.explains(self.at)) && kills.iter().any(is_dead)
    }
}

/// A balancer's log for one method.
#[derive(Debug, Default)]
pub struct Journal {
    /// Lost requests, by status and termination state.
    pub lost: BTreeMap<String, u64>,
    /// Lost requests not explained by a kill.
    pub unexplained: u64,
    /// Requests that were retried and answered in the end.
    pub retried: u64,
}

impl Journal {
    /// Parses the output of `docker logs --timestamps`.
    #[must_use]
    pub fn read(logs: &str, method: &str, kills: &[Kill]) -> Self {
        let mut journal = Self::default();
        for entry in logs.lines().filter_map(Entry::parse).filter(|entry| entry.method == method) {
            if entry.is_lost() {
                *journal.lost.entry(format!("{} {}", entry.status, entry.state)).or_default() += 1;
                journal.unexplained += u64::from(!entry.is_lost_to(kills));
            } else if entry.retried {
                journal.retried += 1;
            }
        }
        journal
    }
}

/// Number of workers that HAProxy started, according to its log.
#[must_use]
pub fn workers(logs: &str) -> usize {
    logs.lines().filter(|line| line.contains("New worker (")).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOST: &str = "2026-11-21T10:00:05.5Z 172.18.0.1:5 [21/Nov/2026:10:00:05.123] http nodes/abc-2 0/0/0/-1/1 502 204 - - \
        SH-- 5/5/3/1/0 0/0 \"POST /delay HTTP/1.1\"";

    fn kill(member: &str, at: &str, noticed: &str) -> [Kill; 1] {
        let time = |text| humantime::parse_rfc3339(&format!("2026-11-21T{text}Z")).unwrap();
        [Kill { member: member.to_owned(), at: time(at), noticed: time(noticed) }]
    }

    #[test]
    fn a_request_is_lost_to_the_kill_of_its_server_at_that_time() {
        let entry = Entry::parse(LOST).unwrap();
        assert_eq!((entry.status.as_str(), entry.state.as_str(), entry.method.as_str()), ("502", "SH--", "POST"));
        assert!(entry.is_lost_to(&kill("abc", "10:00:04", "10:00:06")));
        assert!(!entry.is_lost_to(&kill("abc", "10:00:06", "10:00:07")), "killed afterwards");
        assert!(!entry.is_lost_to(&kill("abc", "10:00:02", "10:00:04")), "noticed before");
        assert!(!entry.is_lost_to(&kill("def", "10:00:04", "10:00:06")), "another one");
        let both = [kill("abc", "09:59:59", "10:00:01"), kill("def", "10:00:04", "10:00:06")].concat();
        assert!(entry.is_lost_to(&both), "another one, which has the address of the dead one");
        assert_eq!(Journal::read(LOST, "POST", &[]).unexplained, 1);
    }

    #[test]
    fn a_request_that_was_answered_elsewhere_is_not_lost() {
        let line = LOST.replace("502", "200").replace("SH--", "--NI").replace("3/1/0 ", "3/1/+1 ");
        let journal = Journal::read(&line, "POST", &[]);
        assert_eq!((journal.retried, journal.lost.len(), journal.unexplained), (1, 0, 0));
    }

    #[test]
    fn other_lines_are_passed_over() {
        let line = "2026-11-21T10:00:05.5Z [NOTICE]   (7) : New worker (42) forked";
        assert_eq!(Entry::parse(line), None);
        assert_eq!(workers(line), 1);
        assert!(Journal::read(LOST, "GET", &[]).lost.is_empty());
    }
}

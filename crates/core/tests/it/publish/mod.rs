//! Publishing to a HAProxy that answers as a test wants: what is sent, what is written, and what is left as it was.

use lb_core::haproxy::last_applied::{ProcessId, RecordedFor};
use lb_core::publish::{self, Applied, PublishError};

use super::scripted::Scripted;
use super::world::World;

mod changes;
mod failures;
mod random;
mod witness;

const S1: &str = "s1 172.18.0.2";
const S2: &str = "s2 172.18.0.3";
const S3: &str = "s3 172.18.0.4";
/// The commands that make a server of [`S2`].
const ADD_S2: [&str; 3] =
    ["add server nodes/s2 172.18.0.3:3000 check weight 100", "enable health nodes/s2", "set server nodes/s2 state ready"];

fn error(result: Result<publish::Outcome, PublishError>) -> String {
    let error = result.expect_err("a publish that fails");
    std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

/// The commands of a publish at run time.
fn commands(applied: &Applied) -> Vec<String> {
    let Applied::Commands(commands) = applied else { panic!("{applied}") };
    commands.iter().map(ToString::to_string).collect()
}

/// The reason of a publish by a reload.
fn reason(applied: &Applied) -> &str {
    let Applied::Reload(reason) = applied else { panic!("{applied}") };
    reason
}

/// Shows that the record is about this worker and the file as it is.
fn assert_recorded(world: &World, haproxy: &Scripted) {
    let (reader, record) = world.record().expect("a record");
    assert_eq!(reader, RecordedFor::Worker(ProcessId::of_pid(haproxy.worker()).unwrap()));
    assert_eq!(record.text, world.text());
}

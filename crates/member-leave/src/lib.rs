//! `member-leave`: unregisters the nodes of an event, and publishes.

use anyhow::Result;
use clap::Parser;
use lb_core::tool::RunOptions;
use lb_core::tool::handler::{Event, HandlerOptions, handle};
use lb_core::tool::reporter::Reporter;
use lb_core::tool::{Exit, Tool, after_help};

const EXAMPLES: &str = r"  serf agent -event-handler member-leave,member-failed,member-reap=member-leave
  printf 's3\t172.18.0.5\tbackend\t\n' | docker exec -i ha member-leave
  echo 's3 172.18.0.5 backend' | member-leave --nodes-dir ./nodes --template t.hb --config ./haproxy.cfg";

/// Unregister the nodes of a Serf event, and publish.
///
/// Reads event lines on standard input, one a member, as member-join does; only the name counts. Its file is removed
/// from the registry, haproxy.cfg is rendered, and the running HAProxy sends the node no new request; what runs there
/// goes on to its end. A node that is not registered is no error.
#[derive(Debug, Parser)]
#[command(name = "member-leave", version, after_help = after_help(EXAMPLES))]
pub struct MemberLeave {
    #[command(flatten)]
    options: HandlerOptions,
}

impl Tool for MemberLeave {
    const NAME: &'static str = "member-leave";

    fn run_options(&self) -> &RunOptions {
        &self.options.log
    }
}

/// Runs the tool.
///
/// # Errors
/// When registry, file or process cannot be changed.
pub fn run(tool: &MemberLeave, reporter: &Reporter) -> Result<Exit> {
    Ok(handle(Event::Gone, &tool.options, reporter)?)
}

//! `member-leave`: unregisters the nodes in an event, then publishes.

use anyhow::Result;
use clap::Parser;
use lb_core::tool::RunOptions;
use lb_core::tool::handler::{Event, HandlerOptions, handle};
use lb_core::tool::reporter::Reporter;
use lb_core::tool::{Exit, Tool, after_help};

const EXAMPLES: &str = r"  serf agent -event-handler member-leave,member-failed,member-reap=member-leave
  printf 's3\t172.18.0.5\tbackend\t\n' | docker exec -i ha member-leave
  echo 's3 172.18.0.5 backend' | member-leave --nodes-dir ./nodes --template t.hb --config ./haproxy.cfg";

/// Unregister the nodes in a Serf event and publish.
///
/// Reads event lines from standard input, one per member, as member-join does, but uses only the name. Removes the node's
/// file from the registry, renders haproxy.cfg, and makes the running HAProxy send the node no new requests; requests in
/// progress are finished. It is not an error if the node is not registered.
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
/// If the registry, the file or the process cannot be changed.
pub fn run(tool: &MemberLeave, reporter: &Reporter) -> Result<Exit> {
    Ok(handle(Event::Gone, &tool.options, reporter)?)
}

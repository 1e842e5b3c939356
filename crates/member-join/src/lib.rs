//! `member-join`: registers the nodes in an event, then publishes.

use anyhow::Result;
use clap::Parser;
use lb_core::tool::RunOptions;
use lb_core::tool::handler::{Event, HandlerOptions, handle};
use lb_core::tool::reporter::Reporter;
use lb_core::tool::{Exit, Tool, after_help};

const EXAMPLES: &str = r"  serf agent -event-handler member-join,member-update=member-join
  printf 's3\t172.18.0.5\tbackend\tweight=50\n' | docker exec -i ha member-join
  echo 's3 172.18.0.5 backend' | member-join --nodes-dir ./nodes --template t.hb --config ./haproxy.cfg";

/// Register the nodes in a Serf event and publish.
///
/// Reads event lines from standard input, one per member: NAME, ADDRESS, ROLE and TAGS, separated by tabs (or by spaces,
/// when typed by hand). Writes a file to the registry for each member with the role, in the lab's format, then renders
/// haproxy.cfg and updates the running HAProxy. Understands the tags port=, weight= (0 to 256), drain=yes, and those of its
/// service: host=, path=, check= and cookie=. A second run changes nothing.
#[derive(Debug, Parser)]
#[command(name = "member-join", version, after_help = after_help(EXAMPLES))]
pub struct MemberJoin {
    #[command(flatten)]
    options: HandlerOptions,
}

impl Tool for MemberJoin {
    const NAME: &'static str = "member-join";

    fn run_options(&self) -> &RunOptions {
        &self.options.log
    }
}

/// Runs the tool.
///
/// # Errors
/// If the registry, the file or the process cannot be changed.
pub fn run(tool: &MemberJoin, reporter: &Reporter) -> Result<Exit> {
    Ok(handle(Event::Present, &tool.options, reporter)?)
}

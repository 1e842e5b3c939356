//! `render-cfg`: renders the registry into `haproxy.cfg`.

use std::collections::BTreeMap;
use std::io::{self, Write};

use anyhow::{Context, Result};
use clap::Parser;
use lb_core::config::template::NAMES;
use lb_core::haproxy;
use lb_core::os::read_file::read_text;
use lb_core::publish::PublishOptions;
use lb_core::publish::lock::Lock;
use lb_core::publish::{Candidate, write_file};
use lb_core::tool::RunOptions;
use lb_core::tool::reporter::Reporter;
use lb_core::tool::{Exit, Tool, after_help};
use similar::TextDiff;

const EXAMPLES: &str = "  docker exec ha render-cfg --stdout
  docker exec ha render-cfg --check
  docker exec ha render-cfg --diff
  render-cfg --template t.hb --set name=s1 --set ip=172.18.0.3 --stdout";

/// Render the registry into haproxy.cfg.
///
/// The template is Handlebars: {{#each addresses}} … {{host}} {{ip}} {{port}} {{weight}} {{drain}} … {{/each}}, and the
/// names given with --set. {{#each services}} has the fields name, hosts, paths, check, cookie and {{#each nodes}};
/// {{#each routes}} has name, host, path and condition. The file is replaced atomically, only if it changes and only if HAProxy accepts it. The
/// running HAProxy is not touched (see reload-ha).
#[derive(Debug, Parser)]
#[command(name = "render-cfg", version, after_help = after_help(EXAMPLES))]
pub struct RenderCfg {
    /// Print the result instead of writing the file
    #[arg(long, group = "output")]
    stdout: bool,
    /// Only ask HAProxy whether the result is valid
    #[arg(long, group = "output")]
    check: bool,
    /// Print the difference from the file instead of writing it
    #[arg(long, group = "output")]
    diff: bool,
    /// An additional name for the template; can be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
    set: Vec<(String, String)>,
    #[command(flatten)]
    options: PublishOptions,
    #[command(flatten)]
    run_options: RunOptions,
}

impl Tool for RenderCfg {
    const NAME: &'static str = "render-cfg";

    fn run_options(&self) -> &RunOptions {
        &self.run_options
    }
}

fn setting(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text.split_once('=').ok_or("not NAME=VALUE")?;
    if name.is_empty() || NAMES.contains(&name) {
        return Err("the name is empty, or one that every template has");
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// Runs the tool.
///
/// # Errors
/// If the registry or the template cannot be read, or HAProxy rejects the result; the last good file stays.
pub fn run(tool: &RenderCfg, reporter: &Reporter) -> Result<Exit> {
    let settings: BTreeMap<_, _> = tool.set.iter().cloned().collect();
    let config = &tool.options.process.config;
    if tool.stdout || tool.check || tool.diff {
        let rendering = Candidate::read(&tool.options, settings)?;
        reporter.skipped_files(rendering.skipped());
        let text = rendering.text()?;
        if tool.check {
            haproxy::check(&text, config)?;
            reporter.hint("the configuration is valid");
        } else {
            let text = if tool.diff { difference(tool, &text)? } else { text };
            io::stdout().write_all(text.as_bytes()).context("write standard output")?;
        }
        return Ok(Exit::Done);
    }
    let lock = Lock::take(config)?;
    reporter.published(&write_file(&tool.options, settings, &lock)?, &tool.run_options.cause());
    Ok(Exit::Done)
}

/// A unified diff from the current file to `text`.
fn difference(tool: &RenderCfg, text: &str) -> Result<String> {
    let config = &tool.options.process.config;
    let old = match read_text(config) {
        Ok(old) => old,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("read {}", config.display())),
    };
    let name = config.display().to_string();
    Ok(TextDiff::from_lines(old.as_str(), text).unified_diff().header(&name, "rendered").to_string())
}

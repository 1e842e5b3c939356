//! `manual`: generates the man pages and completions of all tools from their options.
//!
//! It is a separate program so that the tools do not have to include the generators.

use std::fs::{File, create_dir_all};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Command, CommandFactory, Parser};
use clap_complete::{Shell, generate};
use clap_mangen::Man;
use roff::{Roff, roman};

/// Generate man pages and completions for all tools.
///
/// Writes DIR/man1/TOOL.1, DIR/bash/TOOL, DIR/zsh/_TOOL and DIR/fish/TOOL.fish.
#[derive(Debug, Parser)]
#[command(name = "manual", version)]
struct Manual {
    /// Directory to write to; it is created if missing
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

/// Add new tools here.
fn tools() -> [Command; 11] {
    [
        bundle_log::BundleLog::command(),
        deploy_nodes::DeployNodes::command(),
        member_join::MemberJoin::command(),
        member_leave::MemberLeave::command(),
        reload_ha::ReloadHa::command(),
        render_cfg::RenderCfg::command(),
        renew_certs::RenewCerts::command(),
        scale_nodes::ScaleNodes::command(),
        serf_run::SerfRun::command(),
        show_nodes::ShowNodes::command(),
        sync_nodes::SyncNodes::command(),
    ]
}

fn main() -> Result<()> {
    let directory = Manual::parse().directory;
    let tools = tools();
    for tool in &tools {
        let name = tool.get_name();
        write(&directory, &format!("man1/{name}.1"), |output| page(tool, &tools, output))?;
        let completions = [
            (Shell::Bash, format!("bash/{name}")),
            (Shell::Zsh, format!("zsh/_{name}")),
            (Shell::Fish, format!("fish/{name}.fish")),
        ];
        for (shell, file) in completions {
            write(&directory, &file, |output| {
                generate(shell, &mut tool.clone(), name, output);
                Ok(())
            })?;
        }
    }
    Ok(())
}

fn write(directory: &Path, name: &str, content: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let path = directory.join(name);
    let create = || {
        create_dir_all(path.parent().unwrap_or(directory))?;
        let mut output = BufWriter::new(File::create(&path)?);
        content(&mut output)?;
        output.flush()
    };
    create().with_context(|| format!("write {}", path.display()))
}

/// The sections that clap generates, followed by the parts of the help's epilogue as sections.
fn page(tool: &Command, tools: &[Command], output: &mut dyn Write) -> io::Result<()> {
    let man = Man::new(tool.clone()).manual("Load balancer that follows its nodes");
    man.render_title(output)?;
    man.render_name_section(output)?;
    man.render_synopsis_section(output)?;
    man.render_description_section(output)?;
    man.render_options_section(output)?;
    for command in tool.get_subcommands() {
        let title = format!("{} {}", tool.get_name(), command.get_name()).to_uppercase();
        let about = command.get_long_about().or(command.get_about()).map(ToString::to_string).unwrap_or_default();
        Roff::new().control("SH", [title.as_str()]).text([roman(about)]).to_writer(output)?;
        let mut options = Vec::new();
        Man::new(command.clone()).render_options_section(&mut options)?;
        let options = String::from_utf8_lossy(&options).replacen(".SH OPTIONS", ".SS Options", 1);
        output.write_all(options.as_bytes())?;
    }
    let end = tool.get_after_help().map(ToString::to_string).unwrap_or_default();
    let mut roff = Roff::new();
    for (title, text) in end.split("\n\n").filter_map(|part| part.split_once(":\n")) {
        let title = if title == "Exit codes" { "EXIT STATUS".to_owned() } else { title.to_uppercase() };
        roff.control("SH", [title.as_str()]).control("nf", []).text([roman(text)]).control("fi", []);
    }
    let others = tools.iter().map(Command::get_name).filter(|name| *name != tool.get_name());
    let others: Vec<_> = others.map(|name| format!("{name}(1)")).chain(["serf(1)", "haproxy(1)"].map(str::to_owned)).collect();
    roff.control("SH", ["SEE ALSO"]).text([roman(others.join(", "))]);
    roff.to_writer(output)
}

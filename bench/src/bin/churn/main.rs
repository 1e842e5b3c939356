//! No request is lost: a live lab under load while nodes join, stop, are killed and change, and the template changes.
//!
//! The clients are wrk's, with and without keep-alive and sessions, and never retry. A lost GET fails the run, and so does a
//! POST lost for any reason but the kill of its node.

mod changes;
mod clients;
mod journal;
mod report;
mod server;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bench::shared_folder;
use clap::Parser;
use e2e::{Lab, Look, eventually};

use crate::changes::{Driver, write_template};
use crate::clients::{Clients, Tally, tell_to_stop};
use crate::report::Report;

const TEMPLATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../ha/config/haproxy.cfg.hb");
/// More than for POST, as in practice.
const GET_CLIENTS: u64 = 16;
const POST_CLIENTS: u64 = 4;
/// The run fails on machines slower than this.
const SLOWEST_CHANGE: Duration = Duration::from_secs(10);
const FEWEST_REQUESTS_A_SECOND: u64 = 200;

/// Show that no request is lost while the nodes and the template change.
///
/// Starts its own lab, puts it under load from 20 clients, and changes it until there were enough requests and changes.
/// Fails if a single GET is lost, or a single POST for any reason but the kill of its node.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  bench/churn                                        CI's version, a minute and a half
  bench/churn --requests 1000000 --changes 200       the long one
  bench/churn --seed 7                               the same changes each time
  bench/churn --template mine.hb                     what another template loses")]
struct Options {
    /// Minimum number of requests
    #[arg(long, default_value_t = 100_000)]
    requests: u64,
    /// Minimum number of changes
    #[arg(long, default_value_t = 40)]
    changes: u64,
    /// Seed of the random changes; default: a new one each time
    #[arg(long)]
    seed: Option<u64>,
    /// The balancer's template
    #[arg(long, value_name = "FILE", default_value = TEMPLATE, hide_default_value = true)]
    template: PathBuf,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    eprintln!("--seed {seed}");
    let verdict = run(&options, seed).and_then(|report| {
        print!("{report}");
        report.verdict()
    });
    match verdict {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("churn: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options, seed: u64) -> Result<Report> {
    let template = std::fs::read_to_string(&options.template).with_context(|| options.template.display().to_string())?;
    let config = shared_folder()?;
    let template_file = config.path().join("haproxy.cfg.hb");
    write_template(&template_file, &template)?;
    let lab = Lab::new(Look::Hardened);
    let volume = format!("{}:/config:ro", config.path().display());
    let balancer = lab.balancer_with("ha", &["--volume", &volume, "--env", "HTTP_LOG=errors"]);
    let mut driver = Driver::new(seed, lab, balancer, template, template_file);

    let folder = tempfile::tempdir()?;
    let began = Instant::now();
    let (get, post) = churn(options, &mut driver, folder.path())?;
    Ok(Report::new(seed, &driver, get, post, began.elapsed()))
}

/// Sends requests and makes changes until there are enough of both.
fn churn(options: &Options, driver: &mut Driver, folder: &Path) -> Result<(Tally, Tally)> {
    let for_requests = Duration::from_secs(options.requests / FEWEST_REQUESTS_A_SECOND);
    let at_most = for_requests.max(SLOWEST_CHANGE * u32::try_from(options.changes)?);
    let address = driver.balancer.address();
    let cookie = eventually("a session for POST", 10, || driver.balancer.get("/", None)?.cookie.ok_or("no cookie".to_owned()));
    let start = |method, count, cookie| Clients::start(method, count, &address, folder, cookie, at_most);
    let mut all = [start("GET", GET_CLIENTS, None)?, start("POST", POST_CLIENTS, Some(cookie.as_str()))?];
    let began = Instant::now();
    let mut answered = 0;
    while driver.all_made() < options.changes || answered < options.requests {
        ensure!(began.elapsed() < at_most, "not done within {at_most:?}: {answered} requests, {} changes", driver.all_made());
        let what = driver.change()?;
        for clients in &mut all {
            ensure!(clients.are_running()?, "wrk has ended too early");
        }
        answered = all.iter().map(Clients::answered).sum();
        eprintln!("{:4} s, {answered} requests, change {what}", began.elapsed().as_secs());
    }
    driver.settle();
    tell_to_stop(folder)?;
    let [get, post] = all;
    Ok((get.finish()?, post.finish()?))
}

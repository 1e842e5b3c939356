//! `bench/load`: puts load on the running lab with a headless JMeter, and prints a summary per node and a plot.
//!
//! Unlike the other benchmarks, it does not start its own lab: it shows what the lab does while somebody starts and stops nodes,
//! or while `scale-nodes` runs. The test plan is `bench/load.jmx`, which you can also open in JMeter's window.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bench::{milliseconds, percentile};
use clap::Parser;

const START: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/jmeter.bsh");
/// Debian's JMeter, and the BeanShell that starts it.
const HOME: &str = "/usr/share/jmeter";
const CLASSES: &str =
    "/usr/share/java/bsh.jar:/usr/share/jmeter/bin/ApacheJMeter.jar:/usr/share/jmeter/lib/*:/usr/share/jmeter/lib/ext/*";
const RESULTS: &str = "results.tsv";
const LOG: &str = "jmeter.log";
const PLAN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/load.jmx");
/// What JMeter writes for each request: only what is read here, separated by tabs, which no field contains.
const SAVE: [&str; 15] = [
    "-Jsample_variables=node",
    "-Jjmeter.save.saveservice.output_format=csv",
    "-Jjmeter.save.saveservice.default_delimiter=\\t",
    "-Jjmeter.save.saveservice.print_field_names=true",
    "-Jjmeter.save.saveservice.timestamp_format=ms",
    "-Jjmeter.save.saveservice.label=false",
    "-Jjmeter.save.saveservice.response_message=false",
    "-Jjmeter.save.saveservice.thread_name=false",
    "-Jjmeter.save.saveservice.data_type=false",
    "-Jjmeter.save.saveservice.assertion_results_failure_message=false",
    "-Jjmeter.save.saveservice.bytes=false",
    "-Jjmeter.save.saveservice.latency=false",
    "-Jjmeter.save.saveservice.thread_counts=false",
    "-Jjmeter.save.saveservice.assertions=none",
    "-Jjmeter.save.saveservice.subresults=false",
];
/// The name under which requests without an answer from a node are counted.
const NONE: &str = "none";

/// Put load on the running lab with JMeter: throughput, latency and errors per node, and a plot of them over time.
#[derive(Debug, Parser)]
#[command(name = "bench/load")]
struct Options {
    /// Host of the lab
    #[arg(long, default_value = "localhost")]
    host: String,
    /// HTTP port of the lab
    #[arg(long, default_value_t = 80, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// Number of users, each sending requests without a pause
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=200))]
    users: u16,
    /// Duration in seconds
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u16).range(2..=3600))]
    seconds: u16,
    /// Directory for the plot and JMeter's results
    #[arg(long, value_name = "DIR", default_value = "target/load")]
    output: PathBuf,
}

/// One request.
#[derive(Debug, Clone, PartialEq)]
struct Sample {
    node: String,
    /// Second of the run in which it ended.
    second: u64,
    took: Duration,
    ok: bool,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let folder = &options.output;
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    println!("load: {} users ask http://{}:{}/ for {} s", options.users, options.host, options.port, options.seconds);
    run_jmeter(&options, folder)?;
    let results = folder.join(RESULTS);
    let text = fs::read_to_string(&results).with_context(|| format!("read {}", results.display()))?;
    let samples = parse(&text).with_context(|| format!("{}", results.display()))?;
    print!("{}", table(&samples));
    ensure!(samples.iter().any(|sample| sample.ok), "no request was answered: is the lab started?");
    let picture = folder.join("load.svg");
    draw(&samples, folder, &picture)?;
    println!("\npicture: {}\nevery request: {}", picture.display(), results.display());
    Ok(())
}

fn run_jmeter(options: &Options, folder: &Path) -> Result<()> {
    let (results, log) = (folder.join(RESULTS), folder.join(LOG));
    // JMeter appends to an existing file.
    let _ = fs::remove_file(&results);
    let output = Command::new("java")
        .current_dir(folder) // despite -j, it creates a log in the current directory
        .args(["-Djava.awt.headless=true", &format!("-Djmeter.home={HOME}"), "-cp", CLASSES])
        .args(["bsh.Interpreter", START, "-n", "-t", PLAN])
        .args(["-l", RESULTS, "-j", LOG])
        .args(SAVE)
        .args([format!("-Jhost={}", options.host), format!("-Jport={}", options.port)])
        .args([format!("-Jusers={}", options.users), format!("-Jseconds={}", options.seconds)])
        .stdin(Stdio::null())
        .output()
        .context("start JMeter")?;
    // It exits with 0 even if it cannot read the plan.
    let said = String::from_utf8_lossy(&output.stdout);
    let first = said.lines().next().unwrap_or_default();
    ensure!(output.status.success() && results.exists(), "JMeter failed: {first} (all of it: {})", log.display());
    Ok(())
}

/// Parses JMeter's results, whose first line names the columns.
fn parse(text: &str) -> Result<Vec<Sample>> {
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().context("no request")?.split('\t').collect();
    let column = |name: &str| {
        let at = names.iter().position(|column| column.trim_matches('"') == name);
        at.with_context(|| format!("no column {name}"))
    };
    let (begin, took, ok, node) = (column("timeStamp")?, column("elapsed")?, column("success")?, column("node")?);
    let mut samples = Vec::new();
    for line in lines {
        let fields: Vec<&str> = line.split('\t').collect();
        ensure!(fields.len() == names.len(), "not {} fields: {line}", names.len());
        let took = Duration::from_millis(fields[took].parse()?);
        let ended = Duration::from_millis(fields[begin].parse()?) + took;
        let node = fields[node].trim_matches('"').to_owned();
        samples.push(Sample { node, second: ended.as_secs(), took, ok: fields[ok] == "true" });
    }
    let Some(first) = samples.iter().map(|sample| sample.second).min() else { bail!("no request") };
    for sample in &mut samples {
        sample.second -= first;
    }
    Ok(samples)
}

/// The samples of each node.
fn by_node(samples: &[Sample]) -> BTreeMap<&str, Vec<&Sample>> {
    let mut nodes: BTreeMap<&str, Vec<&Sample>> = BTreeMap::new();
    for sample in samples {
        nodes.entry(&sample.node).or_default().push(sample);
    }
    nodes
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn rate(count: usize, seconds: u64) -> f64 {
    count as f64 / seconds as f64
}

fn table(samples: &[Sample]) -> String {
    let seconds = samples.iter().map(|sample| sample.second).max().unwrap_or(0) + 1;
    let row = |name: &str, samples: &[&Sample]| {
        let times: Vec<Duration> = samples.iter().map(|sample| sample.took).collect();
        let [p50, p95, p99] = [0.5, 0.95, 0.99].map(|share| milliseconds(percentile(&times, share)));
        let errors = samples.iter().filter(|sample| !sample.ok).count();
        format!("| {name} | {} | {:.1} | {p50} | {p95} | {p99} | {errors} |\n", samples.len(), rate(samples.len(), seconds))
    };
    let mut table =
        "\n| node | requests | a second | p50 ms | p95 ms | p99 ms | errors |\n|---|---|---|---|---|---|---|\n".to_owned();
    for (node, samples) in by_node(samples) {
        table += &row(node, &samples);
    }
    table + &row("all", &samples.iter().collect::<Vec<_>>())
}

/// Lines `second requests p95`, one block per node, for gnuplot. The last second, which is incomplete, is left out.
fn data(samples: &[Sample]) -> String {
    let seconds = samples.iter().map(|sample| sample.second).max().unwrap_or(0).max(1);
    let block = |(node, samples): (&str, Vec<&Sample>)| {
        let mut times = vec![Vec::new(); usize::try_from(seconds).unwrap_or(0) + 1];
        for sample in samples {
            times[usize::try_from(sample.second).unwrap_or(0)].push(sample.took);
        }
        times.pop();
        let line = |(second, times): (usize, &Vec<Duration>)| {
            // Without requests there is no latency; "NaN" makes a gap.
            let latency = if times.is_empty() { "NaN".to_owned() } else { milliseconds(percentile(times, 0.95)) };
            format!("{second} {} {latency}\n", times.len())
        };
        format!("\"{node}\"\n{}", times.iter().enumerate().map(line).collect::<String>())
    };
    by_node(samples).into_iter().filter(|(node, _)| *node != NONE).map(block).collect::<Vec<_>>().join("\n\n")
}

/// Plots throughput and latency over time, one line per node.
fn draw(samples: &[Sample], folder: &Path, picture: &Path) -> Result<()> {
    let file = folder.join("load.dat");
    fs::write(&file, data(samples)).with_context(|| format!("write {}", file.display()))?;
    let nodes = by_node(samples).keys().filter(|node| **node != NONE).count();
    let lines =
        |column: u8| format!("plot for [i=0:{}] data index i using 1:{column} with lines lw 2 title columnheader(1)", nodes - 1);
    let script = format!(
        "set terminal svg noenhanced size 900,700 background 'white'\nset output ARG2\ndata = ARG1\nset grid\nset key outside\n\
         set multiplot layout 2,1\nset xlabel 'seconds'\nset yrange [0:*]\n\
         set ylabel 'requests a second'\n{}\nset ylabel 'p95 of latency, ms'\n{}\nunset multiplot\n",
        lines(2),
        lines(3)
    );
    let plan = folder.join("load.gnuplot");
    fs::write(&plan, script).with_context(|| format!("write {}", plan.display()))?;
    let output =
        Command::new("gnuplot").arg("-c").args([&plan, &file, &picture.to_path_buf()]).output().context("start gnuplot")?;
    ensure!(output.status.success(), "gnuplot: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESULTS: &str = "timeStamp\telapsed\tresponseCode\tsuccess\t\"node\"\n\
        1000900\t200\t200\ttrue\t\"s1\"\n1001000\t10\t200\ttrue\ts2\n1003000\t30\t503\tfalse\tnone\n1003500\t40\t200\ttrue\ts1\n";

    #[test]
    fn requests_are_read_with_the_second_of_their_end() {
        let samples = parse(RESULTS).unwrap();
        let sample =
            |node: &str, second, took, ok| Sample { node: node.to_owned(), second, took: Duration::from_millis(took), ok };
        assert_eq!(
            samples,
            [sample("s1", 0, 200, true), sample("s2", 0, 10, true), sample("none", 2, 30, false), sample("s1", 2, 40, true)]
        );
    }

    #[test]
    fn what_is_half_written_or_empty_is_an_error() {
        for text in ["", "timeStamp\telapsed\n", RESULTS.lines().next().unwrap(), &RESULTS[..RESULTS.len() - 4]] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_table_counts_by_node_and_the_picture_leaves_out_the_last_second() {
        let samples = parse(RESULTS).unwrap();
        let table = table(&samples);
        assert!(table.contains("| s1 | 2 | 0.7 | 40.00 | 200.00 | 200.00 | 0 |"), "{table}");
        assert!(table.contains("| all | 4 | 1.3 | 30.00 | 200.00 | 200.00 | 1 |"), "{table}");
        assert_eq!(data(&samples), "\"s1\"\n0 1 200.00\n1 0 NaN\n\n\n\"s2\"\n0 1 10.00\n1 0 NaN\n");
    }
}

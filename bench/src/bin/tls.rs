//! `bench/tls`: what HTTPS costs, with h2load.
//!
//! A lab of its own whose balancer serves HTTP and HTTPS. Requests on connections that are kept, by HTTP/1.1 and HTTP/2, and
//! requests each on a connection of its own, where the handshake is most of the work. The client shares the machine.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use bench::{machine, percentile, shared_folder};
use clap::Parser;
use e2e::{Container, Lab, Look};
use lb_fixture::certificate;

/// What HTTPS costs: requests and handshakes a second with and without TLS.
#[derive(Debug, Parser)]
#[command(name = "bench/tls")]
struct Options {
    /// How many requests each candidate gets in one round
    #[arg(long, default_value_t = 4000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    requests: u32,
    /// How many rounds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
}

/// User of the images.
const USER: u32 = 10_001;
/// Clients at once, where connections are kept.
const CLIENTS: u32 = 16;
/// Connections at once, of which each has one request.
const CONNECTIONS: u32 = 100;

/// Name, port in the container, options of h2load, and whether each request has a connection of its own.
const CANDIDATES: [(&str, u16, &[&str], bool); 5] = [
    ("HTTP/1.1", 80, &["--h1"], false),
    ("HTTP/1.1 with TLS", 443, &["--h1"], false),
    ("HTTP/2 with TLS, 8 streams", 443, &["-m", "8"], false),
    ("HTTP/1.1, new connections", 80, &["--h1"], true),
    ("HTTP/1.1 with TLS, new connections", 443, &["--h1"], true),
];

fn main() -> Result<()> {
    let options = Options::parse();
    println!("tls: {} requests, {} rounds in turns; {}", options.requests, options.rounds, machine());
    let folder = shared_folder()?;
    let path = folder.path().join("site.pem");
    fs::write(&path, certificate(&["localhost"]).concat())?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    chown(&path, Some(USER), Some(USER))?;

    let lab = Lab::new(Look::Hardened);
    let volume = format!("{}:/certs:ro", folder.path().display());
    let balancer =
        lab.balancer_with("ha", &["-v", &volume, "-p", "127.0.0.1::443", "-e", "HTTPS_REDIRECT=off", "-e", "HTTP_LOG=off"]);
    let nodes: Vec<Container> = (1..=2).map(|number| lab.node(&format!("s{number}"))).collect();
    balancer.settles_on(&nodes.iter().collect::<Vec<_>>(), 30);

    let mut rates = vec![Vec::new(); CANDIDATES.len()];
    for round in 0..=options.rounds {
        for ((name, port, arguments, is_new), rates) in CANDIDATES.iter().zip(&mut rates) {
            let rate = measure(balancer.port(*port), *port == 443, arguments, *is_new, options.requests)
                .with_context(|| (*name).to_owned())?;
            // The first round warms up.
            if round > 0 {
                rates.push(rate);
            }
        }
    }
    println!("| | requests/s, median | lowest | highest |\n|---|---|---|---|");
    for ((name, ..), rates) in CANDIDATES.iter().zip(&rates) {
        let at = |share| percentile(rates, share);
        println!("| {name} | {:.0} | {:.0} | {:.0} |", at(0.5), at(0.0), at(1.0));
    }
    Ok(())
}

/// Requests a second. Fails if one has another answer than 2xx.
fn measure(port: u16, has_tls: bool, arguments: &[&str], is_new: bool, requests: u32) -> Result<f64> {
    let url = format!("{}://127.0.0.1:{port}/health", if has_tls { "https" } else { "http" });
    // h2load has no option for it: as many clients as requests in each run.
    let (runs, requests, clients) =
        if is_new { (requests / CONNECTIONS, CONNECTIONS, CONNECTIONS) } else { (1, requests, CLIENTS) };
    let mut seconds = 0.0;
    for _ in 0..runs {
        let output = Command::new("h2load")
            .args(["-n", &requests.to_string(), "-c", &clients.to_string()])
            .args(arguments)
            .arg(&url)
            .output()
            .context("h2load: install nghttp2-client")?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success() && said.contains(&format!(" {requests} 2xx")), "{said}");
        let Some(rate) = said.lines().find_map(rate) else { bail!("no rate in: {said}") };
        seconds += f64::from(requests) / rate;
    }
    Ok(f64::from(runs * requests) / seconds)
}

/// The rate in a line such as `finished in 1.02s, 3921.57 req/s, 1.02MB/s`.
fn rate(line: &str) -> Option<f64> {
    line.strip_prefix("finished in ")?.split(", ").find_map(|part| part.strip_suffix(" req/s"))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_read() {
        assert_eq!(rate("finished in 1.02s, 3921.57 req/s, 1.02MB/s"), Some(3921.57));
        assert_eq!(rate("requests: 100 total"), None);
    }
}

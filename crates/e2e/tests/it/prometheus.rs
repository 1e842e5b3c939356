//! `docs/alerts.yml` and `docs/grafana.json`, read by Prometheus with the metrics of a real balancer.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::thread;
use std::time::Duration;

use e2e::docker::{text, try_docker};
use e2e::http::client;
use e2e::{Lab, Look, eventually};
use lb_fixture::Background;
use serde_json::Value;
use tempfile::TempDir;

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs");

/// Prometheus, which scrapes HAProxy and the tools every second.
struct Prometheus {
    address: SocketAddr,
    _process: Background,
    _folder: TempDir,
}

impl Prometheus {
    fn start(haproxy: SocketAddr, tools: SocketAddr) -> Self {
        let folder = TempDir::new().unwrap();
        let config = folder.path().join("prometheus.yml");
        // One instance for both, as the dashboard has them together.
        let text = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: [\"{DOCS}/alerts.yml\"]\nscrape_configs:\n\
             - {{ job_name: haproxy, static_configs: [{{ targets: [\"{haproxy}\"], labels: {{ instance: ha }} }}] }}\n\
             - {{ job_name: tools, scrape_timeout: 1s, static_configs: [{{ targets: [\"{tools}\"], labels: {{ instance: ha }} }}] }}\n"
        );
        fs::write(&config, text).unwrap();
        let address = free();
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
        command.arg(format!("--web.listen-address={address}"));
        Self { address, _process: Background::start(&mut command), _folder: folder }
    }

    /// What it answers to a request.
    fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, String> {
        let request = client().get(format!("http://{}/api/v1/{path}", self.address)).query_pairs(query.iter().copied());
        let text =
            request.call().and_then(|mut response| response.body_mut().read_to_string()).map_err(|error| error.to_string())?;
        let answer: Value = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
        if answer["status"] == "success" { Ok(answer["data"].clone()) } else { Err(text) }
    }

    /// The values that an expression has now.
    fn values(&self, expression: &str) -> Result<Vec<String>, String> {
        let answer = self.get("query", &[("query", expression)]).map_err(|error| format!("{expression}: {error}"))?;
        let value = |sample: &Value| sample["value"][1].as_str().unwrap_or_default().to_owned();
        Ok(answer["result"].as_array().map(|samples| samples.iter().map(value).collect()).unwrap_or_default())
    }
}

/// An address of loopback that nobody uses.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Answers each request with what `show-nodes --metrics` prints in a container, until the test ends.
fn serve_tools(container: &str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let container = container.to_owned();
    thread::spawn(move || {
        // Once a second; what differs takes two seconds more to tell, so the last answer is given meanwhile.
        let metrics = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
        let latest = metrics.clone();
        thread::spawn(move || {
            loop {
                let output = try_docker(&["exec", &container, "show-nodes", "--metrics"], "");
                if !output.status.success() {
                    return;
                }
                *latest.lock().unwrap() = text(&output.stdout);
                thread::sleep(Duration::from_millis(500));
            }
        });
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.read(&mut [0; 4096]);
            let body = metrics.lock().unwrap().clone();
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all((head + &body).as_bytes());
        }
    });
    address
}

/// The expressions of the dashboard, as they are with all instances.
fn of_dashboard() -> Vec<String> {
    fn collect(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("expr").and_then(Value::as_str).map(str::to_owned));
                fields.values().for_each(|field| collect(field, found));
            }
            Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
            _ => {}
        }
    }
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(format!("{DOCS}/grafana.json")).unwrap()).unwrap();
    let mut found = Vec::new();
    collect(&dashboard, &mut found);
    found.iter().map(|expression| expression.replace("$instance", ".*").replace("$__rate_interval", "1m")).collect()
}

/// The names of metrics in an expression.
fn metrics(expression: &str) -> impl Iterator<Item = &str> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("lb_") || word.starts_with("haproxy_"))
}

#[test]
fn the_alerts_and_the_dashboard_are_about_metrics_that_exist_and_an_alert_fires() {
    let rules = Command::new("promtool").args(["check", "rules", &format!("{DOCS}/alerts.yml")]).output().expect("promtool");
    assert!(rules.status.success() && text(&rules.stdout).contains(" rules found"), "{}", text(&rules.stderr));

    let (_lab, balancer, nodes) = Lab::with_nodes(Look::Hardened, 2);
    let haproxy = SocketAddr::from(([127, 0, 0, 1], balancer.port(1936)));
    let prometheus = Prometheus::start(haproxy, serve_tools(&balancer.name));
    let up = "sum(lb_nodes{state=\"up\"})";
    eventually("two nodes are up", 60, || {
        if prometheus.values(up)? == ["2"] { Ok(()) } else { Err(format!("{:?}", prometheus.values(up))) }
    });

    let alerts = eventually("the rules are loaded", 20, || prometheus.get("rules", &[]));
    let alerts = alerts["groups"][0]["rules"].as_array().cloned().expect("rules");
    let expressions: Vec<String> =
        alerts.iter().map(|rule| rule["query"].as_str().unwrap().to_owned()).chain(of_dashboard()).collect();
    assert!(alerts.len() > 10 && expressions.len() > alerts.len() + 10, "{expressions:?}");
    for expression in &expressions {
        let _ = prometheus.values(expression).unwrap();
        for metric in metrics(expression) {
            eventually(metric, 20, || if prometheus.values(metric)?.is_empty() { Err(expression.clone()) } else { Ok(()) });
        }
    }

    let firing = || {
        let answer = prometheus.get("alerts", &[])?;
        let firing =
            answer["alerts"].as_array().map(|alerts| alerts.iter().filter(|alert| alert["state"] == "firing").cloned().collect());
        Ok::<Vec<Value>, String>(firing.unwrap_or_default())
    };
    assert_eq!(firing().unwrap(), [] as [Value; 0]);
    nodes.iter().for_each(|node| node.kill());
    eventually("NoNode fires", 120, || {
        let firing = firing()?;
        if firing.iter().any(|alert| alert["labels"]["alertname"] == "NoNode") { Ok(()) } else { Err(format!("{firing:?}")) }
    });
}

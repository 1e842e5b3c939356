//! Several services behind one balancer: which one answers, and what becomes of the others meanwhile.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use e2e::docker::text;
use e2e::http::{Load, client};
use e2e::wait::same;
use e2e::{Balancer, Container, Lab, Look, eventually};

/// Starts a balancer for all roles.
fn balancer(lab: &Lab, options: &[&str]) -> Balancer {
    lab.balancer_with("ha", &[&["-e", "BACKEND_ROLE=*"], options].concat())
}

/// Starts a node of a service.
fn node(lab: &Lab, name: &str, role: &str, tags: &str) -> Container {
    lab.node_with(name, &["-e", &format!("ROLE={role}"), "-e", &format!("SERF_TAGS={tags}")])
}

/// The status of a request, and the address of the node that has answered; empty if none has.
fn ask(balancer: &Balancer, host: &str, path: &str) -> Result<(u16, String), String> {
    let request = client().get(format!("http://127.0.0.1:{}{path}", balancer.port(80))).header("Host", host);
    let response = request.call().map_err(|error| error.to_string())?;
    let backend = response.headers().get("x-backend-ip").and_then(|value| value.to_str().ok()).unwrap_or_default();
    Ok((response.status().as_u16(), backend.to_owned()))
}

/// Waits until these requests are answered with these statuses, each by this node or by none.
fn answers(balancer: &Balancer, expected: &[(&str, &str, u16, Option<&Container>)]) {
    for (host, path, status, node) in expected {
        let address = node.map(Container::address).unwrap_or_default();
        eventually(&format!("{host}{path} is answered by '{address}'"), 20, || {
            same(&ask(balancer, host, path)?, &(*status, address.clone()))
        });
    }
}

/// What `show-nodes` prints with these options.
fn show(balancer: &Balancer, options: &[&str]) -> String {
    text(&balancer.try_exec(&[&["show-nodes"], options].concat(), "").stdout)
}

/// Number of reloads so far.
fn reloads(balancer: &Balancer) -> String {
    let metrics = show(balancer, &["--metrics"]);
    let line = metrics.lines().find_map(|line| line.strip_prefix("lb_publishes_total{applied=\"reload\"} "));
    line.expect("a count of reloads").to_owned()
}

#[test]
fn requests_go_to_the_service_of_their_host_and_path() {
    let lab = Lab::new(Look::Hardened);
    let balancer = balancer(&lab, &[]);
    let shop = node(&lab, "shop", "shop", "host=shop.example");
    let api = node(&lab, "api", "api", "host=shop.example+*.api.example,path=/health,cookie=none");
    let rest = lab.node("rest");
    let all = [
        ("shop.example", "/", 200, Some(&shop)),
        ("Shop.Example:8080", "/", 200, Some(&shop)),
        ("shop.example", "/health", 200, Some(&api)),
        ("shop.example", "/healthy", 404, Some(&shop)),
        ("v1.api.example", "/health", 200, Some(&api)),
        ("other.example", "/", 200, Some(&rest)),
    ];
    answers(&balancer, &all);
    eventually("the four states agree", 10, || {
        let output = balancer.try_exec(&["show-nodes"], "");
        if output.status.success() { Ok(()) } else { Err(text(&output.stdout)) }
    });
    let words: Vec<Vec<String>> =
        show(&balancer, &["--routes"]).lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect();
    let expected = [
        "PLACE SERVICE NODES UP",
        "shop.example/health api 1 1",
        "shop.example shop 1 1",
        "*.api.example/health api 1 1",
        "/ backend 1 1",
    ];
    assert_eq!(words.iter().map(|words| words.join(" ")).collect::<Vec<_>>(), expected);

    // Two services in one place: the first by name has it.
    let web = node(&lab, "web", "web", "host=shop.example");
    let conflict = "service web claims shop.example, which shop has";
    eventually("the conflict is shown", 20, || {
        let shown = show(&balancer, &[]);
        if shown.contains(conflict) { Ok(()) } else { Err(shown) }
    });
    assert!(show(&balancer, &["--metrics"]).contains("\nlb_route_conflicts 1\n"));
    answers(&balancer, &all);
    web.stop();
    // It is known still, but without a node it has no claim.
    eventually("the conflict is over", 20, || {
        let log = balancer.exec(&["cat", "/var/log/serf.log"]);
        let count = |line: &str| log.lines().filter(|found| found.ends_with(line)).count();
        let is_over = count(&format!("sync-nodes: {conflict}")) == 1 && count(&format!("sync-nodes: over: {conflict}")) == 1;
        if is_over { Ok(()) } else { Err(log) }
    });

    // A service that loses its last node answers 503, alone; with a node again, without a reload.
    let (worker, before) = (balancer.worker(), reloads(&balancer));
    shop.stop();
    let rest_goes_on = [("other.example", "/", 200, Some(&rest)), ("shop.example", "/health", 200, Some(&api))];
    answers(&balancer, &[("shop.example", "/", 503, None)]);
    answers(&balancer, &rest_goes_on);
    shop.start();
    answers(&balancer, &all);
    assert_eq!((balancer.worker(), reloads(&balancer)), (worker, before));
}

#[test]
fn no_request_is_lost_when_a_service_comes_and_it_takes_one_reload() {
    let lab = Lab::new(Look::Hardened);
    let balancer = balancer(&lab, &[]);
    let rest = [lab.node("s1"), lab.node("s2")];
    balancer.settles_on(&[&rest[0], &rest[1]], 20);
    let before: u32 = reloads(&balancer).parse().unwrap();
    let load = Load::start(&format!("http://127.0.0.1:{}/", balancer.port(80)), 8);
    let enough = |more: u32| {
        let sent = load.sent();
        eventually("requests go on", 20, || if load.sent() >= sent + more { Ok(()) } else { Err(load.sent().to_string()) });
    };
    enough(200);
    let mut api = vec![node(&lab, "api1", "api", "host=api.example")];
    answers(&balancer, &[("api.example", "/", 200, Some(&api[0]))]);
    enough(200);
    let worker = balancer.worker();
    assert_eq!(reloads(&balancer), (before + 1).to_string());
    // Its further nodes come and go without one, even the last.
    api.push(node(&lab, "api2", "api", "host=api.example"));
    let mut seen = BTreeMap::new();
    eventually("both nodes answer", 20, || {
        let (status, address) = ask(&balancer, "api.example", "/")?;
        seen.insert(address, status);
        same(&seen.values().copied().collect::<Vec<_>>(), &vec![200, 200])
    });
    api.iter().for_each(Container::stop);
    answers(&balancer, &[("api.example", "/", 503, None)]);
    enough(200);
    assert_eq!((balancer.worker(), reloads(&balancer)), (worker, (before + 1).to_string()));
    let (sent, lost) = load.finish();
    assert!(lost.is_empty(), "{} of {sent} lost: {:?}", lost.len(), &lost[..lost.len().min(5)]);
}

#[test]
fn a_file_of_routes_is_followed_and_a_bad_one_changes_nothing() {
    let folder = std::env::temp_dir().join(format!("e2e-{}-routes", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    let write = |routes: &str| fs::write(folder.join("routes"), routes).unwrap();
    write("shop.example shop\n");
    let lab = Lab::new(Look::Hardened);
    let volume = format!("{}:/routes:ro", folder.display());
    let balancer = balancer(&lab, &["-v", &volume, "-e", "ROUTES=/routes/routes"]);
    let shop = node(&lab, "shop", "shop", "");
    let evil = node(&lab, "evil", "evil", "host=shop.example+bank.example");
    answers(&balancer, &[("shop.example", "/", 200, Some(&shop))]);
    eventually("it is registered", 20, || {
        let shown = show(&balancer, &[&evil.member()]);
        if shown.contains("registry  yes") { Ok(()) } else { Err(shown) }
    });
    answers(&balancer, &[("bank.example", "/", 404, None), ("shop.example", "/", 200, Some(&shop))]);
    write("shop.example shop\nbank.example evil\n");
    answers(&balancer, &[("bank.example", "/", 200, Some(&evil))]);
    write("shop.example shop\nbank example evil\n");
    let problem = "sync-nodes: routes /routes/routes: line 2: 'bank example evil' is not '<host>[/<path>] <role>'";
    eventually("it is logged", 20, || {
        let log = balancer.exec(&["cat", "/var/log/serf.log"]);
        if log.lines().filter(|line| line.ends_with(problem)).count() == 1 { Ok(()) } else { Err(log) }
    });
    answers(&balancer, &[("bank.example", "/", 200, Some(&evil)), ("shop.example", "/", 200, Some(&shop))]);
    write("shop.example shop\n");
    answers(&balancer, &[("bank.example", "/", 404, None)]);
    fs::remove_dir_all(folder).unwrap();
}

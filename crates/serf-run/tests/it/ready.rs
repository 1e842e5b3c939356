//! How `serf-run` waits for the application beside it.

use std::net::Ipv4Addr;

use lb_fixture::{Application, Background, World, eventually, loopback, members_at, only_line};
use nix::sys::signal::Signal;

/// `serf-run` at this address, which waits for what answers at `url`.
fn waiting_for(url: &str, world: &World, address: Ipv4Addr, environment: &[(&str, &str)]) -> Background {
    let mut command = world.process(env!("CARGO_BIN_EXE_serf-run"));
    command.args(["--ready", url, "--name", "s1", "--join", ""]).env("SERF_DIR", world.path("serf"));
    command.env("SERF_BIND", format!("{address}:7946")).env("SERF_RPC_ADDR", format!("{address}:7373"));
    Background::start(command.envs(environment.iter().copied()))
}

fn eventually_the_agent(world: &World, address: Ipv4Addr) {
    eventually("the agent takes commands", || members_at(address, &world.path("serf/rpc-auth")).contains("s1"));
}

/// Shows that it asked often enough, and neither wrote the configuration nor started the agent.
fn assert_waits(agent: &Background, application: &Application, world: &World) {
    eventually("it asked some times", || application.requests() >= 5);
    assert_eq!(agent.program(), "serf-run");
    assert!(!world.path("serf/agent.json").exists());
}

#[test]
fn the_agent_starts_when_the_application_is_ready_and_not_before() {
    let (world, application, address) = (World::new(), Application::start(), loopback());
    let agent = waiting_for(&application.url(), &world, address, &[]);
    assert_waits(&agent, &application, &world);
    assert_eq!(members_at(address, &world.path("serf/rpc-auth")), "");
    application.become_ready();
    eventually_the_agent(&world, address);
    assert_eq!(agent.program(), "serf");
    assert!(world.log().is_empty(), "{:?}", world.log());
}

#[test]
fn an_application_that_does_not_even_listen_yet_is_waited_for() {
    let (world, address) = (World::new(), loopback());
    let url = Application::start().url();
    let mut agent = waiting_for(&url, &world, address, &[("SERF_READY_TIMEOUT", "100ms")]);
    eventually("the wait is logged", || !world.log().is_empty());
    assert!(agent.is_running());
    assert!(world.log()[0].starts_with(&format!("serf-run: {url} is not ready after 100ms, waiting on: ")), "{:?}", world.log());
}

#[test]
fn a_long_wait_is_logged_once_and_goes_on() {
    let (world, application, address) = (World::new(), Application::start(), loopback());
    let agent = waiting_for(&application.url(), &world, address, &[("SERF_READY_TIMEOUT", "200ms")]);
    eventually("the wait is logged", || !world.log().is_empty());
    let asked = application.requests();
    eventually("it asked some times more", || application.requests() >= asked + 20);
    assert_eq!(world.log().len(), 1, "{:?}", world.log());
    let start = format!("serf-run: {} is not ready after 200ms, waiting on: ", application.url());
    assert!(world.log()[0].starts_with(&start) && world.log()[0].contains("503"), "{:?}", world.log());
    assert_eq!(agent.said().trim_end(), world.log()[0]);
    application.become_ready();
    eventually_the_agent(&world, address);
    assert_eq!(world.log().len(), 1, "{:?}", world.log());
}

#[test]
fn none_waits_for_nothing() {
    let (world, address) = (World::new(), loopback());
    let _agent = waiting_for("none", &world, address, &[]);
    eventually_the_agent(&world, address);
}

#[test]
fn a_signal_ends_the_wait() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let (world, application) = (World::new(), Application::start());
        let mut agent = waiting_for(&application.url(), &world, loopback(), &[]);
        assert_waits(&agent, &application, &world);
        agent.signal(signal);
        agent.wait();
    }
}

/// Docker hands the proxy of its own configuration to every container; the application beside is never behind it.
#[test]
fn a_proxy_in_the_environment_is_not_asked() {
    let (world, application, address) = (World::new(), Application::start(), loopback());
    application.become_ready();
    let nobody = Application::start().url().replace("/health", "");
    let _agent = waiting_for(&application.url(), &world, address, &[("HTTP_PROXY", &nobody), ("http_proxy", &nobody)]);
    eventually_the_agent(&world, address);
}

#[test]
fn a_url_that_is_none_is_told_as_wrong() {
    for url in ["127.0.0.1:3000/health", "ftp://127.0.0.1/", "nonsense", "http://"] {
        let world = World::new();
        let mut run = waiting_for(url, &world, loopback(), &[]);
        assert_eq!(run.wait().code(), Some(2), "{url}: {}", run.said());
    }
}

#[test]
fn readiness_can_be_asked_for_by_itself() {
    let (world, application) = (World::new(), Application::start());
    let check = || {
        let mut command = world.command(env!("CARGO_BIN_EXE_serf-run"));
        command.arg("check-ready").env("SERF_READY", application.url());
        command.assert()
    };
    let line = only_line(&check().code(1));
    assert!(line.starts_with(&format!("serf-run: {} is not ready: ", application.url())) && line.contains("503"), "{line}");
    application.become_ready();
    check().code(0).stderr("");
    drop(application);
    assert!(!world.path("serf").exists(), "no agent was started");
}

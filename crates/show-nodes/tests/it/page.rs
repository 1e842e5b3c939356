//! The page of the docs.

use lb_fixture::{Agent, Application, assert_page, eventually};

use crate::balancer::{Balancer, application_of, line};

#[test]
fn the_page_shows_what_it_does() {
    let s1 = Agent::start("s1", &["role=backend"]);
    let s2 = Agent::start("s2", &["role=backend", "weight=50"]);
    let _applications = [&s1, &s2].map(|agent| {
        let application = Application::start_at(application_of(agent));
        application.become_ready();
        application
    });
    let balancer = Balancer::start(&[(&line("s1", s1.address()), &s1), (&(line("s2", s2.address()) + " weight=50"), &s2)]);
    eventually("HAProxy has checked its servers", || {
        let output = balancer.show().arg("--wide").assert().success();
        String::from_utf8_lossy(&output.get_output().stdout).matches("L7OK").count() == 2
    });
    let mut show = balancer.world.process(env!("CARGO_BIN_EXE_show-nodes"));
    assert_page(&balancer.world, show.env("SERF_RPC_ADDR", balancer.agent.rpc()));
}

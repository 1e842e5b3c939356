//! Who may see the statistics.
#![allow(clippy::unwrap_used, reason = "what the tests share is test code, which the lint cannot know")]

use std::fs;

use lb_fixture::{TEMPLATE, World};

/// `openssl passwd -5 -salt salt secret`
const HASH: &str = "$5$salt$kpa26zwgX83BPSR8d7w93OIXbFt/d3UOTZaAu5vsTM6";

fn with_users(text: &str) -> World {
    let world = World::with_template(TEMPLATE);
    fs::write(world.path("users"), text).unwrap();
    world
}

#[test]
fn the_users_of_the_file_are_in_the_configuration() {
    let world = with_users(&format!("me:{HASH}\nanna:{HASH}\n"));
    world.command(env!("CARGO_BIN_EXE_render-cfg")).env("STATS_AUTH_FILE", world.path("users")).assert().success();
    world.assert_valid();
    let text = world.text();
    assert!(text.ends_with(&format!("\nuserlist stats\n    user me password {HASH}\n    user anna password {HASH}\n")), "{text}");
    assert!(text.contains("    http-request auth realm statistics unless { http_auth(stats) }\n"), "{text}");
}

#[test]
fn a_file_that_is_wrong_leaves_the_last_good_configuration() {
    let world = with_users(&format!("me:{HASH}\n"));
    let render = || {
        let mut command = world.command(env!("CARGO_BIN_EXE_render-cfg"));
        command.env("STATS_AUTH_FILE", world.path("users")).assert()
    };
    render().success();
    let before = world.text();
    for (text, reason) in [
        (format!("me:{HASH}\nme:secret\n"), ": line 2: user me: the password is not a hash as 'openssl passwd -6' prints it\n"),
        (String::new(), ": line 1: there is no user: nobody could see the statistics\n"),
    ] {
        fs::write(world.path("users"), text).unwrap();
        let line = format!("render-cfg: users {}{reason}", world.path("users").display());
        render().failure().code(1).stderr(line);
        assert_eq!(world.text(), before);
    }
    fs::remove_file(world.path("users")).unwrap();
    let line = format!("render-cfg: read users {}: No such file or directory (os error 2)\n", world.path("users").display());
    render().failure().code(1).stderr(line);
    assert_eq!(world.text(), before);
}

//! What `cargo deb` is told about the package, without making it.
#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "what the tests share is test code, which the lint cannot know")]

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

const CRATE: &str = env!("CARGO_MANIFEST_DIR");

/// `[package.metadata.deb]`
fn deb() -> Value {
    let cargo = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version=1"])
        .current_dir(CRATE)
        .output()
        .unwrap();
    assert!(cargo.status.success(), "{}", String::from_utf8_lossy(&cargo.stderr));
    let metadata: Value = serde_json::from_slice(&cargo.stdout).unwrap();
    let package = metadata["packages"].as_array().unwrap().iter().find(|package| package["name"] == "manual");
    package.unwrap()["metadata"]["deb"].clone()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[test]
fn the_changelog_begins_with_this_version() {
    let path = Path::new(CRATE).join(text(&deb()["changelog"]));
    let changelog = fs::read_to_string(path).unwrap();
    let wanted = format!("lb-tools ({}-", env!("CARGO_PKG_VERSION"));
    assert!(changelog.starts_with(&wanted), "not {wanted}: {changelog}");
}

#[test]
fn every_file_that_is_packaged_is_there() {
    for asset in deb()["assets"].as_array().unwrap() {
        let source = text(&asset[0]);
        // What build-deb.sh makes; and a pattern, which cargo-deb refuses when nothing matches it.
        if source.starts_with("../../target/") || source.contains('*') {
            continue;
        }
        assert!(Path::new(CRATE).join(source).is_file(), "{source}");
    }
}

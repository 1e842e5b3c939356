//! SECURITY.md names the tests that show what it says; each of them is there.
#![allow(clippy::unwrap_used, reason = "what the tests share is test code, which the lint cannot know")]

use std::fs;
use std::path::Path;

#[test]
fn every_test_that_security_md_names_exists() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = fs::read_to_string(top.join("SECURITY.md")).unwrap();
    // `CRATE MODULE::NAME`
    let names = text.split('`').skip(1).step_by(2).filter_map(|code| {
        let (krate, test) = code.split_once(' ')?;
        let (module, name) = test.split_once("::")?;
        Some((krate, module, name))
    });
    let mut found = 0;
    for (krate, module, name) in names {
        let path = top.join("crates").join(krate).join("tests/it").join(module).with_extension("rs");
        let tests = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(tests.contains(&format!("#[test]\nfn {name}() {{")), "{}: no test {name}", path.display());
        found += 1;
    }
    assert!(found > 30, "{found} tests");
}

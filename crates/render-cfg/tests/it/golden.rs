//! The templates in the folder `golden`, and what becomes of them: `NAME.hb` with the nodes of `NAME.nodes`, a line each
//! as in the registry, renders to `NAME.cfg`, or is refused with the message `NAME.error`. `SNAPSHOTS=overwrite` writes
//! these two anew.
#![allow(clippy::panic, clippy::unwrap_used, reason = "what the tests share is test code, which the lint cannot know")]

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use lb_fixture::World;
use snapbox::{Assert, Data};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Shows that a template gives what the files beside it say.
fn check(template: &Path) {
    let name = template.file_name().unwrap().to_str().unwrap();
    let beside = |extension: &str| template.with_extension(extension);
    let world = World::with_template(&read(template));
    read(&beside("nodes")).lines().for_each(|node| world.register(node));
    // A simple template is filled in without the engine, but not where there are names of the caller.
    for options in [&["--stdout"][..], &["--stdout", "--set", "unused="]] {
        let output = world.command(env!("CARGO_BIN_EXE_render-cfg")).args(options).output().unwrap();
        let (printed, said) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        let (text, kind, other) = match output.status.code() {
            Some(0) if said.is_empty() => (printed, "cfg", "error"),
            Some(1) if printed.is_empty() => (said.replace(&*world.template().to_string_lossy(), name), "error", "cfg"),
            code => panic!("{name} {options:?}: exit {code:?}: {printed}{said}"),
        };
        assert!(!beside(other).exists(), "{} is there, but {options:?} gives this {kind}: {text}", beside(other).display());
        Assert::new().action_env("SNAPSHOTS").normalize_paths(false).eq(text, Data::read_from(&beside(kind), None));
    }
}

#[test]
fn every_template_gives_what_is_beside_it() {
    let files: Vec<PathBuf> = fs::read_dir(FOLDER).unwrap().map(|entry| entry.unwrap().path()).collect();
    let (templates, others): (Vec<_>, Vec<_>) = files.iter().partition(|path| path.extension() == Some(OsStr::new("hb")));
    assert!(templates.len() > 10, "{templates:?}");
    for path in others {
        assert!(templates.contains(&&path.with_extension("hb")), "{}: of no template", path.display());
    }
    templates.into_iter().for_each(|template| check(template));
}

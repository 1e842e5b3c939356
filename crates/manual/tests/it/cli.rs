//! What is made for the tools: read by man, used by bash.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "what the tests share is test code, which the lint cannot know")]

use std::fs;
use std::path::Path;
use std::process;

use assert_cmd::Command;
use tempfile::TempDir;

fn made() -> TempDir {
    let directory = TempDir::new().unwrap();
    Command::new(env!("CARGO_BIN_EXE_manual")).arg(directory.path()).assert().success();
    directory
}

/// Every crate with a program, but this one.
fn tools() -> Vec<String> {
    let crates = fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).unwrap();
    let programs = crates.map(|entry| entry.unwrap().path()).filter(|path| path.join("src/main.rs").exists());
    let names = programs.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned());
    names.filter(|name| name != "manual").collect()
}

/// The page as man shows it.
fn shown(page: &Path) -> String {
    let man = process::Command::new("man")
        .args(["--warnings", "--local-file"])
        .arg(page)
        .envs([("LC_ALL", "C.UTF-8"), ("MANWIDTH", "120"), ("MAN_KEEP_FORMATTING", "")])
        .output()
        .expect("man runs");
    assert!(man.status.success() && man.stderr.is_empty(), "{}: {}", page.display(), String::from_utf8_lossy(&man.stderr));
    String::from_utf8(man.stdout).unwrap()
}

#[test]
fn every_tool_has_a_page_that_man_finds_no_fault_with() {
    let directory = made();
    let tools = tools();
    assert!(tools.len() >= 10, "{tools:?}");
    for tool in tools {
        let text = shown(&directory.path().join(format!("man1/{tool}.1")));
        for title in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXAMPLES", "EXIT STATUS", "SEE ALSO"] {
            assert!(text.lines().any(|line| line == title), "{tool}: no {title}:\n{text}");
        }
        let documented = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../docs/{tool}.md"));
        assert!(documented.exists(), "{tool} has no page in docs");
        for shell in [format!("bash/{tool}"), format!("zsh/_{tool}"), format!("fish/{tool}.fish")] {
            assert!(fs::read_to_string(directory.path().join(&shell)).unwrap().contains(&tool), "{shell}");
        }
    }
}

#[test]
fn a_page_names_the_environment_of_an_option_and_keeps_backslashes() {
    let directory = made();
    let text = shown(&directory.path().join("man1/member-join.1"));
    assert!(text.contains("NODES_DIR environment variable"), "{text}");
    assert!(text.contains(r"printf 's3\t172.18.0.5\tbackend\tweight=50\n' | docker exec"), "{text}");
}

#[test]
fn a_page_has_the_commands_of_a_tool_with_their_options() {
    let text = shown(&made().path().join("man1/serf-run.1"));
    for part in ["SERF-RUN JOIN\n", "SERF-RUN CHECK-READY\n", "for as long as the agent runs", "SERF_JOIN"] {
        assert!(text.contains(part), "no {part:?}: {text}");
    }
}

#[test]
fn bash_completes_options_and_their_values() {
    let directory = made();
    let complete = |tool: &str, words: &str| {
        // What bash itself does at the Tab key.
        let script = format!(
            r#". "$0"; COMP_WORDS=({tool} {words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
            function=$(complete -p {tool} | grep -oP '(?<=-F )\S+')
            "$function" {tool} "${{COMP_WORDS[-1]}}" "${{COMP_WORDS[-2]}}"; echo "${{COMPREPLY[@]}}""#
        );
        let file = directory.path().join("bash").join(tool);
        let bash = process::Command::new("bash").arg("-ec").arg(script).arg(file).output().unwrap();
        assert!(bash.status.success(), "{}", String::from_utf8_lossy(&bash.stderr));
        String::from_utf8(bash.stdout).unwrap()
    };
    assert_eq!(complete("render-cfg", "--std"), "--stdout\n");
    assert_eq!(complete("serf-run", "--profile l"), "local lan\n");
    assert_eq!(complete("serf-run", "ch"), "check-ready\n");
}

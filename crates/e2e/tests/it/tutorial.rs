//! `docs/lab.md` and `docs/services.md` as their readers paste them: every command runs, in order, in a lab of the test's own,
//! and shows what the page says it shows.
//!
//! The pages use the lab's names, network and ports. Here the containers' names get a prefix, and the network and the
//! ports are others, so that a running lab is left alone; nothing else of a command is changed.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use e2e::docker::{docker, text};
use e2e::eventually;

const TOP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
/// Stands for what differs each time: in a line for some text, as a line for any number of lines.
const ANYTHING: &str = "…";

/// A block of commands, and the output that the page shows right below it, if any.
struct Block {
    line: usize,
    script: String,
    shows: Option<String>,
}

fn page(name: &str) -> String {
    fs::read_to_string(Path::new(TOP).join("docs").join(name)).expect("the page is there")
}

fn blocks(page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut lines = page.lines().enumerate();
    let mut right_below = false;
    while let Some((number, line)) = lines.next() {
        let Some(language) = line.strip_prefix("```") else {
            right_below &= line.is_empty();
            continue;
        };
        let content = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```");
        let content: String = content.flat_map(|line| [line, "\n"]).collect();
        match (language, blocks.last_mut()) {
            ("sh", _) => blocks.push(Block { line: number + 1, script: content, shows: None }),
            ("text", Some(block)) if right_below => block.shows = Some(content),
            ("conf", _) => {}
            _ => panic!("line {}: neither commands nor their output", number + 1),
        }
        right_below = language == "sh";
    }
    blocks
}

/// The reader's lab.
struct Reader {
    prefix: String,
    network: String,
}

impl Reader {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let prefix = format!("e2e-{}-page{}-", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        Self { network: format!("{prefix}net"), prefix }
    }

    fn run(&self, script: &str) -> Output {
        Command::new("timeout")
            .args(["300", "sh", "-ec", &self.adapted(script)])
            .current_dir(TOP)
            .envs([("PREFIX", self.prefix.as_str()), ("NETWORK", &self.network), ("BIND", "127.0.0.1")])
            .envs([("HTTP_PORT", "0"), ("STATS_PORT", "0"), ("SOCKET_PORT", "0")])
            .output()
            .expect("the shell runs")
    }

    fn adapted(&self, script: &str) -> String {
        let is_part = |letter: char| !letter.is_whitespace() && !"()'\";".contains(letter);
        let mut adapted = String::new();
        for word in script.split_inclusive(|letter| !is_part(letter)) {
            let end = word.find(|letter| !is_part(letter)).unwrap_or(word.len());
            let (word, rest) = word.split_at(end);
            adapted += &match word {
                "heig" => self.network.clone(),
                "80:80" | "1936:1936" | "9999:9999" => format!("127.0.0.1::{}", word.split(':').next().unwrap()),
                "ha" | "s1" | "s2" | "s3" => format!("{}{word}", self.prefix),
                "container:s1" => format!("container:{}s1", self.prefix),
                _ => word.to_owned(),
            };
            adapted += rest;
        }
        for (name, port) in [("localhost:1936", "1936"), ("localhost:9999", "9999"), ("localhost/", "80")] {
            if adapted.contains(name) {
                let published = docker(&["port", &format!("{}ha", self.prefix), port]);
                adapted = adapted.replace(name, &name.replace(name.trim_end_matches('/'), &published));
            }
        }
        adapted
    }

    /// What the reader of the page would have seen.
    fn seen(&self, output: &Output) -> String {
        text(&output.stdout).replace(&self.network, "heig").replace(&self.prefix, "")
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.run("./start-containers.sh down");
    }
}

/// The line with `ID` and `ADDRESS` for each container ID and each address.
fn without_identity(line: &str) -> String {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '.';
    let mut plain = String::new();
    for token in line.trim().split_inclusive(|letter| !is_part(letter)) {
        let end = token.find(|letter| !is_part(letter)).unwrap_or(token.len());
        let (token, rest) = token.split_at(end);
        let is_id = token.len() == 12 && token.chars().all(|letter| letter.is_ascii_hexdigit());
        let is_address = token.parse::<std::net::Ipv4Addr>().is_ok();
        plain += if is_id {
            "ID"
        } else if is_address {
            "ADDRESS"
        } else {
            token
        };
        plain += rest;
    }
    plain
}

fn line_fits(shown: &str, seen: &str) -> bool {
    let (shown, seen) = (without_identity(shown), without_identity(seen));
    let mut parts = shown.split(ANYTHING);
    let Some(mut rest) = parts.next().and_then(|first| seen.strip_prefix(first)) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    true
}

fn fits(shown: &[&str], seen: &[&str]) -> bool {
    match (shown, seen) {
        ([], []) => true,
        ([ANYTHING, shown @ ..], _) => (0..=seen.len()).any(|skipped| fits(shown, &seen[skipped..])),
        ([first, shown @ ..], [line, seen @ ..]) => line_fits(first, line) && fits(shown, seen),
        _ => false,
    }
}

#[test]
fn every_command_of_the_page_does_what_the_page_says() {
    follow("lab.md", 20, 10);
}

#[test]
fn every_command_about_services_does_what_the_page_says() {
    follow("services.md", 6, 4);
}

/// Runs every command of a page, which has at least so many blocks, and so many with output.
fn follow(name: &str, least: usize, least_shown: usize) {
    let blocks = blocks(&page(name));
    let shown = blocks.iter().filter(|block| block.shows.is_some()).count();
    assert!(blocks.len() >= least && shown >= least_shown, "{} blocks, {shown} with output", blocks.len());
    let reader = Reader::new();
    for block in blocks {
        let what = format!("docs/{name}, line {}", block.line);
        let Some(shows) = block.shows else {
            let output = reader.run(&block.script);
            assert!(output.status.success(), "{what}: {}{}", text(&output.stdout), text(&output.stderr));
            continue;
        };
        // What only looks may be looked at again until it shows what was done before.
        eventually(&what, 40, || {
            let output = reader.run(&block.script);
            let seen = reader.seen(&output);
            let fit = fits(&shows.lines().collect::<Vec<_>>(), &seen.lines().collect::<Vec<_>>());
            if fit { Ok(()) } else { Err(format!("{seen}{}", text(&output.stderr))) }
        });
    }
}

#[test]
fn every_link_of_the_page_leads_somewhere() {
    let page = page("lab.md");
    let links: BTreeSet<&str> =
        page.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()).filter(|link| !link.starts_with("http")).collect();
    assert!(links.len() > 10, "{links:?}");
    for link in links {
        let (file, heading) = link.split_once('#').unwrap_or((link, ""));
        let file = Path::new(TOP).join("docs").join(if file.is_empty() { "lab.md" } else { file });
        assert!(file.exists(), "{link}");
        if !heading.is_empty() {
            let text = fs::read_to_string(&file).unwrap();
            assert!(text.lines().any(|line| line.strip_prefix("## ").is_some_and(|title| anchor(title) == heading)), "{link}");
        }
    }
}

/// A heading's name in links.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|letter| letter.is_alphanumeric() || *letter == ' ' || *letter == '-');
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

#[test]
fn what_differs_each_time_is_the_only_thing_that_may_differ() {
    assert!(line_fits("3f2a9c1b7d5e 172.18.0.3", "aaaaaaaaaaaa 10.0.0.9"));
    assert!(!line_fits("3f2a9c1b7d5e 172.18.0.3", "s1 10.0.0.9"));
    assert!(line_fits("… joins … now", "at 14:02 s1 joins heig now"));
    assert!(!line_fits("… joins … now", "at 14:02 s1 joins heig later"));
    assert!(fits(&["a", ANYTHING, "c"], &["a", "b", "b", "c"]) && fits(&[ANYTHING], &[]));
    assert!(!fits(&["a", "c"], &["a", "b", "c"]) && !fits(&["a"], &[]) && !fits(&[], &["a"]));
}

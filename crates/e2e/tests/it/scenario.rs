//! What each tool does in the tests that disturb it: from one state to another, and what may be seen in between.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;

use e2e::live::member_list;
use e2e::wait::same;
use e2e::{Live, State, eventually};
use lb_fixture::inject::Injection;

/// Each scenario begins here.
const OLD: State = State { nodes: &["s1 127.0.0.2 port=9", "s2 127.0.0.3 port=9 weight=50"], revision: "a" };
const JOINED: State =
    State { nodes: &["s1 127.0.0.2 port=9", "s2 127.0.0.3 port=9 weight=60", "s3 127.0.0.4 port=9"], revision: "a" };
const LEFT: State = State { nodes: &["s1 127.0.0.2 port=9"], revision: "a" };
const CHANGED: State = State { nodes: &["s2 127.0.0.3 port=9 weight=60", "s3 127.0.0.4 port=9"], revision: "a" };
const RELOADED: State = State { revision: "b", ..CHANGED };

/// How far to the right of the picture somebody has brought the new state before the tool runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Before {
    /// Only the tool's input has it.
    Input,
    /// Registry and template have it.
    Registry,
    /// The file has it too.
    File,
}

/// One tool, and what it does.
#[derive(Debug)]
pub struct Scenario {
    /// Name of the tool, and how it does it where there are two ways.
    pub name: &'static str,
    input: Input,
    before: Before,
    new: State<'static>,
    /// It replaces files.
    pub writes: bool,
    /// It talks with HAProxy.
    pub talks: bool,
}

#[derive(Debug)]
enum Input {
    Lines(&'static str),
    MemberList,
    Nothing,
}

/// All tools.
pub const SCENARIOS: [Scenario; 7] = [
    Scenario {
        name: "member-join",
        input: Input::Lines("s2\t127.0.0.3\tbackend\tport=9,weight=60\ns3\t127.0.0.4\tbackend\tport=9\n"),
        before: Before::Input,
        new: JOINED,
        writes: true,
        talks: true,
    },
    Scenario {
        name: "member-leave",
        input: Input::Lines("s2\t127.0.0.3\tbackend\t\n"),
        before: Before::Input,
        new: LEFT,
        writes: true,
        talks: true,
    },
    Scenario {
        name: "sync-nodes by commands",
        input: Input::MemberList,
        before: Before::Input,
        new: CHANGED,
        writes: true,
        talks: true,
    },
    Scenario {
        name: "sync-nodes by reload",
        input: Input::MemberList,
        before: Before::Input,
        new: RELOADED,
        writes: true,
        talks: true,
    },
    Scenario { name: "render-cfg", input: Input::Nothing, before: Before::Registry, new: RELOADED, writes: true, talks: false },
    Scenario {
        name: "reload-ha by commands",
        input: Input::Nothing,
        before: Before::File,
        new: CHANGED,
        writes: true,
        talks: true,
    },
    Scenario {
        name: "reload-ha by reload",
        input: Input::Nothing,
        before: Before::File,
        new: RELOADED,
        writes: true,
        talks: true,
    },
];

/// A live HAProxy on which a scenario is played again and again.
pub struct Stage {
    scenario: &'static Scenario,
    live: Live,
    /// The file in the old state and in the new one.
    texts: [String; 2],
}

/// What became of a disturbed run.
#[derive(Debug)]
pub struct Run {
    /// Whether the fault was met.
    pub hit: bool,
    /// Exit code, or `None` after a signal.
    pub code: Option<i32>,
    /// The signal, if one ended it.
    pub signal: Option<i32>,
    /// Standard error.
    pub said: String,
    /// The failed call could have been the one that says something.
    pub is_mute: bool,
}

impl Stage {
    /// Starts HAProxy.
    pub fn new(scenario: &'static Scenario) -> Self {
        let live = Live::start(&OLD);
        let old = live.world.text();
        live.set(&scenario.new);
        let texts = [old, live.world.text()];
        Self { scenario, live, texts }
    }

    /// The system calls of an undisturbed run.
    pub fn calls(&self) -> BTreeSet<String> {
        self.begin();
        let run = self.run(self.live.traced(self.tool(), None));
        assert_eq!(run.code, Some(0), "{}", run.said);
        self.is_done().unwrap();
        self.live.world.trace().calls()
    }

    /// Plays the scenario with a fault.
    pub fn run_with(&self, injection: &Injection) -> Run {
        self.begin();
        self.run(self.live.traced(self.tool(), Some(injection)))
    }

    /// Shows that each file is wholly old or wholly new, and that no node was lost that is in both states; then, that the
    /// next run does what the disturbed one did not, and leaves nothing behind.
    pub fn recovers(&self) -> Result<(), String> {
        self.is_old_or_new()?;
        let run = eventually("HAProxy is quick enough to be asked", 60, || {
            let run = self.run(self.live.command(self.tool()));
            // A busy machine reloads for longer than a tool waits; it would be told to run again.
            if run.said.contains("timed out") { Err(run.said) } else { Ok(run) }
        });
        if run.code != Some(0) {
            return Err(format!("the next run: {}", run.said));
        }
        self.is_done().map_err(|text| format!("after the next run: {text}"))?;
        same(&self.live.temporary_files(), &Vec::new())
    }

    fn is_old_or_new(&self) -> Result<(), String> {
        let text = self.live.world.text();
        if !self.texts.contains(&text) {
            return Err(format!("the file is neither old nor new: {:?}", self.live.world.servers()));
        }
        let found = self.live.world.nodes();
        let all = [OLD.nodes, self.scenario.new.nodes];
        if let Some(line) = found.iter().find(|line| !all.iter().any(|nodes| nodes.contains(&line.as_str()))) {
            return Err(format!("neither old nor new: {line:?}"));
        }
        // A reload that was asked for goes on without the tool.
        let servers = eventually("HAProxy answers", 60, || self.live.servers());
        for stays in OLD.nodes.iter().map(|line| name(line)).filter(|old| all[1].iter().any(|new| name(new) == *old)) {
            if !found.iter().any(|line| name(line) == stays) || !servers.iter().any(|server| name(server) == stays) {
                return Err(format!("{stays} is lost: registry {found:?}, process {servers:?}"));
            }
        }
        Ok(())
    }

    /// Name of the tool.
    pub fn tool(&self) -> &'static str {
        self.scenario.name.split(' ').next().unwrap()
    }

    fn begin(&self) {
        let (live, new) = (&self.live, &self.scenario.new);
        live.set(&OLD);
        // A fault's trace must not be that of the run before.
        let _ = fs::remove_file(live.world.path("trace"));
        live.set_template(new.revision);
        if self.scenario.before >= Before::Registry {
            for old in OLD.nodes {
                fs::remove_file(live.world.nodes_dir().join(name(old))).unwrap();
            }
            new.nodes.iter().for_each(|line| live.world.register(line));
        }
        if self.scenario.before >= Before::File {
            fs::write(live.world.config(), &self.texts[1]).unwrap();
        }
    }

    fn run(&self, mut command: assert_cmd::Command) -> Run {
        let input = match self.scenario.input {
            Input::Lines(lines) => lines.to_owned(),
            Input::MemberList => member_list(self.scenario.new.nodes),
            Input::Nothing => String::new(),
        };
        if matches!(self.scenario.input, Input::MemberList) {
            command.args(["--from", "-"]);
        }
        let output = command.write_stdin(input).output().unwrap();
        let trace = self.live.world.path("trace").exists().then(|| self.live.world.trace());
        Run {
            hit: trace.as_ref().is_some_and(lb_fixture::inject::Trace::is_hit),
            code: output.status.code(),
            signal: output.status.signal(),
            said: String::from_utf8(output.stderr).unwrap(),
            is_mute: trace.is_some_and(|trace| trace.injected().any(|call| call.contains("write(2, "))),
        }
    }

    /// What the tool has to bring about; what is right of it in the picture stays as it was.
    fn is_done(&self) -> Result<(), String> {
        let new = &self.scenario.new;
        self.live.registry_is(new)?;
        self.live.file_is(new)?;
        self.live.process_is(if self.scenario.talks { new } else { &OLD })
    }
}

/// The first word.
fn name(line: &str) -> &str {
    line.split(' ').next().unwrap()
}

/// A test of its own for each scenario, all by this function, which takes the scenario's name.
macro_rules! tests_by {
    ($check:path) => {
        crate::scenario::tests_by!($check:
            member_join = "member-join",
            member_leave = "member-leave",
            sync_nodes_by_commands = "sync-nodes by commands",
            sync_nodes_by_reload = "sync-nodes by reload",
            render_cfg = "render-cfg",
            reload_ha_by_commands = "reload-ha by commands",
            reload_ha_by_reload = "reload-ha by reload",
        );
    };
    ($check:path: $($test:ident = $name:literal,)*) => {
        $(
            #[test]
            fn $test() {
                $check($name);
            }
        )*
    };
}
pub(crate) use tests_by;

//! A real browser: headless Chromium, driven by the Chrome DevTools Protocol.
//!
//! With `--remote-debugging-pipe`, Chromium reads commands from file descriptor 3 and writes answers and events to 4, each a JSON
//! object that ends with a zero byte. So no library for WebSockets is needed.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use base64::Engine;
use base64::prelude::BASE64_STANDARD as STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A browser with one page, which is closed when the value is dropped.
#[derive(Debug)]
pub struct Browser {
    process: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// The id of the last command.
    last: u64,
    /// The page.
    session: Option<String>,
    /// What the page has complained about.
    complaints: Vec<String>,
    _profile: TempDir,
}

impl Browser {
    /// Starts the browser and opens a page.
    ///
    /// # Panics
    /// If Chromium is not installed or does not start.
    #[must_use]
    pub fn open(url: &str) -> Self {
        Self::start(url, &TempDir::new().unwrap(), "")
    }

    /// The same for a browser that trusts an authority, given by its certificate, and finds `host` at an address.
    ///
    /// # Panics
    /// If Chromium or `certutil` is not installed, or does not start.
    #[must_use]
    pub fn open_trusting(url: &str, authority: &Path, host: &str, address: &str) -> Self {
        let home = TempDir::new().unwrap();
        let store = home.path().join(".pki/nssdb");
        fs::create_dir_all(&store).unwrap();
        let store = format!("sql:{}", store.display());
        let authority = authority.display().to_string();
        for arguments in [&["-N", "--empty-password"][..], &["-A", "-n", "authority", "-t", "C,,", "-i", &authority]] {
            let output = Command::new("certutil").args(["-d", &store]).args(arguments).output().expect("certutil is installed");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        Self::start(url, &home, &format!("--host-resolver-rules=MAP {host} {address}"))
    }

    fn start(url: &str, home: &TempDir, option: &str) -> Self {
        let profile = TempDir::new().unwrap();
        // The time limit ends it even if the test is killed. Only a shell can give it further descriptors.
        let script = "exec timeout 300 chromium --headless --no-sandbox --disable-gpu --hide-scrollbars \
                      --remote-debugging-pipe --user-data-dir=\"$0\" ${1:+\"$1\"} 3<&0 4>&1 >/dev/null 2>&1 </dev/null";
        let mut process = Command::new("sh")
            .args(["-c", script])
            .arg(profile.path())
            .arg(option)
            .env("HOME", home.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (commands, answers) = (process.stdin.take().unwrap(), BufReader::new(process.stdout.take().unwrap()));
        let mut browser = Self { process, commands, answers, last: 0, session: None, complaints: Vec::new(), _profile: profile };
        let page = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let session = browser.call("Target.attachToTarget", json!({ "targetId": page["targetId"], "flatten": true }));
        browser.session = Some(session["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Runtime", "Log", "Page", "Accessibility"] {
            let _ = browser.call(&format!("{domain}.enable"), json!({}));
        }
        let _ = browser.call("Page.navigate", json!({ "url": url }));
        browser
    }

    /// Sends a command of the protocol and returns its result.
    ///
    /// # Panics
    /// If the browser has ended, or refuses the command.
    pub fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.last += 1;
        let mut command = json!({ "id": self.last, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            command["sessionId"] = json!(session);
        }
        self.commands.write_all(format!("{command}\0").as_bytes()).unwrap();
        loop {
            let mut message = Vec::new();
            self.answers.read_until(0, &mut message).unwrap();
            assert_eq!(message.pop(), Some(0), "Chromium has ended");
            let mut message: Value = serde_json::from_slice(&message).unwrap();
            if message["id"] == self.last {
                assert_eq!(message["error"], Value::Null, "{method}");
                return message["result"].take();
            }
            if matches!(
                message["method"].as_str(),
                Some("Runtime.exceptionThrown" | "Log.entryAdded" | "Runtime.consoleAPICalled")
            ) {
                self.complaints.push(message["params"].to_string());
            }
        }
    }

    /// The value of a JavaScript expression.
    ///
    /// # Panics
    /// If it fails.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let parameters = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let mut answer = self.call("Runtime.evaluate", parameters);
        assert_eq!(answer["exceptionDetails"], Value::Null, "{expression}");
        answer["result"]["value"].take()
    }

    /// Sets the width of the page, and whether it is dark.
    pub fn look_like(&mut self, width: u32, is_dark: bool) {
        let metrics = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false });
        let _ = self.call("Emulation.setDeviceMetricsOverride", metrics);
        let scheme = if is_dark { "dark" } else { "light" };
        let _ =
            self.call("Emulation.setEmulatedMedia", json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] }));
    }

    /// The page as a picture, in the format PNG.
    ///
    /// # Panics
    /// If the browser makes none.
    pub fn picture(&mut self) -> Vec<u8> {
        let answer = self.call("Page.captureScreenshot", json!({}));
        STANDARD.decode(answer["data"].as_str().unwrap()).unwrap()
    }

    /// Uncaught exceptions, violations of the page's policy, and whatever else is on the console.
    #[must_use]
    pub fn complaints(&self) -> &[String] {
        &self.complaints
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It ends when it gets the signal from `timeout`, or may have ended already.
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        let _ = self.process.wait();
    }
}

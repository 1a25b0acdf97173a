//! Chromium without a window, spoken to by the DevTools protocol over a pipe.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use crate::process;

/// How long the browser may take for one answer.
const ANSWER: Duration = Duration::from_secs(60);

/// What the browser is called, where it is installed.
const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// A browser with one page.
pub(crate) struct Browser {
    child: Child,
    input: ChildStdin,
    messages: Receiver<Value>,
    sent: u64,
    session: Option<String>,
    profile: PathBuf,
    /// What the page's console said, its exceptions, and what it asked a network for.
    pub(crate) complaints: Vec<String>,
}

impl Browser {
    /// Starts a browser whose profile is new. It is kept in `folder`, which is removed with the browser.
    pub(crate) fn start(folder: &Path, width: u32, height: u32) -> Result<Self> {
        let program = NAMES
            .iter()
            .find_map(|name| process::on_path(name).next())
            .context("there is no Chromium on PATH; Debian's package is called chromium")?;
        let profile = folder.join(format!("profile-{}", std::process::id()));
        fs::create_dir_all(&profile).with_context(|| format!("cannot create {}", profile.display()))?;
        // The protocol is spoken on the descriptors 3 and 4.
        let mut command = Command::new("sh");
        command
            .args(["-c", r#"exec "$0" "$@" 3<&0 4>&1 </dev/null >&2"#])
            .arg(program)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"])
            .arg("--remote-debugging-pipe")
            .arg(format!("--window-size={width},{height}"))
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().with_context(|| format!("cannot start `{}`", process::describe(&command)))?;
        let input = child.stdin.take().context("the browser has no input pipe")?;
        let output = child.stdout.take().context("the browser has no output pipe")?;
        let (sender, messages) = mpsc::channel();
        thread::spawn(move || {
            for message in BufReader::new(output).split(0).map_while(|message| message.ok()) {
                let Ok(message) = serde_json::from_slice(&message) else { return };
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        let mut browser = Self { child, input, messages, sent: 0, session: None, profile, complaints: Vec::new() };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }))?["targetId"].clone();
        let attached = browser.call("Target.attachToTarget", json!({ "targetId": target, "flatten": true }))?;
        browser.session = Some(attached["sessionId"].as_str().context("the browser attached to no page")?.to_owned());
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}))?;
        }
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        browser.call("Emulation.setDeviceMetricsOverride", size)?;
        Ok(browser)
    }

    /// Calls a method of the protocol.
    pub(crate) fn call(&mut self, method: &str, parameters: Value) -> Result<Value> {
        self.sent += 1;
        let mut message = json!({ "id": self.sent, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.input.write_all(&bytes).with_context(|| format!("{method}: the browser is gone"))?;
        let deadline = Instant::now() + ANSWER;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let answer = self.messages.recv_timeout(left).with_context(|| format!("{method}: the browser does not answer"))?;
            if answer["id"].as_u64() != Some(self.sent) {
                self.note(&answer);
                continue;
            }
            ensure!(answer["error"].is_null(), "{method}: {}", answer["error"]);
            return Ok(answer["result"].clone());
        }
    }

    /// Keeps what a page must not do.
    fn note(&mut self, event: &Value) {
        let parameters = &event["params"];
        match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => self.complaints.push(format!("exception: {}", parameters["exceptionDetails"])),
            Some("Runtime.consoleAPICalled") if parameters["type"] != "log" => {
                self.complaints.push(format!("console: {}", parameters["args"]));
            }
            Some("Log.entryAdded") if parameters["entry"]["level"] == "error" => {
                self.complaints.push(format!("log: {}", parameters["entry"]["text"]))
            }
            Some("Network.requestWillBeSent") => {
                let url = parameters["request"]["url"].as_str().unwrap_or_default();
                if !url.starts_with("file:") && !url.starts_with("about:") {
                    self.complaints.push(format!("request: {url}"));
                }
            }
            _ => {}
        }
    }

    /// Loads a page and waits until `ready` holds, a JavaScript expression. Returns how long that took.
    pub(crate) fn open(&mut self, url: &str, ready: &str) -> Result<Duration> {
        let begin = Instant::now();
        self.call("Page.navigate", json!({ "url": url }))?;
        while self.evaluate(ready)? != json!(true) {
            ensure!(begin.elapsed() < ANSWER, "{url} is not ready: {:?}", self.complaints);
            thread::sleep(Duration::from_millis(20));
        }
        Ok(begin.elapsed())
    }

    /// The value of a JavaScript expression, which may be a promise.
    pub(crate) fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let parameters = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.call("Runtime.evaluate", parameters)?;
        if !answer["exceptionDetails"].is_null() {
            bail!("`{expression}` failed: {}", answer["exceptionDetails"]["exception"]["description"]);
        }
        Ok(answer["result"]["value"].clone())
    }

    /// Presses a key and lets it go. With `shift`, it is given as it is with that key held.
    pub(crate) fn key(&mut self, key: &str, shift: bool) -> Result<()> {
        let text = if key.chars().count() == 1 { key } else { "" };
        let code = match key {
            "Enter" => 13,
            "Escape" => 27,
            "Tab" => 9,
            _ => 0,
        };
        let modifiers = if shift { 8 } else { 0 };
        for kind in ["keyDown", "keyUp"] {
            let mut event = json!({ "type": kind, "key": key, "modifiers": modifiers, "windowsVirtualKeyCode": code });
            if kind == "keyDown" && !text.is_empty() {
                event["text"] = json!(text);
            }
            self.call("Input.dispatchKeyEvent", event)?;
        }
        self.settle()
    }

    /// Clicks with the mouse.
    pub(crate) fn click(&mut self, x: f64, y: f64) -> Result<()> {
        for kind in ["mouseMoved", "mousePressed", "mouseReleased"] {
            let button = if kind == "mouseMoved" { "none" } else { "left" };
            self.call("Input.dispatchMouseEvent", json!({ "type": kind, "x": x, "y": y, "button": button, "clickCount": 1 }))?;
        }
        self.settle()
    }

    /// Waits until the page has drawn twice.
    pub(crate) fn settle(&mut self) -> Result<()> {
        self.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))").map(drop)
    }

    /// Which of the two colour schemes the page is shown in.
    pub(crate) fn color_scheme(&mut self, scheme: &str) -> Result<()> {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features }))?;
        self.settle()
    }

    /// Writes what is seen as a PNG.
    pub(crate) fn screenshot(&mut self, file: &Path) -> Result<()> {
        let answer = self.call("Page.captureScreenshot", json!({ "format": "png" }))?;
        let data = answer["data"].as_str().context("the browser made no picture")?;
        let png = BASE64.decode(data).context("the browser's picture is not base64")?;
        fs::write(file, png).with_context(|| format!("cannot write {}", file.display()))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It may have ended by itself. The profile is in the target folder, where what is left does no harm.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.profile);
    }
}

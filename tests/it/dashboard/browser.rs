//! Debian's Chromium, driven over the DevTools protocol: JSON between zero bytes, through two named pipes. No WebSocket, no
//! port, no driver program.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

/// For the browser to do anything, on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(90);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(200);

/// A browser with one page. Dropping it ends it.
pub(super) struct Browser {
    child: Child,
    /// Its profile.
    _folder: tempfile::TempDir,
    to: File,
    from: Receiver<Value>,
    session: String,
    number: u64,
    /// Console errors, exceptions and what the browser itself complains about.
    pub(super) complaints: Vec<String>,
    /// Addresses that were asked for.
    pub(super) requests: Vec<String>,
}

impl Browser {
    pub(super) fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let pipe = |name: &str| {
            let path = folder.path().join(name);
            assert!(Command::new("mkfifo").arg(&path).status().expect("mkfifo runs").success());
            path
        };
        let (to, from) = (pipe("to"), pipe("from"));
        // The shell gives the browser its pipes as the numbers that it wants. It waits until we open the other ends.
        let child = Command::new("sh")
            .args(["-c", r#"exec chromium --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
                --disable-background-networking --disable-component-update --disable-sync --hide-scrollbars \
                --remote-debugging-pipe --user-data-dir="$3" about:blank 3<"$1" 4>"$2""#])
            .arg("sh")
            .args([&to, &from, &folder.path().join("profile")])
            .env("HOME", folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(folder.path().join("log")).expect("a log"))
            .spawn()
            .expect("sh runs");
        let to = File::options().write(true).open(to).expect("the pipe to the browser");
        let reading = BufReader::new(File::open(from).expect("the pipe from the browser"));
        let (tell, from) = channel();
        std::thread::spawn(move || {
            for message in reading.split(0).map_while(Result::ok) {
                let Ok(message) = serde_json::from_slice(&message) else { return };
                if tell.send(message).is_err() {
                    return;
                }
            }
        });
        let mut browser = Self {
            child,
            _folder: folder,
            to,
            from,
            session: String::new(),
            number: 0,
            complaints: vec![],
            requests: vec![],
        };
        browser.attach();
        browser
    }

    fn attach(&mut self) {
        let target = self.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attached =
            self.call("Target.attachToTarget", json!({ "targetId": target["targetId"], "flatten": true }));
        self.session = attached["sessionId"].as_str().expect("a session").to_owned();
        for domain in ["Page", "Runtime", "Log", "Network"] {
            self.call(&format!("{domain}.enable"), json!({}));
        }
    }

    /// Calls a method and waits for its result; what comes in between is noted.
    #[track_caller]
    pub(super) fn call(&mut self, method: &str, params: Value) -> Value {
        self.number += 1;
        let mut message = json!({ "id": self.number, "method": method, "params": params });
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.to.write_all(&bytes).expect("the browser reads");
        let until = Instant::now() + PATIENCE;
        loop {
            match self.from.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(answer) if answer["id"] == self.number => {
                    assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                    return answer["result"].clone();
                }
                Ok(event) => self.note(&event),
                Err(RecvTimeoutError::Timeout) => panic!("{method}: no answer within {PATIENCE:?}"),
                Err(RecvTimeoutError::Disconnected) => panic!("{method}: the browser is gone"),
            }
        }
    }

    fn note(&mut self, event: &Value) {
        let params = &event["params"];
        match event["method"].as_str().unwrap_or_default() {
            "Network.requestWillBeSent" => {
                self.requests.push(params["request"]["url"].as_str().unwrap_or_default().to_owned());
            }
            "Runtime.exceptionThrown" => self.complaints.push(params["exceptionDetails"].to_string()),
            "Runtime.consoleAPICalled" if params["type"] == "error" || params["type"] == "assert" => {
                self.complaints.push(params["args"].to_string());
            }
            "Log.entryAdded" if params["entry"]["level"] == "error" => {
                self.complaints.push(params["entry"].to_string());
            }
            _ => {}
        }
    }

    pub(super) fn open(&mut self, url: &str) {
        let opened = self.call("Page.navigate", json!({ "url": url }));
        assert!(opened["errorText"].is_null(), "{url}: {opened}");
    }

    /// What an expression, or the promise that it makes, comes to.
    #[track_caller]
    pub(super) fn eval(&mut self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let answer = self.call("Runtime.evaluate", params);
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {}", answer["exceptionDetails"]);
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    #[track_caller]
    pub(super) fn until(&mut self, expression: &str) {
        let until = Instant::now() + PATIENCE;
        while self.eval(&format!("Boolean({expression})")) != true {
            if Instant::now() > until {
                let page = self.eval("document.body.innerText");
                panic!(
                    "never true: {expression}\n{}\n{:?}",
                    page.as_str().unwrap_or_default(),
                    self.complaints
                );
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Presses a key, as somebody without a pointer does.
    pub(super) fn key(&mut self, key: &str) {
        let (modifiers, key) = key.strip_prefix("Shift+").map_or((0, key), |key| (8, key));
        let code = match key {
            "Enter" => 13,
            "Tab" => 9,
            "Escape" => 27,
            " " => 32,
            "ArrowLeft" => 37,
            "ArrowRight" => 39,
            "ArrowDown" => 40,
            _ => 0,
        };
        let text = match key {
            "Enter" => "\r",
            key if key.chars().count() == 1 => key,
            _ => "",
        };
        for kind in ["keyDown", "keyUp"] {
            let mut params =
                json!({ "type": kind, "key": key, "windowsVirtualKeyCode": code, "modifiers": modifiers });
            if kind == "keyDown" && !text.is_empty() {
                params["text"] = json!(text);
            }
            self.call("Input.dispatchKeyEvent", params);
        }
    }

    pub(super) fn type_text(&mut self, text: &str) {
        text.chars().for_each(|c| self.key(&c.to_string()));
    }

    /// The size of the window in CSS pixels.
    pub(super) fn size(&mut self, width: u32, height: u32) {
        let params = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", params);
    }

    pub(super) fn prefer(&mut self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }, { "name": "prefers-reduced-motion", "value": "reduce" }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    pub(super) fn without_javascript(&mut self) {
        self.call("Emulation.setScriptExecutionDisabled", json!({ "value": true }));
    }

    /// Keeps a picture beside the other output of the tests.
    pub(super) fn picture(&mut self, name: &str) -> PathBuf {
        let shot =
            self.call("Page.captureScreenshot", json!({ "format": "png", "captureBeyondViewport": true }));
        let folder = pictures();
        fs::create_dir_all(&folder).expect("a folder for pictures");
        let path = folder.join(format!("{name}.png"));
        let bytes = STANDARD.decode(shot["data"].as_str().expect("a picture")).expect("base64");
        fs::write(&path, bytes).expect("a picture is written");
        path
    }

    /// What axe-core finds wrong, one a line.
    pub(super) fn violations(&mut self, axe: &Path) -> Vec<String> {
        let script = fs::read_to_string(axe).expect("axe.min.js");
        self.call("Runtime.evaluate", json!({ "expression": script }));
        let found = self.eval(
            "axe.run(document, { resultTypes: ['violations'] }).then(found => found.violations.flatMap(rule => \
             rule.nodes.map(node => rule.id + ': ' + node.html.slice(0, 200) + ' ' + node.failureSummary)))",
        );
        let found = found.as_array().expect("a list").iter();
        found.filter_map(|one| one.as_str().map(str::to_owned)).collect()
    }

    /// Whether the page is wider than its window.
    pub(super) fn overflows(&mut self) -> bool {
        self.eval("document.documentElement.scrollWidth > document.documentElement.clientWidth") == true
    }

    /// Everything that came in lately is noted.
    pub(super) fn listen(&mut self) {
        let events: VecDeque<Value> = self.from.try_iter().collect();
        events.iter().for_each(|event| self.note(event));
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where pictures are kept.
pub(super) fn pictures() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("dashboard")
}

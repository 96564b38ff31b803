//! Does the screen of `spillway top` help during a storm, at a real terminal, and is the terminal as it was afterwards?
//!
//! The storm is `spillway demo --storm`. The terminal is a pseudo terminal (`script`), what is on it is worked out by an
//! emulator, and keys are typed as a person types them.

// Clippy's own exception for tests ends at the functions marked as tests; what they call are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

use std::{
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    sync::{Mutex, MutexGuard},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{dashboard::Running, spillway::BINARY};

/// For something to happen on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);
const COLUMNS: u16 = 100;
const ROWS: u16 = 30;

/// A shell at a terminal that runs one command and then says what the terminal is like.
struct Terminal {
    child: Child,
    bytes: Receiver<Vec<u8>>,
    parser: vt100::Parser,
    /// Where the command's process id stands.
    id: PathBuf,
    _folder: tempfile::TempDir,
}

impl Terminal {
    fn start(args: &str, environment: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let id = folder.path().join("id");
        let shown = id.display();
        let session = format!(
            "stty cols {COLUMNS} rows {ROWS}; sh -c 'echo $$ > {shown}; exec {BINARY} {args}'; echo ended=$?; stty -a"
        );
        let mut command = Command::new("script");
        command.args(["-qefc", &session, "/dev/null"]).env("TERM", "xterm-256color").env_remove("NO_COLOR");
        command.envs(environment.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut output = child.stdout.take().unwrap();
        let (tell, bytes) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = output.read(&mut buffer) {
                if tell.send(buffer[..read].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            bytes,
            parser: vt100::Parser::new(ROWS.try_into().unwrap(), COLUMNS.try_into().unwrap(), 0),
            id,
            _folder: folder,
        }
    }

    fn text(&self) -> String {
        self.parser.screen().contents()
    }

    fn keys(&mut self, keys: &str) {
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(keys.as_bytes()).unwrap();
        stdin.flush().unwrap();
    }

    /// Waits until all of this is on the screen.
    #[track_caller]
    fn until(&mut self, parts: &[&str]) {
        let until = Instant::now() + PATIENCE;
        while !parts.iter().all(|part| self.text().contains(part)) {
            match self.bytes.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.parser.process(&bytes),
                Err(RecvTimeoutError::Timeout) => {
                    panic!("{parts:?} did not come; there is:\n{}", self.text())
                }
                Err(RecvTimeoutError::Disconnected) => panic!("it ended without {parts:?}:\n{}", self.text()),
            }
        }
    }

    /// Whether this comes soon.
    fn comes(&mut self, part: &str) -> bool {
        let until = Instant::now() + PATIENCE / 6;
        while !self.text().contains(part) {
            match self.bytes.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.parser.process(&bytes),
                Err(_) => return false,
            }
        }
        true
    }

    fn has_colours(&self) -> bool {
        let screen = self.parser.screen();
        let cells = (0..ROWS).flat_map(|row| (0..COLUMNS).map(move |column| (row, column)));
        cells
            .filter_map(|(row, column)| screen.cell(row, column))
            .any(|cell| cell.fgcolor() != vt100::Color::Default)
    }

    /// The command has ended, and the terminal is as it was.
    #[track_caller]
    fn is_given_back(&mut self) {
        self.until(&["ended=0", "icanon", " echo "]);
        let (screen, text) = (self.parser.screen(), self.text());
        assert!(!text.contains("-icanon") && !text.contains("-echo "), "{text}");
        assert!(!screen.alternate_screen() && !screen.hide_cursor(), "{text}");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn isolations(socket: &Path) -> Value {
    let done =
        Command::new(BINARY).args(["isolations", "-o", "json", "--socket"]).arg(socket).output().unwrap();
    serde_json::from_slice(&done.stdout).unwrap()
}

/// One storm at a time: each wants a machine of its own.
static TURN: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// A storm that goes on, and its admin socket.
fn storm() -> (Running, PathBuf) {
    let demo = Running::start(&["demo", "--storm"]);
    let line = demo.line("--socket");
    let words: Vec<&str> = line.split_whitespace().collect();
    let at = words.iter().position(|word| *word == "--socket").unwrap();
    (demo, PathBuf::from(words[at + 1]))
}

#[test]
fn the_screen_names_the_culprit_isolates_it_and_says_when_nobody_answers() {
    let _turn = alone();
    let (demo, socket) = storm();
    let mut terminal = Terminal::start(&format!("top --socket {}", socket.display()), &[]);
    terminal.until(&["LANE", "telemetry", "sa monitoring/otel-collector", "EVENTS", "q quit"]);
    assert!(terminal.parser.screen().alternate_screen());
    terminal.keys("/otel-coll\r");
    terminal.until(&["/otel-coll", "> sa monitoring/otel-collector"]);
    terminal.keys("\r");
    terminal
        .until(&["spillway isolate serviceaccount monitoring/otel-collector --to penalty", "% of the work"]);
    terminal.keys("i");
    terminal.until(&["Enter goes on"]);
    terminal.keys("\t\tlists all pods");
    terminal.until(&["lists all pods"]);
    // A proxy in the middle of a storm may answer too late for the screen, which says so; then one asks again.
    let asked = (0..6).any(|_| {
        terminal.keys("\r");
        terminal.comes("type yes and then Enter")
    });
    assert!(asked, "{}", terminal.text());
    assert_eq!(isolations(&socket)["isolations"], serde_json::json!([]), "nothing before it is confirmed");
    terminal.keys("yes\r");
    terminal.until(&["in force as iso-", "spillway release iso-"]);
    let isolations = isolations(&socket);
    let isolation = &isolations["isolations"][0];
    assert_eq!(isolation["name"], "monitoring/otel-collector", "{isolations}");
    assert_eq!(isolation["reason"], "lists all pods");
    terminal.keys("\r");
    terminal.until(&[">◆sa monitoring/otel-collector"]);
    assert!(terminal.has_colours());
    drop(demo);
    terminal.until(&["✕ NO ANSWER for", "sa monitoring/otel-collector"]);
    terminal.keys("q");
    terminal.is_given_back();
}

#[test]
fn a_signal_and_ctrl_c_give_the_terminal_back_and_no_color_means_none() {
    let _turn = alone();
    let (_demo, socket) = storm();
    let mut terminal = Terminal::start(&format!("top --socket {}", socket.display()), &[("NO_COLOR", "1")]);
    terminal.until(&["LANE", "q quit"]);
    assert!(!terminal.has_colours());
    let id: i32 = std::fs::read_to_string(&terminal.id).unwrap().trim().parse().unwrap();
    kill_process(Pid::from_raw(id).unwrap(), Signal::TERM).unwrap();
    terminal.is_given_back();
    let mut terminal = Terminal::start(&format!("top --socket {}", socket.display()), &[]);
    terminal.until(&["LANE", "q quit"]);
    terminal.keys("\u{3}");
    terminal.is_given_back();
    // Nobody there: the same words and the same code as from every other command, and no screen at all.
    let mut terminal = Terminal::start("top --socket /nowhere/admin.sock", &[]);
    terminal.until(&["error[SPW0553]", "ended=4"]);
    assert!(!terminal.parser.screen().alternate_screen());
}

/// How `spillway ARGS…` for this proxy and a dead one ended.
fn of_two(socket: &Path, args: &[&str]) -> (i32, String, String) {
    let there = format!("unix://{}", socket.display());
    let done = Command::new(BINARY)
        .args(args)
        .args(["--endpoint", &there, "--endpoint", "unix:///nowhere/admin.sock"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (done.status.code().unwrap(), text(&done.stdout), text(&done.stderr))
}

#[test]
fn of_two_instances_the_one_that_lives_is_shown_and_the_dead_one_is_named() {
    let _turn = alone();
    let (_demo, socket) = storm();
    let agent = ["isolate", "serviceaccount", "monitoring/otel-collector", "--to", "penalty", "--for", "5m"];
    let isolate = [&agent[..], &["--reason", "lists all pods", "--yes"]].concat();
    for (args, part) in [
        (&["status"][..], "all, 1 of 2 answered"),
        (&["top", "--once"], "CLIENT"),
        (&["events"], ""),
        (&["newcomers"], ""),
        (&isolate, "see what it changes: spillway status --endpoint"),
        (&["isolations"], "1 in force on 1 instances"),
        (&["explain"], ""),
        (&["release", "monitoring/otel-collector"], "released monitoring/otel-collector"),
    ] {
        let (code, out, err) = of_two(&socket, args);
        assert_eq!(code, 1, "{args:?}: {out}{err}");
        assert!(out.contains(part), "{args:?}: {out}");
        assert!(err.contains("error[SPW0583]: 1 of 2 did not answer"), "{args:?}: {err}");
        assert!(err.contains("/nowhere/admin.sock"), "{args:?}: {err}");
    }
    assert_eq!(isolations(&socket)["isolations"], serde_json::json!([]));
    let (_, out, _) = of_two(&socket, &["status", "-o", "json"]);
    let status: Value = serde_json::from_str(&out).unwrap();
    assert!(status["instances"][0]["answer"]["limit"].is_u64(), "{status}");
    assert_eq!(status["instances"][1]["problem"]["code"], "SPW0553");
    let (code, _, err) = of_two(&socket, &["limit", "unpin"]);
    assert!(code == 2 && err.contains("error[SPW0582]"), "{err}");
}

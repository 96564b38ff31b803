//! Who is told at once that somebody uses the lane?
//!
//! Besides a metric and an error in the log: a command of the operator's choice, which gets the event as one line of JSON
//! on its standard input. It runs on a thread of its own, one at a time, for ten seconds at most; events that come
//! meanwhile are dropped and counted. Nothing about it can delay a request.

use std::io::{self, Write as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use serde_json::{Map, Value};

use crate::clock;
use crate::telemetry::LaneMetrics;

/// How long the command may take.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);
/// Events that may wait while it runs.
const QUEUE_MAX: usize = 1;
/// How often it is looked at.
const POLL: Duration = Duration::from_millis(20);

/// Tells events to a command.
pub(super) struct Alerts {
    events: Option<SyncSender<String>>,
    metrics: Arc<LaneMetrics>,
}

impl Alerts {
    /// Starts the thread, if there is a command.
    pub(super) fn start(command: &[String], metrics: Arc<LaneMetrics>) -> io::Result<Self> {
        let Some((program, arguments)) = command.split_first() else {
            return Ok(Self { events: None, metrics });
        };
        let (program, arguments) = (program.clone(), arguments.to_vec());
        let (events, received) = sync_channel(QUEUE_MAX);
        let counted = Arc::clone(&metrics);
        std::thread::Builder::new()
            .name("break-glass-alert".to_owned())
            .spawn(move || listen(&received, &program, &arguments, &counted))?;
        Ok(Self { events: Some(events), metrics })
    }

    /// Tells it, or drops it.
    pub(super) fn tell(&self, facts: &Map<String, Value>) {
        let Some(events) = &self.events else { return };
        let line = Value::Object(facts.clone()).to_string();
        if events.try_send(line).is_err() {
            self.metrics.alerted("dropped");
        }
    }
}

fn listen(events: &Receiver<String>, program: &str, arguments: &[String], metrics: &LaneMetrics) {
    while let Ok(event) = events.recv() {
        let result = match run(program, arguments, &event, TIMEOUT) {
            Ok(Some(status)) if status.success() => "ok",
            Ok(Some(status)) => {
                tracing::error!(program, %status, "breakGlass.onUse.command failed");
                "failed"
            }
            Ok(None) => {
                tracing::error!(program, after = ?TIMEOUT, "breakGlass.onUse.command took too long and was killed");
                "timeout"
            }
            Err(error) => {
                tracing::error!(program, %error, "breakGlass.onUse.command cannot be run");
                "failed"
            }
        };
        metrics.alerted(result);
    }
}

/// How it ended; `None` when it had to be killed.
fn run(program: &str, arguments: &[String], event: &str, within: Duration) -> io::Result<Option<ExitStatus>> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        // An event is far smaller than a pipe, so this never waits; whoever does not read it need not.
        let _ = writeln!(input, "{event}");
    }
    wait(&mut child, within)
}

fn wait(child: &mut Child, within: Duration) -> io::Result<Option<ExitStatus>> {
    let begun = clock::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if clock::now().since(begun) >= within {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, event: &str, within: Duration) -> Option<ExitStatus> {
        run("/bin/sh", &["-c".to_owned(), script.to_owned()], event, within).unwrap()
    }

    #[test]
    fn the_command_gets_the_event_and_its_failure_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("told");
        let script = format!("cat > {}", file.display());
        let patience = Duration::from_secs(60);
        assert!(shell(&script, "{\"event\":\"use\"}", patience).unwrap().success());
        assert_eq!(std::fs::read_to_string(file).unwrap(), "{\"event\":\"use\"}\n");
        assert!(!shell("exit 3", "", patience).unwrap().success());
        assert!(run("/no/such/program", &[], "", patience).is_err());
    }

    #[test]
    fn a_command_that_hangs_is_killed() {
        assert_eq!(shell("exec sleep 600", "", Duration::from_millis(50)), None);
    }
}

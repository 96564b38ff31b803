//! How a cluster's programs are started, watched and stopped.
//!
//! Every program of one cluster joins one process group, led by a guardian: a shell that waits on a pipe whose other
//! end this process holds. However this process ends (panic, SIGKILL, a static that is never dropped), the pipe
//! closes and the guardian stops the group and removes the cluster's directory. An orderly drop stops each program
//! by its own id and then dismisses the guardian. `prctl(PR_SET_PDEATHSIG)` would be simpler, but it fires when the
//! *thread* that started the child ends, and a test's thread ends long before a cluster shared by several tests.

use std::{
    fs::{self, File},
    io::Write,
    net::{Ipv4Addr, TcpListener},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// How often a wait looks again.
pub(crate) const POLL: Duration = Duration::from_millis(20);
/// From SIGTERM to SIGKILL for one program that a test stops: spillway and kube-apiserver drain.
pub(crate) const FAREWELL: Duration = Duration::from_secs(5);

/// Looks until `look` finds something; panics with `what` and the last refusal when `deadline` passes.
pub(crate) fn wait_for<T>(what: &str, deadline: Duration, mut look: impl FnMut() -> Result<T, String>) -> T {
    let started = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(why) if started.elapsed() > deadline => {
                panic!("expected {what} within {deadline:?}, but: {why}")
            }
            Err(_) => thread::sleep(POLL),
        }
    }
}

/// A loopback port that nobody listens on now.
///
/// Not port 0: the kernel would choose from the range of outgoing connections, and a storm test could take the port
/// between this choice and the program's bind.
pub(crate) fn free_port() -> u16 {
    const FIRST: u16 = 15_000;
    const COUNT: u16 = 15_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Processes start at different places, so two of them rarely look at the same port.
    let start = (std::process::id() % u32::from(COUNT)) as u16;
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_mul(7);
        let port = FIRST + (u32::from(start) * 97 + u32::from(step)).rem_euclid(u32::from(COUNT)) as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("expected a free loopback port from {FIRST} on, but {COUNT} are taken")
}

/// The leader of the process group; see the top of the file.
#[derive(Debug)]
pub(crate) struct Guardian {
    shell: Child,
}

impl Guardian {
    /// Guards programs to come, and `directory` unless it is to be kept.
    pub(crate) fn start(directory: Option<&Path>) -> Self {
        // The shell ignores its own SIGTERM to the group; `kill -KILL 0` at the end takes the shell with it.
        const SCRIPT: &str = r#"trap "" TERM INT HUP
            read -r word; [ "$word" = dismissed ] && exit 0
            kill -TERM 0; sleep 2; [ -n "$1" ] && rm -rf -- "$1"; kill -KILL 0"#;
        let shell = Command::new("sh")
            .args(["-c", SCRIPT, "guardian"])
            .arg(directory.unwrap_or(Path::new("")))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("sh starts");
        Self { shell }
    }

    fn group(&self) -> i32 {
        self.shell.id().cast_signed()
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        if let Some(mut pipe) = self.shell.stdin.take() {
            let _ = pipe.write_all(b"dismissed\n");
        }
        let _ = self.shell.wait();
    }
}

/// One program of the cluster: stopped when dropped, its output in `log`.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) name: String,
    pub(crate) log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts `command` in the guardian's group with both outputs appended to `LOGS/NAME.log`.
    pub(crate) fn start(name: &str, mut command: Command, logs: &Path, guardian: &Guardian) -> Self {
        let log = logs.join(format!("{name}.log"));
        let output = File::options().create(true).append(true).open(&log).expect("log file opens");
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("log file handle is copied"))
            .stderr(output)
            .process_group(guardian.group())
            .spawn()
            .unwrap_or_else(|e| panic!("expected {:?} to start: {e}", command.get_program()));
        Self { name: name.into(), log, child }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Err, with the end of its log, when the program has ended.
    pub(crate) fn alive(&mut self) -> Result<(), String> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(format!("{} ended with {status}:\n{}", self.name, tail(&self.log))),
            Err(e) => Err(format!("{} cannot be waited for: {e}", self.name)),
        }
    }

    /// How it ended, once it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Sends it; returns from a `STOP` only when nothing of the process runs any more.
    pub(crate) fn signal(&mut self, signal: Signal) {
        // Only a child that has not been waited for: its id cannot have passed to another process.
        if self.alive().is_err() || kill_process(Pid::from_child(&self.child), signal).is_err() {
            return;
        }
        // The kernel stops one thread after the other; until the last one, requests may still be answered.
        let started = Instant::now();
        while signal == Signal::STOP && started.elapsed() < FAREWELL && !self.is_suspended() {
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn is_suspended(&self) -> bool {
        let Ok(threads) = std::fs::read_dir(format!("/proc/{}/task", self.id())) else { return true };
        // The state follows the name in brackets, which may itself contain any character.
        let stopped =
            |stat: String| stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'));
        threads.flatten().all(|thread| std::fs::read_to_string(thread.path().join("stat")).is_ok_and(stopped))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        stop_all(std::slice::from_mut(self), FAREWELL);
    }
}

/// Asks all to end at once, and ends by force what is still there after `farewell`.
pub(crate) fn stop_all(processes: &mut [Process], farewell: Duration) {
    for process in processes.iter_mut() {
        process.signal(Signal::TERM);
        // One that a test has suspended would never hear the request.
        process.signal(Signal::CONT);
    }
    let started = Instant::now();
    while started.elapsed() < farewell && processes.iter_mut().any(|p| p.alive().is_ok()) {
        thread::sleep(POLL);
    }
    for process in processes {
        process.signal(Signal::KILL);
        let _ = process.child.wait();
    }
}

/// The last lines of a log, for error texts.
pub(crate) fn tail(log: &Path) -> String {
    const LINES: usize = 25;
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

//! Does systemd hear what it waits for? It is a socket here, and the messages are those of sd_notify(3).

// Clippy's own exception for tests ends at the functions marked as tests; what they call are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{fs, os::unix::net::UnixDatagram};

use rustix::{
    process::{Pid, Signal, kill_process},
    time::{ClockId, clock_gettime},
};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    built::{Choice, PATIENCE, Stand},
    client::block_on,
};

/// systemd's end.
struct Systemd {
    socket: UnixDatagram,
    folder: TempDir,
}

impl Systemd {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, folder }
    }

    /// A spillway that it started.
    fn starts(&self, environment: &str, change: impl FnOnce(&mut Value)) -> Stand {
        let socket = self.folder.path().join("notify");
        let before = format!("export NOTIFY_SOCKET='{}' {environment}", socket.display());
        block_on(Stand::start_with(&Choice { before: &before, ..Choice::default() }, change))
    }

    /// The next message that has this line; those before it are given to `passed`.
    fn hears(&self, line: &str, mut passed: impl FnMut(&str)) -> String {
        let mut bytes = [0; 4096];
        loop {
            let length =
                self.socket.recv(&mut bytes).unwrap_or_else(|e| panic!("expected {line} in time: {e}"));
            let message = std::str::from_utf8(&bytes[..length]).unwrap();
            if message.lines().any(|said| said == line) {
                return message.to_owned();
            }
            passed(message);
        }
    }
}

fn send(stand: &Stand, signal: Signal) {
    kill_process(Pid::from_raw(stand.id().cast_signed()).unwrap(), signal).unwrap();
}

fn monotonic_usec() -> i128 {
    let now = clock_gettime(ClockId::Monotonic);
    i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000
}

fn field<'a>(message: &'a str, name: &str) -> &'a str {
    let line = message.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    line.unwrap_or_else(|| panic!("no {name}= in {message:?}"))
}

#[test]
fn ready_is_said_when_every_listener_accepts_and_a_reload_has_a_beginning_and_an_end() {
    let systemd = Systemd::new();
    let stand = systemd.starts("", |_| ());
    let first = systemd.hears("READY=1", |early| panic!("{early:?} was said before READY"));
    assert_eq!(field(&first, "STATUS"), "ready");
    for address in [stand.main, stand.break_glass, stand.metrics] {
        std::net::TcpStream::connect(address).unwrap();
    }

    let asked = monotonic_usec();
    send(&stand, Signal::HUP);
    let begun = systemd.hears("RELOADING=1", |other| assert!(!other.contains("READY=1"), "{other}"));
    let at: i128 = field(&begun, "MONOTONIC_USEC").parse().unwrap();
    assert!(
        (asked..=monotonic_usec()).contains(&at),
        "systemd takes {at} for an earlier reload than {asked}"
    );
    let done = systemd.hears("READY=1", |_| ());
    assert!(field(&done, "STATUS").ends_with("were read again"), "{done}");

    // A file that is cut short is told of, and the reload ends all the same.
    let bundle = &stand.paths.client_ca.cert;
    fs::write(bundle, "-----BEGIN CERTIFICATE-----\n").unwrap();
    send(&stand, Signal::HUP);
    systemd.hears("RELOADING=1", |_| ());
    let done = systemd.hears("READY=1", |_| ());
    assert!(field(&done, "STATUS").contains("cannot be used"), "{done}");
    assert!(stand.metric("spillway_credential_reloads_total", &["client_ca", "failed"]) >= 1.0);

    send(&stand, Signal::TERM);
    let end = systemd.hears("STOPPING=1", |other| assert!(!other.contains("READY=1"), "{other}"));
    assert!(field(&end, "STATUS").starts_with("draining"), "{end}");
}

#[test]
fn signs_of_life_come_while_the_apiserver_is_gone() {
    let systemd = Systemd::new();
    // Nobody listens on port 9 of loopback.
    let stand = systemd.starts("WATCHDOG_USEC=1500000", |config| {
        config["upstreams"]["servers"][0]["url"] = "https://127.0.0.1:9".into();
    });
    systemd.hears("READY=1", |_| ());
    for _ in 0..6 {
        systemd.hears("WATCHDOG=1", |_| ());
    }
    // And a line for people, every few seconds.
    let mut said = String::new();
    while !said.contains("seats in use") {
        systemd.hears("WATCHDOG=1", |other| said.push_str(other));
    }
    drop(stand);
}

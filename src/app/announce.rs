//! What does systemd hear about this process?
//!
//! That it is ready, once every listener accepts; that it reads its files again, on SIGHUP, and when it is done
//! (`Type=notify-reload`); how it is, in one line for `systemctl status`; that it ends. And a sign of life for the
//! watchdog, which stays away when the scheduler's clock has not turned since the last one: such a process still passes
//! requests by a limit that nobody moves any more, and a restart takes less than a second. A slow apiserver stops no sign.
//!
//! Under anything but systemd there is no `NOTIFY_SOCKET`, and nothing is said.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::reload::{Ask, Reread};
use crate::gateway::View;
use crate::policy::Lane;

/// Between two lines for `systemctl status`.
const STATUS_EVERY: Duration = Duration::from_secs(5);

/// Signs of life in one `WatchdogSec`; systemd's own advice is two.
const SIGNS_PER_PERIOD: u32 = 3;

/// For reading every file again. systemd gives a reload 90 s before it takes it for failed.
const REREAD_WITHIN: Duration = Duration::from_secs(30);

/// Reloads that wait; one more says nothing that they do not say.
pub(super) const ASKED_MAX: usize = 1;

/// Turned by the scheduler's clock, read by the watchdog's.
#[derive(Clone, Default)]
pub(super) struct Pulse(Arc<AtomicBool>);

impl Pulse {
    /// The clock has turned.
    pub(super) fn beat(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it has since the last question.
    fn felt(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

/// Every listener accepts.
pub(super) fn ready() {
    say(&[NotifyState::Ready, NotifyState::Status("ready")]);
}

/// The end has begun; it takes at most this long.
pub(super) fn stopping(grace: Duration) {
    let status = format!("draining, for at most {} s", grace.as_secs());
    say(&[NotifyState::Stopping, NotifyState::Status(&status)]);
}

/// Signs of life, for ever, if the unit has a `WatchdogSec`.
pub(super) async fn watchdog(pulse: Pulse) {
    let Some(period) = sd_notify::watchdog_enabled().filter(|period| !period.is_zero()) else { return };
    let mut ticks = interval(period / SIGNS_PER_PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if pulse.felt() {
            say(&[NotifyState::Watchdog]);
        } else {
            tracing::error!(
                ?period,
                "the scheduler's clock stands still; if it goes on, systemd restarts this process"
            );
        }
    }
}

/// How it is, for ever, in one line.
pub(super) async fn tell_status(view: impl Fn() -> View) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    let mut ticks = interval(STATUS_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first comes at once, and nothing has happened yet.
    ticks.tick().await;
    let mut last = String::new();
    loop {
        ticks.tick().await;
        let status = sentence(&view());
        if status != last {
            say(&[NotifyState::Status(&status)]);
            last = status;
        }
    }
}

fn sentence(view: &View) -> String {
    let (now, lanes) = (&view.snapshot, Lane::ALL);
    let refused: u64 = lanes.iter().map(|lane| now.lane(*lane).shed.iter().sum::<u64>()).sum();
    format!(
        "{}: {} of {} seats in use, {refused} requests refused so far; spillway status says more",
        now.state.as_str(),
        now.used.0,
        now.limit.0
    )
}

/// Reads every file again at each SIGHUP, for ever.
pub(super) async fn reload_on_signal(asked: mpsc::Sender<Ask>) {
    let mut hangups = match signal(SignalKind::hangup()) {
        Ok(hangups) => hangups,
        Err(error) => {
            tracing::warn!(%error, "SIGHUP is not heard; changed files are found all the same");
            return;
        }
    };
    while hangups.recv().await.is_some() {
        // Without a time systemd would not know this reload from an earlier one, and wait for ever.
        match NotifyState::monotonic_usec_now() {
            Ok(now) => say(&[NotifyState::Reloading, now, NotifyState::Status("reading its files again")]),
            Err(error) => tracing::warn!(%error, "systemd is not told of this reload: no monotonic clock"),
        }
        let status = match reread(&asked).await {
            Some(Reread { read, failed: 0 }) => format!("{read} groups of files were read again"),
            Some(Reread { read, failed }) => {
                format!(
                    "{failed} of {read} groups of files cannot be used, what was read before stays in force: see the log"
                )
            }
            None => "files could not be read again in time, what was read before stays in force".to_owned(),
        };
        tracing::info!(status, "SIGHUP");
        // Ready also when something is wrong: what was in force is, and a reload that never ends helps nobody.
        say(&[NotifyState::Ready, NotifyState::Status(&status)]);
    }
}

async fn reread(asked: &mpsc::Sender<Ask>) -> Option<Reread> {
    let (answer, answered) = oneshot::channel();
    timeout(REREAD_WITHIN, async {
        asked.send(answer).await.ok()?;
        answered.await.ok()
    })
    .await
    .ok()
    .flatten()
}

/// One message. A socket that takes none is systemd's trouble, and is told to the log.
fn say(words: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(words) {
        tracing::warn!(%error, "systemd could not be told; check NOTIFY_SOCKET, or NotifyAccess= in the unit");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::flow::{Scheduler, Settings};
    use crate::gateway::Gate;
    use crate::server::Drain;

    #[test]
    fn a_beat_is_felt_once() {
        let pulse = Pulse::default();
        assert!(!pulse.felt());
        pulse.clone().beat();
        assert!(pulse.felt());
        assert!(!pulse.felt(), "a clock that stood still since then");
    }

    #[test]
    fn an_idle_proxy_fits_one_line() {
        let gate = Gate::new(Scheduler::new(Settings::default(), 1, clock::now()), Drain::new());
        let said = sentence(&gate.view());
        assert_eq!(
            said,
            "normal: 0 of 64 seats in use, 0 requests refused so far; spillway status says more"
        );
    }
}

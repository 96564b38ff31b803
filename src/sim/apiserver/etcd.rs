//! How long does etcd take?
//!
//! A second stage with a few servers and one queue. A delay is time that is not work (a network that is slower): it holds no server; in a
//! stall nothing ends until it is over (an fsync that hangs).

use std::collections::VecDeque;
use std::time::Duration;

use crate::sim::guard::Id;
use crate::units::Instant;

/// Requests that etcd works on at a time.
const SERVERS: u32 = 8;

#[derive(Debug, Default)]
pub(super) struct Etcd {
    busy: u32,
    queue: VecDeque<(Id, f64)>,
    pub(super) delay: Duration,
    stalled_until: Option<Instant>,
}

impl Etcd {
    /// A request asks for `micros` of work. Returns when it will be done, if it can begin at once.
    pub(super) fn ask(&mut self, now: Instant, id: Id, micros: f64) -> Option<Instant> {
        if self.busy >= SERVERS {
            self.queue.push_back((id, micros));
            return None;
        }
        self.busy += 1;
        Some(self.done_at(now, micros))
    }

    /// A request that had begun is done. Returns who begins now, and when that one will be done.
    pub(super) fn done(&mut self, now: Instant) -> Option<(Id, Instant)> {
        self.busy = self.busy.saturating_sub(1);
        let (id, micros) = self.queue.pop_front()?;
        self.busy += 1;
        Some((id, self.done_at(now, micros)))
    }

    /// A request that still waits is gone. Whether it was there.
    pub(super) fn withdraw(&mut self, id: Id) -> bool {
        let place = self.queue.iter().position(|&(waiting, _)| waiting == id);
        place.and_then(|place| self.queue.remove(place)).is_some()
    }

    /// Nothing ends before `until`.
    pub(super) fn stall(&mut self, until: Instant) {
        self.stalled_until = Some(until);
    }

    /// When something that would end now may end, if not now.
    pub(super) fn stalled(&self, now: Instant) -> Option<Instant> {
        self.stalled_until.filter(|&until| until > now)
    }

    fn done_at(&self, now: Instant, micros: f64) -> Instant {
        let start = self.stalled(now).unwrap_or(now);
        start + Duration::from_nanos((micros * 1e3) as u64)
    }

    /// The apiserver is gone; nobody waits for answers.
    pub(super) fn reset(&mut self) {
        self.busy = 0;
        self.queue.clear();
    }
}

//! A kubelet that keeps its node alive: it renews its lease every ten seconds.
//!
//! Each renewal may take ten seconds and is tried five times a round; a kubelet whose round hangs misses the renewals
//! that fall due meanwhile, so they are counted by what was due and not by what was tried. A node whose lease is
//! not renewed for 40 s counts as lost.

use std::time::Duration;

use super::{Behaviour, Context, Heard, Mark, Next};
use crate::units::Instant;

const PERIOD: Duration = Duration::from_secs(10);
/// client-go's jitter factor of the lease controller.
const JITTER: f64 = 0.04;
/// The kubelet's HTTP timeout for leases, a quarter of the lease.
const TIMEOUT: Duration = Duration::from_secs(10);
const TRIES: u32 = 5;
const LOST_AFTER: Duration = Duration::from_secs(40);

#[derive(Debug)]
pub(in crate::sim) struct Lease {
    /// When the renewal in hand was due.
    due: Instant,
    next_due: Instant,
    tries: u32,
    renewed: Instant,
    lost: bool,
    began: Instant,
    in_round: bool,
}

impl Lease {
    pub(in crate::sim) fn new() -> Self {
        Self {
            due: Instant::ORIGIN,
            next_due: Instant::ORIGIN,
            tries: 0,
            renewed: Instant::ORIGIN,
            lost: false,
            began: Instant::ORIGIN,
            in_round: false,
        }
    }

    fn call(&mut self, now: Instant) -> Next {
        self.began = now;
        Next::Call { plan: 0, timeout: TIMEOUT, deadline: None }
    }

    /// The round is over; what fell due while it lasted was missed.
    fn rest(&mut self, context: &mut Context<'_>) -> Next {
        self.in_round = false;
        self.miss_until(context);
        Next::Sleep(self.next_due)
    }

    fn miss_until(&mut self, context: &mut Context<'_>) {
        while self.next_due <= context.now {
            context.marks.push(Mark::Renewal { due: self.next_due, took: None });
            self.next_due = self.next_due + PERIOD.mul_f64(1.0 + JITTER * context.chance.unit());
        }
        self.check(context);
    }

    fn check(&mut self, context: &mut Context<'_>) {
        if !self.lost && context.now.since(self.renewed) > LOST_AFTER {
            self.lost = true;
            context.marks.push(Mark::NotReady);
        }
    }
}

impl Behaviour for Lease {
    fn step(&mut self, heard: Heard, context: &mut Context<'_>) -> Next {
        let now = context.now;
        match heard {
            Heard::Start => {
                self.renewed = now;
                self.next_due = now + PERIOD.mul_f64(context.chance.unit());
                Next::Sleep(self.next_due)
            }
            Heard::Timer => {
                (self.due, self.tries, self.in_round) = (self.next_due, 1, true);
                self.next_due = self.next_due + PERIOD.mul_f64(1.0 + JITTER * context.chance.unit());
                self.call(now)
            }
            Heard::Answered => {
                self.check(context);
                (self.renewed, self.lost) = (now, false);
                let took = Some(now.since(self.due)).filter(|&took| took <= TIMEOUT);
                context.marks.push(Mark::Renewal { due: self.due, took });
                self.rest(context)
            }
            Heard::Failed(_) if self.tries < TRIES => {
                self.tries += 1;
                self.call(now)
            }
            Heard::Failed(_) | Heard::Opened | Heard::Closed => {
                context.marks.push(Mark::Renewal { due: self.due, took: None });
                self.rest(context)
            }
        }
    }

    fn close(&mut self, context: &mut Context<'_>) {
        if self.in_round && context.now.since(self.due) > TIMEOUT {
            context.marks.push(Mark::Renewal { due: self.due, took: None });
        }
        if context.now.since(self.next_due) > TIMEOUT {
            self.miss_until(context);
        }
        self.check(context);
    }
}

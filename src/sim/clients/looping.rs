//! A client that makes its calls in turn: one every period, or each as soon as the last is over.

use std::time::Duration;

use super::{Behaviour, Context, Heard, Next};
use crate::units::Instant;

/// A closed loop starts its next call after this long: no client is faster.
const BREATH: Duration = Duration::from_millis(1);
/// After a failure that its library did not try again: a log line and a new connection.
const SIGH: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(in crate::sim) struct Looping {
    plans: usize,
    next: usize,
    /// Zero: a closed loop.
    period: Duration,
    /// Share of the period by which it varies.
    jitter: f64,
    timeout: Duration,
    due: Instant,
}

impl Looping {
    pub(in crate::sim) fn new(plans: usize, period: Duration, jitter: f64, timeout: Duration) -> Self {
        Self { plans, next: 0, period, jitter, timeout, due: Instant::ORIGIN }
    }

    fn call(&mut self) -> Next {
        let plan = self.next;
        self.next = (plan + 1) % self.plans.max(1);
        Next::Call { plan, timeout: self.timeout, deadline: None }
    }

    /// Sleeps until the next call is due; what was missed meanwhile is left out.
    fn pause(&mut self, breath: Duration, context: &mut Context<'_>) -> Next {
        if self.period.is_zero() {
            return Next::Sleep(context.now + breath);
        }
        while self.due <= context.now {
            let factor = 1.0 + self.jitter * context.chance.between(-1.0, 1.0);
            self.due = self.due + self.period.mul_f64(factor);
        }
        Next::Sleep(self.due)
    }
}

impl Behaviour for Looping {
    fn step(&mut self, heard: Heard, context: &mut Context<'_>) -> Next {
        match heard {
            Heard::Start if self.period.is_zero() => self.call(),
            Heard::Start => {
                // Somewhere in the period, so that a group does not march in step.
                self.due = context.now + self.period.mul_f64(context.chance.unit());
                Next::Sleep(self.due)
            }
            Heard::Timer => self.call(),
            Heard::Answered | Heard::Opened | Heard::Closed => self.pause(BREATH, context),
            Heard::Failed(_) => self.pause(SIGH, context),
        }
    }
}

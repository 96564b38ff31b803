//! A controller that must keep its leader-election lease: it renews every two seconds and gives up after ten.

use std::time::Duration;

use super::{Behaviour, Context, Heard, Mark, Next};
use crate::units::Instant;

/// component-base's defaults: retry period, renew deadline, lease duration.
const RETRY: Duration = Duration::from_secs(2);
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
const LEASE: Duration = Duration::from_secs(15);
/// Its client's timeout is half of the renew deadline.
const TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(in crate::sim) struct Leader {
    renewed: Instant,
}

impl Leader {
    pub(in crate::sim) fn new() -> Self {
        Self { renewed: Instant::ORIGIN }
    }

    fn call(&self) -> Next {
        Next::Call { plan: 0, timeout: TIMEOUT, deadline: Some(self.renewed + RENEW_DEADLINE) }
    }
}

impl Behaviour for Leader {
    fn step(&mut self, heard: Heard, context: &mut Context<'_>) -> Next {
        let now = context.now;
        match heard {
            Heard::Start => {
                self.renewed = now;
                Next::Sleep(now + RETRY.mul_f64(context.chance.unit()))
            }
            Heard::Answered => {
                self.renewed = now;
                Next::Sleep(now + RETRY)
            }
            _ if now.since(self.renewed) >= RENEW_DEADLINE => {
                context.marks.push(Mark::LeaderLost);
                // It exits, and somebody takes over when the lease has run out.
                self.renewed = now + LEASE;
                Next::Sleep(now + LEASE)
            }
            Heard::Timer => self.call(),
            Heard::Failed(_) | Heard::Opened | Heard::Closed => {
                Next::Sleep((now + RETRY).min(self.renewed + RENEW_DEADLINE))
            }
        }
    }
}

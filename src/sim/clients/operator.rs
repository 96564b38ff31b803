//! A person who must repair the cluster: every period a sequence of commands, each of which must work in time.

use std::time::Duration;

use super::{Behaviour, Context, Heard, Mark, Next};
use crate::units::Instant;

/// All commands of a sequence must be answered within this time.
pub(in crate::sim) const PATIENCE: Duration = Duration::from_secs(10);
/// One person's sequences may overlap: this many clients share the work.
pub(in crate::sim) const SHIFTS: u32 = 12;

#[derive(Debug)]
pub(in crate::sim) struct Operator {
    plans: usize,
    at: usize,
    period: Duration,
    began: Instant,
    busy: bool,
}

impl Operator {
    /// `period` is that of this one client: the person's own times [`SHIFTS`].
    pub(in crate::sim) fn new(plans: usize, period: Duration) -> Self {
        Self { plans, at: 0, period, began: Instant::ORIGIN, busy: false }
    }

    fn call(&self) -> Next {
        let deadline = self.began + PATIENCE;
        Next::Call { plan: self.at, timeout: PATIENCE, deadline: Some(deadline) }
    }

    fn end(&mut self, took: Option<Duration>, context: &mut Context<'_>) -> Next {
        self.busy = false;
        context.marks.push(Mark::Sequence { began: self.began, took });
        Next::Sleep((self.began + self.period).max(context.now))
    }
}

impl Behaviour for Operator {
    fn step(&mut self, heard: Heard, context: &mut Context<'_>) -> Next {
        match heard {
            Heard::Start | Heard::Timer => {
                (self.at, self.began, self.busy) = (0, context.now, true);
                self.call()
            }
            Heard::Answered | Heard::Opened => {
                self.at += 1;
                let took = context.now.since(self.began);
                if took > PATIENCE {
                    self.end(None, context)
                } else if self.at == self.plans {
                    self.end(Some(took), context)
                } else {
                    self.call()
                }
            }
            Heard::Failed(_) | Heard::Closed => self.end(None, context),
        }
    }

    fn close(&mut self, context: &mut Context<'_>) {
        if self.busy && context.now.since(self.began) > PATIENCE {
            context.marks.push(Mark::Sequence { began: self.began, took: None });
        }
    }
}

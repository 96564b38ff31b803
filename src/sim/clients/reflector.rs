//! An informer: LIST, then WATCH from there, for ever (client-go's reflector).
//!
//! It lists from the cache first. When its watch ends it watches again from where it was; a refused watch backs off and
//! is tried again without a LIST; only a resourceVersion that is too old makes it list anew. Back-off is 0.8 s doubled
//! up to 30 s, with a jitter of as much again, reset after two minutes without need of it.

use std::time::Duration;

use super::{Behaviour, Context, Fault, Heard, Mark, Next};
use crate::units::Instant;

const BACKOFF_MIN: Duration = Duration::from_millis(800);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
const BACKOFF_RESET: Duration = Duration::from_secs(120);
const TIMEOUT: Duration = Duration::from_secs(60);
/// Numbers of its plans.
const LIST: usize = 0;
const WATCH: usize = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Listing,
    Watching,
}

#[derive(Debug)]
pub(in crate::sim) struct Reflector {
    doing: Doing,
    began: Instant,
    has_objects: bool,
    backoff: Duration,
    backed_off: Instant,
    timeout: Duration,
}

impl Reflector {
    pub(in crate::sim) fn new(timeout: Option<Duration>) -> Self {
        Self {
            doing: Doing::Listing,
            began: Instant::ORIGIN,
            has_objects: false,
            backoff: BACKOFF_MIN,
            backed_off: Instant::ORIGIN,
            timeout: timeout.unwrap_or(TIMEOUT),
        }
    }

    fn call(&self) -> Next {
        let plan = if self.doing == Doing::Listing { LIST } else { WATCH };
        Next::Call { plan, timeout: self.timeout, deadline: None }
    }

    fn back_off(&mut self, context: &mut Context<'_>) -> Next {
        if context.now.since(self.backed_off) > BACKOFF_RESET {
            self.backoff = BACKOFF_MIN;
        }
        self.backed_off = context.now;
        let pause = self.backoff.mul_f64(1.0 + context.chance.unit());
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
        Next::Sleep(context.now + pause)
    }
}

impl Behaviour for Reflector {
    fn step(&mut self, heard: Heard, context: &mut Context<'_>) -> Next {
        match heard {
            Heard::Start => {
                self.began = context.now;
                self.call()
            }
            Heard::Timer => self.call(),
            Heard::Answered => {
                if !self.has_objects {
                    self.has_objects = true;
                    let took = Some(context.now.since(self.began));
                    context.marks.push(Mark::FirstObjects { began: self.began, took });
                }
                self.doing = Doing::Watching;
                self.call()
            }
            Heard::Opened => Next::Listen,
            Heard::Closed => self.call(),
            Heard::Failed(Fault::Expired) => {
                self.doing = Doing::Listing;
                self.call()
            }
            Heard::Failed(_) => self.back_off(context),
        }
    }

    fn close(&mut self, context: &mut Context<'_>) {
        if !self.has_objects {
            context.marks.push(Mark::FirstObjects { began: self.began, took: None });
        }
    }
}

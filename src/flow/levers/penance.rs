//! How little may clients do that are in penalty?
//!
//! One request at a time and one start a second, all that one isolation names together. Enough for a person to see
//! that it is alive and for a controller to keep its caches, too little for a storm, however many members it has.

use std::time::Duration;

use crate::units::Instant;

/// Starts are at least this far apart.
const APART: Duration = Duration::from_secs(1);

/// The turn that all members of an isolation share.
#[derive(Clone, Copy, Debug, Default)]
pub struct Penance {
    busy: bool,
    next: Instant,
}

impl Penance {
    /// Takes the turn, if it is free; the caller owes an [`Penance::leave`] then.
    #[must_use]
    pub fn enter(&mut self, now: Instant) -> bool {
        if self.busy || now < self.next {
            return false;
        }
        (self.busy, self.next) = (true, now + APART);
        true
    }

    /// Gives the turn back.
    pub fn leave(&mut self) {
        self.busy = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_and_one_a_second() {
        let at = |millis| Instant::ORIGIN + Duration::from_millis(millis);
        let mut penance = Penance::default();
        assert!(penance.enter(at(0)));
        assert!(!penance.enter(at(5_000)), "the first one still runs");
        penance.leave();
        assert!(penance.enter(at(5_000)));
        penance.leave();
        assert!(!penance.enter(at(5_999)));
        assert!(penance.enter(at(6_000)));
    }
}

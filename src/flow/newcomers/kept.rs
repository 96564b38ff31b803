//! What of it survives a restart?
//!
//! Times are ages: a monotonic clock starts anew with the machine.

use super::{KNOWN_MAX, Known, Newcomers, PROGRAMS_MAX, Who, seconds};
use crate::policy::Lane;
use crate::units::Instant;

/// Everybody who is known, as of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acquaintances {
    /// Seconds since spillway first came here.
    pub here_for: u64,
    /// Who is known, in order.
    pub known: Vec<Acquaintance>,
}

/// Somebody who is known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Acquaintance {
    /// Who.
    pub who: Who,
    /// Seconds since it became known.
    pub known_for: u64,
    /// Seconds since it was last seen.
    pub away_for: u64,
    /// Ranked no higher than this.
    pub lane: Option<Lane>,
}

impl Newcomers {
    /// What is worth keeping.
    #[must_use]
    pub fn remember(&self, now: Instant) -> Acquaintances {
        let age = |at: i64| u64::try_from(seconds(now).saturating_sub(at)).unwrap_or(0);
        let mut known: Vec<Acquaintance> = self
            .known
            .iter()
            .map(|(who, known)| Acquaintance {
                who: who.clone(),
                known_for: age(known.since),
                away_for: age(known.seen),
                lane: known.lane,
            })
            .collect();
        known.sort_unstable();
        Acquaintances { here_for: age(self.began), known }
    }

    /// Takes over what was kept `age` seconds ago. Says how many are known.
    pub fn recall(&mut self, now: Instant, kept: Acquaintances, age: u64) -> usize {
        let at = |ago: u64| seconds(now).saturating_sub_unsigned(ago.saturating_add(age));
        self.began = at(kept.here_for);
        for Acquaintance { who, known_for, away_for, lane } in kept.known.into_iter().take(KNOWN_MAX) {
            if !who.program.is_empty() {
                let programs = self.programs.entry(who.user.clone()).or_default();
                if programs.len() < PROGRAMS_MAX {
                    programs.insert(who.program.clone());
                }
            }
            self.known.insert(who, Known { since: at(known_for), seen: at(away_for), lane });
        }
        self.known.len()
    }

    /// Whether something worth keeping happened since this was asked last.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }
}

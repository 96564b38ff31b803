//! Would one more large answer take more memory than the apiserver can spare?
//!
//! kube-apiserver needs about five times the bytes of a LIST while it answers it: 100 agents that listed large Secrets
//! killed one of 4 GiB twice in a minute. Seats cannot express this: they end at 16, which 1.6 MB reach, and a LIST may
//! be 400 MB. So answers expected to be large count here as well, with their bytes, and together stay within a
//! budget; one that is larger than all of it goes when it is alone. A LIST counts until its end, a watch that begins
//! with all objects until it has delivered them.
//!
//! **A guess is made once**: until one LIST of a resource has ended well, nobody knows whether it is 1 MB or 400 MB, so
//! the first goes and the others of this resource wait for what it teaches. Two unknown ones at a time have killed the
//! modelled server of 4 GiB again and again, because a LIST that kills teaches nothing.
//!
//! Small answers are not counted: seats bound them, and nothing here may hold back a lease or an operator's call.

use super::budget::Budget;
use super::estimate::Estimates;
use super::key::Key;
use super::settings::MemorySettings;
use crate::policy::Lane;
use crate::units::Instant;

/// Answers below this are bounded by their seats: 10 of them, at 100 kB each.
const LARGE: u64 = 1_000_000;
/// What a call without history is expected to answer, for each seat of its prior: 16 MB for a LIST of a whole cluster
/// that nobody bounded. A cold start must be safe, and one answer corrects it.
const PRIOR_BYTES_PER_SEAT: u64 = 1_600_000;

/// Resources told apart while their sizes are guessed. Two that share a place wait for each other, no more.
const PLACES: usize = 256;

/// What an answer takes while it is in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Size {
    /// Bytes; 0 for those that are not counted.
    pub(super) bytes: u64,
    /// The place of its resource, where the bytes are a guess.
    guess: Option<u8>,
}

/// The size to count for a call.
pub(super) fn expected(estimates: &Estimates, key: &Key) -> Size {
    if !key.is_list() {
        return Size::default();
    }
    let (own, hint) = estimates.sizes(key);
    // A namespace is bounded by its seats until it is known to be large: most are small, and many ask at a start.
    let prior = if key.is_cluster_list() { u64::from(key.prior) * PRIOR_BYTES_PER_SEAT } else { 0 };
    let bytes = own.map_or_else(|| (hint as u64).max(prior), |own| own as u64);
    if bytes < LARGE {
        return Size::default();
    }
    let is_guess = own.is_none() && hint <= 0.0;
    Size { bytes, guess: is_guess.then_some((key.family % PLACES as u64) as u8) }
}

/// The bytes of large answers in flight.
#[derive(Debug)]
pub(super) struct Memory {
    budget: Budget,
    in_flight: u64,
    /// Large answers of operators among them.
    operators: u32,
    /// Answers of guessed size, by the place of their resource.
    guesses: [u16; PLACES],
}

impl Memory {
    pub(super) fn new(settings: MemorySettings) -> Self {
        Self { budget: Budget::new(settings), in_flight: 0, operators: 0, guesses: [0; PLACES] }
    }

    pub(super) fn reconfigure(&mut self, settings: MemorySettings) {
        self.budget.reconfigure(settings);
    }

    /// Bytes that may be in flight; 0: no bound.
    pub(super) fn budget(&self) -> u64 {
        self.budget.bytes()
    }

    pub(super) fn tick(&mut self, now: Instant, is_returning: bool) {
        self.budget.tick(now, self.in_flight, is_returning);
    }

    /// The server is gone, and had not announced it.
    pub(super) fn lost(&mut self, now: Instant) {
        self.budget.lost(now);
    }

    pub(super) fn fits(&self, lane: Lane, size: Size) -> bool {
        let guessed = size.guess.is_some_and(|place| self.guesses[usize::from(place)] > 0);
        size.bytes == 0
            || self.in_flight == 0
            || self.budget() == 0
            || !guessed && self.in_flight.saturating_add(size.bytes) <= self.budget()
            // A person's one LIST may be what tells where the memory went.
            || lane == Lane::Operators && self.operators == 0
    }

    pub(super) fn take(&mut self, lane: Lane, size: Size) {
        self.in_flight = self.in_flight.saturating_add(size.bytes);
        self.budget.saw(self.in_flight);
        self.operators += u32::from(lane == Lane::Operators && size.bytes > 0);
        if let Some(place) = size.guess {
            let guesses = &mut self.guesses[usize::from(place)];
            *guesses = guesses.saturating_add(1);
        }
    }

    pub(super) fn give_back(&mut self, lane: Lane, size: Size) {
        debug_assert!(self.in_flight >= size.bytes, "an answer gives back what it took");
        self.in_flight = self.in_flight.saturating_sub(size.bytes);
        self.operators -= u32::from(lane == Lane::Operators && size.bytes > 0);
        if let Some(place) = size.guess {
            let guesses = &mut self.guesses[usize::from(place)];
            *guesses = guesses.saturating_sub(1);
        }
    }

    pub(super) fn in_flight(&self) -> u64 {
        self.in_flight
    }
}

#[cfg(test)]
mod tests {
    use super::super::estimate::Ended;
    use super::super::tests::{cluster_list, key, object};
    use super::*;

    const MB: u64 = 1_000_000;

    fn memory(budget: u64) -> Memory {
        let response_bytes = super::super::settings::ResponseBytes::Fixed(budget);
        Memory::new(MemorySettings { response_bytes, server: None })
    }

    fn known(bytes: u64) -> Size {
        Size { bytes, guess: None }
    }

    #[test]
    fn one_list_of_a_resource_finds_out_its_size_for_all() {
        let mut estimates = Estimates::new();
        let mut memory = memory(200 * MB);
        let (secrets, pods) = (cluster_list("secrets"), cluster_list("pods"));
        let first = expected(&estimates, &secrets);
        memory.take(Lane::Workload, first);
        assert!(!memory.fits(Lane::Workload, expected(&estimates, &secrets)), "the same guess twice");
        assert!(memory.fits(Lane::Workload, expected(&estimates, &pods)), "another resource");
        memory.give_back(Lane::Workload, first);
        estimates.succeeded(&secrets, sized(20 * MB), 0);
        let second = expected(&estimates, &secrets);
        assert_eq!(second, known(20 * MB));
        memory.take(Lane::Workload, second);
        assert!(memory.fits(Lane::Workload, second), "two are known to fit");
    }

    fn sized(bytes: u64) -> Option<Ended> {
        Some(Ended { bytes, calm: None })
    }

    #[test]
    fn what_is_not_known_is_expected_to_be_large_and_one_answer_teaches() {
        let mut estimates = Estimates::new();
        let list = cluster_list("secrets");
        assert_eq!(expected(&estimates, &list).bytes, 16 * MB);
        assert_eq!(expected(&estimates, &object("secrets")).bytes, 0);
        let page = key("GET", "/api/v1/secrets", "limit=500");
        assert_eq!(expected(&estimates, &page).bytes, 8 * MB);
        (0..3).for_each(|tick| _ = estimates.succeeded(&list, sized(400 * MB), tick));
        assert_eq!(expected(&estimates, &list).bytes, 400 * MB);
        assert_eq!(
            expected(&estimates, &key("GET", "/api/v1/secrets", "watch=1&sendInitialEvents=1")).bytes,
            400 * MB
        );
    }

    #[test]
    fn a_small_list_of_a_large_family_is_not_counted_once_it_is_known() {
        let mut estimates = Estimates::new();
        estimates.succeeded(&cluster_list("pods"), sized(39 * MB), 0);
        let own = key("GET", "/api/v1/pods", "fieldSelector=spec.nodeName%3Dn1&resourceVersion=0");
        assert!(expected(&estimates, &own).bytes >= 16 * MB, "nothing is known of it yet");
        (0..3).for_each(|tick| _ = estimates.succeeded(&own, sized(80_000), tick));
        assert_eq!(expected(&estimates, &own).bytes, 0);
    }

    #[test]
    fn answers_fit_until_the_budget_is_full_and_a_giant_goes_alone() {
        let mut memory = memory(100 * MB);
        memory.take(Lane::Telemetry, known(60 * MB));
        assert!(memory.fits(Lane::Telemetry, known(40 * MB)) && !memory.fits(Lane::Platform, known(41 * MB)));
        assert!(memory.fits(Lane::NodeHealth, Size::default()));
        assert!(memory.fits(Lane::Operators, known(41 * MB)));
        memory.take(Lane::Operators, known(41 * MB));
        assert!(!memory.fits(Lane::Operators, known(41 * MB)), "one beyond the budget, not many");
        memory.give_back(Lane::Operators, known(41 * MB));
        assert!(!memory.fits(Lane::Workload, known(500 * MB)));
        memory.give_back(Lane::Telemetry, known(60 * MB));
        assert!(memory.fits(Lane::Workload, known(500 * MB)));
        assert_eq!(memory.in_flight(), 0);
        assert!(self::memory(0).fits(Lane::Telemetry, known(u64::MAX)), "no bound");
    }
}

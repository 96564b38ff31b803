//! Does this client come back when it was told to?
//!
//! A refusal is an appointment. Who keeps it goes before those who were just served; who comes earlier, again and again,
//! learns nothing from another quick refusal, so its refusals are kept back for up to three seconds: the only brake
//! that a loop without patience obeys (facts on a hand-written tarpit: 13 times fewer refusals).
//!
//! Appointments are kept per flow and kind of call, as counts by time and not as one time: a flow may be many processes
//! (one token for a whole DaemonSet), of which each obeys, and a client that was refused a LIST may go on reading
//! objects. What is early is counted five times a second at most: processes of one flow that start together
//! look early once each.
//!
//! The table has a fixed size. A flow that is pushed out by others is a stranger again, which harms nobody.

use std::time::Duration;

use super::random::mix;
use super::settings::HoldSettings;
use crate::units::Instant;

/// Sets of the table, and entries of a set: 8,192 flows that wait for their appointment, in 0.8 MB.
const SETS: usize = 2048;
const WAYS: usize = 4;
/// Appointments are told apart by this much; half of it early is on time.
const GRAIN: Duration = Duration::from_secs(2);
/// Grains that an entry looks ahead: two minutes, the longest that anybody is told.
const AHEAD: u64 = 64;
/// Early returns a minute from which a flow is penalised ...
const EARLY_MANY: u8 = 20;
/// ... of which one second counts at most these.
const EARLY_PER_SECOND: u8 = 5;
/// Early returns are forgotten one by one, this often: 20 a minute.
const FORGET: Duration = Duration::from_secs(3);
/// The level does not rise above this: a minute without early returns ends every penalty.
const EARLY_MAX: u8 = 40;
/// Below this level an early return may be a coincidence, and is told at once.
const EARLY_FEW: u8 = 4;

/// How a client comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coming {
    /// Nobody of its flow has an appointment.
    Stranger,
    /// As it was told.
    Kept,
    /// Before it was told to. The level counts how often of late.
    Early(u8),
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    tag: u64,
    /// The grain from which `ahead` counts.
    grain: u64,
    /// Appointments by the grain in which they are due, modulo the ring.
    ahead: [u8; AHEAD as usize],
    /// Appointments that are due and not kept yet.
    due: u8,
    /// All appointments in `ahead`.
    outstanding: u16,
    early: u8,
    /// The second in which early returns were last counted, and how many were.
    second: u64,
    counted: u8,
    /// When the level was last lowered.
    forgot: Instant,
}

const EMPTY: Entry = Entry {
    tag: 0,
    grain: 0,
    ahead: [0; AHEAD as usize],
    due: 0,
    outstanding: 0,
    early: 0,
    second: 0,
    counted: 0,
    forgot: Instant::ORIGIN,
};

/// The appointments of all flows, and how many refusals are being kept back.
#[derive(Debug)]
pub(super) struct Returns {
    entries: Vec<Entry>,
    /// No appointment is later than this: nothing to look up once it is over.
    latest: Instant,
    held: u32,
    pub(super) early: u64,
    pub(super) penalised: u64,
}

impl Returns {
    pub(super) fn new() -> Self {
        Self { entries: vec![EMPTY; SETS * WAYS], latest: Instant::ORIGIN, held: 0, early: 0, penalised: 0 }
    }

    /// A flow asks for a kind of call.
    pub(super) fn arrived(&mut self, now: Instant, flow: u64, key: u64) -> Coming {
        if now > self.latest {
            return Coming::Stranger;
        }
        let tag = tag(flow, key);
        let Some(place) = self.find(tag) else { return Coming::Stranger };
        let entry = &mut self.entries[place];
        entry.advance(now);
        let coming = entry.come(now);
        self.early += u64::from(matches!(coming, Coming::Early(_)));
        coming
    }

    /// A flow was refused and told to come back `after` this long.
    pub(super) fn told(&mut self, now: Instant, (flow, key): (u64, u64), after: Duration) {
        // The entry is of use until its level is forgotten, a minute beyond its appointment.
        self.latest = self.latest.max(now + after + FORGET * EARLY_MANY.into());
        let tag = tag(flow, key);
        let place = self.find(tag).unwrap_or_else(|| self.replace(tag, now));
        let entry = &mut self.entries[place];
        entry.advance(now);
        let grain = grain(now + after).clamp(entry.grain + 1, entry.grain + AHEAD - 1);
        let ahead = &mut entry.ahead[(grain % AHEAD) as usize];
        if *ahead < u8::MAX {
            *ahead += 1;
            entry.outstanding += 1;
        }
    }

    /// Whether a flow at this level is penalised: it is served only where a seat is idle.
    pub(super) fn is_penalised(level: u8) -> bool {
        level >= EARLY_MANY
    }

    /// How long to keep back the refusal of a flow at this level, and counts it.
    pub(super) fn hold(&mut self, level: u8, settings: &HoldSettings) -> Duration {
        if level < EARLY_FEW || self.held >= settings.most || settings.longest.is_zero() {
            return Duration::ZERO;
        }
        self.held += 1;
        settings.longest.mul_f64(f64::from(level.min(EARLY_MANY)) / f64::from(EARLY_MANY))
    }

    /// A refusal that was kept back is told.
    pub(super) fn released(&mut self) {
        self.held = self.held.saturating_sub(1);
    }

    pub(super) fn held(&self) -> u32 {
        self.held
    }

    fn find(&self, tag: u64) -> Option<usize> {
        let first = first(tag);
        (first..first + WAYS).find(|&place| self.entries[place].tag == tag)
    }

    /// Gives the entry of its set that matters least to a new flow.
    fn replace(&mut self, tag: u64, now: Instant) -> usize {
        let first = first(tag);
        // The longest without a word; empty ones were never heard.
        let place = (first..first + WAYS)
            .min_by_key(|&place| (self.entries[place].tag != 0, self.entries[place].grain))
            .unwrap_or(first);
        self.entries[place] = Entry { tag, grain: grain(now), forgot: now, ..EMPTY };
        place
    }
}

impl Entry {
    /// Appointments whose time has come become due.
    fn advance(&mut self, now: Instant) {
        let target = grain(now + GRAIN / 2);
        let passed = target.saturating_sub(self.grain);
        if passed >= 2 * AHEAD {
            // Two minutes late is not kept.
            self.due = 0;
        }
        for step in 1..=passed.min(AHEAD) {
            let ahead = std::mem::take(&mut self.ahead[((self.grain + step) % AHEAD) as usize]);
            self.due = self.due.saturating_add(ahead);
            self.outstanding -= u16::from(ahead);
        }
        self.grain = self.grain.max(target);
        let forgets = now.since(self.forgot).as_nanos() / FORGET.as_nanos();
        if forgets > 0 {
            self.early = self.early.saturating_sub(u8::try_from(forgets).unwrap_or(u8::MAX));
            self.forgot = now;
        }
    }

    fn come(&mut self, now: Instant) -> Coming {
        if self.due > 0 {
            self.due -= 1;
            return Coming::Kept;
        }
        if self.outstanding == 0 {
            return Coming::Stranger;
        }
        let second = now.as_nanos() / 1_000_000_000;
        if second != self.second {
            (self.second, self.counted) = (second, 0);
        }
        if self.counted < EARLY_PER_SECOND {
            self.counted += 1;
            self.early = (self.early + 1).min(EARLY_MAX);
        }
        Coming::Early(self.early)
    }
}

fn tag(flow: u64, key: u64) -> u64 {
    mix(flow ^ mix(key)).max(1)
}

fn first(tag: u64) -> usize {
    tag as usize % SETS * WAYS
}

fn grain(at: Instant) -> u64 {
    at.as_nanos() / GRAIN.as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::ORIGIN + Duration::from_millis(1_000_000 + millis)
    }

    fn told(returns: &mut Returns, now: Instant, flow: u64, seconds: u64) {
        returns.told(now, (flow, 0), Duration::from_secs(seconds));
    }

    #[test]
    fn an_appointment_is_kept_once_and_only_for_its_kind_of_call() {
        let mut returns = Returns::new();
        assert_eq!(returns.arrived(at(0), 1, 0), Coming::Stranger);
        told(&mut returns, at(0), 1, 30);
        assert_eq!(returns.arrived(at(100), 1, 9), Coming::Stranger, "another kind of call");
        assert_eq!(returns.arrived(at(30_000), 1, 0), Coming::Kept);
        assert_eq!(returns.arrived(at(30_000), 1, 0), Coming::Stranger);
        told(&mut returns, at(40_000), 1, 120);
        assert_eq!(returns.arrived(at(100_000), 1, 0), Coming::Early(1));
        assert_eq!(returns.arrived(at(160_000), 1, 0), Coming::Kept);
    }

    #[test]
    fn whoever_keeps_its_times_is_never_early_however_short_they_are() {
        let mut returns = Returns::new();
        let mut now = at(0);
        for round in 0..2_000u64 {
            let seconds = 1 + round % 7;
            told(&mut returns, now, 1, seconds);
            now = now + Duration::from_secs(seconds);
            assert_eq!(returns.arrived(now, 1, 0), Coming::Kept, "{round}");
        }
    }

    #[test]
    fn many_obedient_processes_of_one_flow_are_not_taken_for_one_that_is_not() {
        let mut returns = Returns::new();
        let mut due = std::collections::BTreeMap::<u64, u64>::new();
        let mut worst = 0;
        // 200 start in the same second; each comes back when it was told, 5 to 60 s later.
        due.insert(0, 200);
        for second in 0..600 {
            for process in 0..due.remove(&second).unwrap_or(0) {
                if let Coming::Early(level) = returns.arrived(at(1_000 * second), 1, 0) {
                    worst = worst.max(level);
                }
                let seconds = 5 + (process * 7 + second) % 56;
                told(&mut returns, at(1_000 * second), 1, seconds);
                *due.entry(second + seconds).or_default() += 1;
            }
        }
        assert!(worst < EARLY_MANY, "{worst}");
    }

    #[test]
    fn a_loop_without_patience_is_penalised_within_seconds_and_forgiven_in_a_minute() {
        let (mut returns, settings) = (Returns::new(), HoldSettings::default());
        let mut penalised = None;
        for step in 0..100 {
            let now = at(100 * step);
            match returns.arrived(now, 1, 0) {
                Coming::Early(level) if Returns::is_penalised(level) => {
                    penalised.get_or_insert(step);
                    assert_eq!(returns.hold(level, &settings), settings.longest);
                }
                _ => {}
            }
            told(&mut returns, now, 1, 60);
        }
        assert!((20..60).contains(&penalised.unwrap()), "{penalised:?}");
        assert_eq!(returns.arrived(at(80_000), 1, 0), Coming::Kept);
        let level = returns.entries[returns.find(tag(1, 0)).unwrap()].early;
        assert!(!Returns::is_penalised(level), "{level}");
    }

    #[test]
    fn no_more_refusals_are_kept_back_than_there_are_places() {
        let (mut returns, settings) = (Returns::new(), HoldSettings { most: 2, ..HoldSettings::default() });
        assert_eq!(returns.hold(1, &settings), Duration::ZERO, "once may be a coincidence");
        assert!(returns.hold(5, &settings) < returns.hold(20, &settings));
        assert_eq!((returns.hold(20, &settings), returns.held()), (Duration::ZERO, 2));
        returns.released();
        assert_eq!(returns.hold(40, &settings), settings.longest);
        (0..9).for_each(|_| returns.released());
        assert_eq!(returns.held(), 0);
    }

    #[test]
    fn a_flood_of_flows_fills_the_table_and_nothing_more() {
        let mut returns = Returns::new();
        for flow in 0..100_000 {
            told(&mut returns, at(flow), flow, 60);
        }
        assert_eq!(returns.entries.len(), SETS * WAYS);
        let known = (0..100_000).filter(|&flow| returns.find(tag(flow, 0)).is_some()).count();
        assert!(known > SETS * WAYS * 9 / 10);
        assert!(returns.find(tag(99_999, 0)).is_some(), "the latest is known");
    }
}

//! How many seats will this call take?
//!
//! Idea: calls of one [`Key`] cost alike, so the history of the key prices the next one. A fixed table remembers,
//! per key, the calm time to first byte and the mean size of the answer; seats = max(time / 50 ms, bytes / 100 kB).
//! A key without history is priced by its family (resource, verb, scope), a family without history by the prior of
//! its shape, which is biased up. The table never grows: when no place is free, and none is stale, the key
//! lives on its family, and its samples go to a last-resort window of its shape.
//!
//! Time is learnt only while the server is calm (`pressure` says when); bytes at any time, because a LIST is as
//! large in a storm as before it. Only calls that ended well enter the table, so guessed URLs cannot fill it.
//! Theory: facts of APF (100 kB is its unit of LIST work since 1.34); EWMA with weight 1/min(n, 64).

use std::time::Duration;

use super::key::{Key, Reach, Shape};
use super::levels::LevelNumber;
use super::median::Rounded;
use super::remembered::RememberedCall;
use super::window::{Reading, Window};
use crate::units::{SeatSeconds, Seats};

/// Keys and families remembered: a cluster with 100 CRDs and five ways to read each uses half of it.
const SLOTS: usize = 4096;
/// Places looked at for one key: a table half full then fails for one key in some hundreds.
const PROBES: usize = 8;
/// Samples that make a history; fewer only raise the prior.
const HISTORY: u32 = 3;
/// Oldest weight of the running means: the last 64 calls count.
const MEMORY: u32 = 64;
/// Weight of an answer that is more than twice as large as the mean.
const LARGER: f32 = 0.25;
/// Ticks without use (an hour) after which a key may lose its place to another.
const STALE_TICKS: u32 = 4 * 3600;
/// Upstream time that makes one seat: 20 such calls a second keep one seat busy.
pub(super) const MICROS_PER_SEAT: f32 = 50_000.0;
/// Answer bytes that make one seat: APF's unit for LISTs since Kubernetes 1.34.
const BYTES_PER_SEAT: f32 = 100_000.0;
/// How far a calm baseline goes down towards a better reading: quickly, a fast answer cannot be luck.
const DOWN: f32 = 0.3;
/// How far it goes up towards a worse one, a tick: about two minutes, so that a storm cannot teach it.
const UP: f32 = 0.002;
/// How far a family follows its members.
const FAMILY: f32 = 0.25;

/// What a call is expected to need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Estimate {
    /// 1 to 16.
    pub(super) seats: Seats,
    /// The work that fair queues charge in advance.
    pub(super) work: SeatSeconds,
}

/// Where the samples of a key go: a place in the table or the last resort of its shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(u16);

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// The key's hash; 0 is an empty place.
    tag: u64,
    /// The hash of its family; 0 for a family itself.
    family: u64,
    /// Calm time to the end of the answer; 0 is not yet known.
    total: f32,
    /// Mean size of the answer; of a family, of the LISTs that asked for all.
    bytes: f32,
    /// Calls that ended well.
    calls: u32,
    used: u32,
}

/// What is known of a key or a family; nothing, all zero.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    baseline: f32,
    total: f32,
    bytes: f32,
    calls: u32,
}

/// How a call ended that can be priced.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    pub(super) bytes: u64,
    /// How long it took, where that was in calm.
    pub(super) calm: Option<Duration>,
}

/// One call's time to first byte and where it was spent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) shape: Shape,
    pub(super) reach: Reach,
    /// The priority level that served it, where the apiserver has said.
    pub(super) level: Option<LevelNumber>,
    pub(super) micros: u32,
}

/// The recent times of a place and what they said when they were last read: one line of the processor's cache.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct Recent {
    window: Window,
    /// Calm time to first byte in microseconds; 0 is not yet known. Kept here, where a tick needs it.
    baseline: f32,
    /// The tick of the last reading; it counts while `weight` is not 0.
    read: u32,
    /// Root of the samples that were read.
    pub(super) weight: f32,
    /// Times slower than calm at `read`, bounded by the objective; and not bounded.
    pub(super) slowdown: Rounded,
    pub(super) ratio: Rounded,
    pub(super) shape: Shape,
    pub(super) reach: Reach,
    pub(super) level: LevelNumber,
    active: bool,
}

/// The fixed table of what calls cost.
#[derive(Debug)]
pub(super) struct Estimates {
    entries: Vec<Entry>,
    recent: Vec<Recent>,
    /// Places with samples or a fresh reading: what a tick has to look at.
    active: Vec<u16>,
}

impl Estimates {
    pub(super) fn new() -> Self {
        let places = SLOTS + Shape::COUNT;
        let recent = Recent {
            window: Window::default(),
            baseline: 0.0,
            read: 0,
            weight: 0.0,
            slowdown: Rounded::default(),
            ratio: Rounded::default(),
            shape: Shape::Object,
            reach: Reach::Cached,
            level: LevelNumber::default(),
            active: false,
        };
        Self {
            entries: vec![Entry::default(); places],
            recent: vec![recent; places],
            active: Vec::with_capacity(places),
        }
    }

    /// The seats and work of the next call with this key.
    pub(super) fn estimate(&self, key: &Key) -> Estimate {
        let exact = self.known(key.exact);
        if exact.calls >= HISTORY && exact.baseline > 0.0 {
            return Estimate::of(exact.seats(), exact.time());
        }
        // Without a history of its own every hint may only raise the price.
        let family = self.known(key.family);
        let seats = exact.seats().max(family.seats()).max(u32::from(key.prior));
        Estimate::of(seats, exact.time().max(family.time()))
    }

    /// The mean size of this call's answers, once it has a history, and the largest hint at it otherwise.
    pub(super) fn sizes(&self, key: &Key) -> (Option<f32>, f32) {
        let exact = self.known(key.exact);
        let own = (exact.calls >= HISTORY).then_some(exact.bytes);
        (own, exact.bytes.max(self.known(key.family).bytes))
    }

    fn known(&self, tag: u64) -> Known {
        self.find(tag).map_or(Known::default(), |place| {
            let Entry { total, bytes, calls, .. } = self.entries[place];
            Known { baseline: self.recent[place].baseline, total, bytes, calls }
        })
    }

    /// Where the samples of this key go, if it has a place.
    pub(super) fn place(&self, key: &Key) -> Option<Place> {
        self.find(key.exact).and_then(|place| u16::try_from(place).ok()).map(Place)
    }

    /// Where the samples of this key go: its place, or the last resort of its shape.
    pub(super) fn place_or_shape(&self, key: &Key) -> Place {
        self.place(key).unwrap_or(Place(SLOTS as u16 + key.shape as u16))
    }

    /// Adds a time to first byte.
    pub(super) fn sample(&mut self, place: Place, sample: Sample, tick: u32) {
        if sample.shape == Shape::Untimed {
            return;
        }
        let recent = &mut self.recent[place.0 as usize];
        (recent.shape, recent.reach) = (sample.shape, sample.reach);
        // Where levels share a key, the one that makes it slow is what a reading must name.
        if let Some(level) = sample.level.filter(|_| recent.window.is_slow_for(sample.micros)) {
            recent.level = level;
        }
        recent.window.add(sample.micros, tick);
        if !recent.active {
            recent.active = true;
            self.active.push(place.0);
        }
    }

    /// The priority level that a key's slow calls were served by last.
    pub(super) fn level(&self, place: Place) -> LevelNumber {
        self.recent[place.0 as usize].level
    }

    /// How many times slower than in calm its calls were when they were read last; 1 if that is long ago.
    pub(super) fn ratio(&self, place: Place) -> f64 {
        let recent = &self.recent[place.0 as usize];
        if recent.active { recent.ratio.value() } else { 1.0 }
    }

    /// A call ended well: it gets a place and, where it can be priced, teaches its price; a LIST that asked for all
    /// teaches its siblings too, for a page or another encoding of it is hardly more. One that a selector narrows does not:
    /// the pods of one node say nothing of all. True when it is new.
    pub(super) fn succeeded(&mut self, key: &Key, ended: Option<Ended>, tick: u32) -> bool {
        let is_new = self.find(key.exact).is_none();
        let is_all = key.whole || !key.is_list();
        for (tag, family, teaches) in [(key.exact, key.family, true), (key.family, 0, is_all)] {
            let Some(place) = self.find_or_insert(tag, tick) else { continue };
            let entry = &mut self.entries[place];
            (entry.family, entry.used) = (family, tick);
            if let Some(ended) = ended.filter(|_| teaches) {
                entry.learn(ended);
            }
        }
        is_new
    }

    /// One pass over the places in use: `read` is told what a readable window says and answers with the calm time to
    /// learn, if any; `each` sees every place whose last reading is fresher than `ticks`.
    pub(super) fn pass(
        &mut self,
        (tick, ticks): (u32, u32),
        mut read: impl FnMut(&mut Recent, Option<f32>, &Reading) -> Option<f32>,
        mut each: impl FnMut(&Recent),
    ) {
        let mut kept = 0;
        for position in 0..self.active.len() {
            let place = self.active[position];
            let recent = &mut self.recent[place as usize];
            if let Some(reading) = recent.window.take(tick) {
                recent.read = tick;
                if let Some(calm) = read(recent, recent.calm(), &reading) {
                    self.teach(place, calm);
                }
            }
            let recent = &mut self.recent[place as usize];
            let is_fresh = recent.weight > 0.0 && tick.wrapping_sub(recent.read) < ticks;
            if is_fresh {
                each(recent);
            }
            if is_fresh || !recent.window.is_empty() {
                self.active[kept] = place;
                kept += 1;
            } else {
                (recent.active, recent.weight) = (false, 0.0);
            }
        }
        self.active.truncate(kept);
    }

    /// Calm time to first byte in microseconds, once known.
    pub(super) fn baseline(&self, place: Place) -> Option<f32> {
        self.recent[place.0 as usize].calm()
    }

    /// Teaches a calm time. The family follows its members; last resorts mix too many kinds of call to have one.
    pub(super) fn teach(&mut self, place: u16, micros: f32) {
        let place = place as usize;
        if place >= SLOTS {
            return;
        }
        self.recent[place].baseline = approach(self.recent[place].baseline, micros);
        if let Some(family) = self.find(self.entries[place].family) {
            let baseline = &mut self.recent[family].baseline;
            *baseline = if *baseline > 0.0 { *baseline + (micros - *baseline) * FAMILY } else { micros };
        }
    }

    /// How many keys have a calm baseline.
    pub(super) fn baselines(&self) -> u32 {
        let known = self.entries.iter().zip(&self.recent);
        known.map(|(entry, recent)| u32::from(entry.family != 0 && recent.baseline > 0.0)).sum()
    }

    /// Everything that was learnt, in the order of the table.
    pub(super) fn export(&self) -> Vec<RememberedCall> {
        let places = self.entries.iter().zip(&self.recent);
        let known = places.filter(|(entry, _)| entry.tag != 0 && entry.calls > 0);
        let calls = known.map(|(entry, recent)| RememberedCall {
            exact: entry.tag,
            family: entry.family,
            baseline: recent.baseline,
            total: entry.total,
            bytes: entry.bytes,
            calls: entry.calls,
        });
        calls.collect()
    }

    /// Takes back one call whose numbers were checked; false where the table has no place for it.
    pub(super) fn import(&mut self, call: &RememberedCall, tick: u32) -> bool {
        let Some(place) = self.find_or_insert(call.exact, tick) else { return false };
        let RememberedCall { exact: tag, family, baseline, total, bytes, calls } = *call;
        self.entries[place] = Entry { tag, family, total, bytes, calls, used: tick };
        self.recent[place].baseline = baseline;
        true
    }

    fn find(&self, tag: u64) -> Option<usize> {
        if tag == 0 {
            return None;
        }
        probes(tag).find(|&place| self.entries[place].tag == tag)
    }

    fn find_or_insert(&mut self, tag: u64, tick: u32) -> Option<usize> {
        if let Some(place) = self.find(tag) {
            return Some(place);
        }
        let free = |entry: &Entry| entry.tag == 0 || tick.wrapping_sub(entry.used) > STALE_TICKS;
        let place = probes(tag).find(|&place| free(&self.entries[place]))?;
        self.entries[place] = Entry { tag, used: tick, ..Entry::default() };
        // Whatever lived here before; its window, if it is not empty, is of a key that nobody used for an hour.
        self.recent[place].baseline = 0.0;
        Some(place)
    }
}

impl Entry {
    fn learn(&mut self, ended: Ended) {
        self.calls = self.calls.saturating_add(1);
        let (bytes, mean) = (ended.bytes as f32, 1.0 / self.calls.min(MEMORY) as f32);
        // Objects multiply more often than they go: an answer twice as large as usual is believed sooner.
        let weight = if bytes > 2.0 * self.bytes { mean.max(LARGER) } else { mean };
        self.bytes += (bytes - self.bytes) * weight;
        if let Some(calm) = ended.calm {
            let micros = (calm.as_micros() as f32).max(1.0);
            self.total = if self.total > 0.0 { self.total + (micros - self.total) * mean } else { micros };
        }
    }
}

impl Known {
    fn seats(&self) -> u32 {
        (self.baseline / MICROS_PER_SEAT).max(self.bytes / BYTES_PER_SEAT).ceil() as u32
    }

    fn time(&self) -> f32 {
        self.baseline.max(self.total)
    }
}

impl Recent {
    fn calm(&self) -> Option<f32> {
        (self.baseline > 0.0).then_some(self.baseline)
    }
}

impl Estimate {
    fn of(seats: u32, baseline: f32) -> Self {
        let seats = Seats(seats.clamp(1, Seats::MAX_PER_REQUEST.0));
        // Without a time, a seat is taken for as long as the definition of a seat says.
        let micros = if baseline > 0.0 { baseline } else { MICROS_PER_SEAT };
        Self { seats, work: seats.held_for(Duration::from_micros(micros as u64)) }
    }
}

/// Down quickly, up slowly; the first reading counts fully.
pub(super) fn approach(baseline: f32, reading: f32) -> f32 {
    let gap = reading - baseline;
    match baseline {
        _ if baseline <= 0.0 => reading.max(1.0),
        _ if gap < 0.0 => (baseline + gap * DOWN).max(1.0),
        _ => baseline + gap * UP,
    }
}

fn probes(tag: u64) -> impl Iterator<Item = usize> {
    let start = tag as usize;
    (0..PROBES).map(move |step| start.wrapping_add(step) % SLOTS)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{cluster_list, key, object};
    use super::*;

    fn sized(bytes: u64) -> Option<Ended> {
        Some(Ended { bytes, calm: None })
    }

    #[test]
    fn made_up_keys_fill_the_table_and_nothing_more() {
        let mut estimates = Estimates::new();
        for number in 0..20_000 {
            let key = object(&format!("kind{number}"));
            estimates.succeeded(&key, sized(1), 0);
            let place = estimates.place_or_shape(&key);
            let sample = Sample { shape: key.shape, reach: key.reach, level: None, micros: 1_000 };
            estimates.sample(place, sample, 0);
        }
        assert_eq!(estimates.entries.len(), SLOTS + Shape::COUNT);
        assert!(estimates.active.len() <= SLOTS + Shape::COUNT);
        // A key without a place is still priced, and its samples still count for its shape.
        let late = key("GET", "/api/v1/latecomers", "");
        let full = estimates.find(late.exact).is_none();
        assert!(full && estimates.place_or_shape(&late).0 >= SLOTS as u16);
        assert_eq!(estimates.estimate(&late).seats, Seats(10));
    }

    #[test]
    fn a_stale_key_gives_its_place_to_a_new_one() {
        let mut estimates = Estimates::new();
        (0..20_000).for_each(|number| _ = estimates.succeeded(&object(&format!("kind{number}")), None, 0));
        let new = cluster_list("latecomers");
        assert_eq!(estimates.place(&new), None);
        estimates.succeeded(&new, sized(5_000_000), STALE_TICKS + 1);
        assert!(estimates.place(&new).is_some());
        assert_eq!(estimates.estimate(&new).seats, Seats::MAX_PER_REQUEST);
    }

    #[test]
    fn baselines_fall_quickly_and_rise_slowly() {
        assert_eq!(approach(0.0, 500.0), 500.0);
        assert_eq!(approach(1_000.0, 500.0), 850.0);
        assert_eq!(approach(1_000.0, 2_000.0), 1_002.0);
        // Two minutes of calm ticks at twice the time close three fifths of the gap.
        let risen = (0..480).fold(1_000.0, |baseline, _| approach(baseline, 2_000.0));
        assert!((1_550.0..1_700.0).contains(&risen), "{risen}");
    }

    #[test]
    fn a_watch_with_initial_events_costs_what_its_list_was_seen_to_cost() {
        let mut estimates = Estimates::new();
        estimates.succeeded(&cluster_list("pods"), sized(39_000_000), 0);
        let watch = key("GET", "/api/v1/pods", "watch=1&sendInitialEvents=true");
        assert_eq!(estimates.estimate(&watch).seats, Seats(16));
        assert_eq!(
            estimates.estimate(&key("GET", "/api/v1/pods", "watch=1&resourceVersion=7")).seats,
            Seats(1)
        );
    }

    #[test]
    fn a_page_teaches_its_siblings_nothing_and_the_whole_list_does() {
        let mut estimates = Estimates::new();
        let page = key("GET", "/api/v1/secrets", "limit=100");
        let table = |query| key("GET", "/api/v1/secrets", query);
        (0..9).for_each(|_| _ = estimates.succeeded(&page, sized(40_000_000), 0));
        assert_eq!(estimates.estimate(&cluster_list("secrets")).seats, Seats(10), "its prior");
        estimates.succeeded(&cluster_list("secrets"), sized(700_000_000), 0);
        assert_eq!(estimates.estimate(&table("limit=500")).seats, Seats(16));
        assert_eq!(estimates.estimate(&table("resourceVersion=0")).seats, Seats(16));
    }

    /// Else a kubelet that starts, with its own pods, would make the LIST of all of them look known and small, and a dozen at
    /// once would fit into the memory (`simulate found-small-sibling`).
    #[test]
    fn the_pods_of_one_node_teach_nothing_about_all_pods() {
        let mut estimates = Estimates::new();
        let own = key("GET", "/api/v1/pods", "fieldSelector=spec.nodeName%3Dn1&limit=500&resourceVersion=0");
        (0..9).for_each(|_| _ = estimates.succeeded(&own, sized(600_000), 0));
        assert_eq!(estimates.sizes(&cluster_list("pods")), (None, 0.0));
        estimates.succeeded(&cluster_list("pods"), sized(360_000_000), 0);
        assert!(estimates.sizes(&key("GET", "/api/v1/pods", "resourceVersion=0")).1 >= 360_000_000.0);
    }

    #[test]
    fn a_list_that_grew_fourfold_is_believed_within_some_calls() {
        let mut estimates = Estimates::new();
        let list = cluster_list("pods");
        (0..200).for_each(|_| _ = estimates.succeeded(&list, sized(300_000), 0));
        (0..6).for_each(|_| _ = estimates.succeeded(&list, sized(1_200_000), 0));
        assert!(estimates.sizes(&list).1 > 700_000.0, "{:?}", estimates.sizes(&list));
    }

    #[test]
    fn work_is_the_time_to_the_end_and_only_calm_teaches_it() {
        let mut estimates = Estimates::new();
        let list = cluster_list("pods");
        let ended = |millis| Some(Ended { bytes: 39_000_000, calm: Some(Duration::from_millis(millis)) });
        (0..4).for_each(|_| _ = estimates.succeeded(&list, ended(360), 0));
        (0..99).for_each(|_| _ = estimates.succeeded(&list, sized(39_000_000), 0));
        let work = estimates.estimate(&list).work.as_micros();
        assert!((5_700_000..5_800_000).contains(&work), "16 seats for 360 ms: {work}");
    }
}

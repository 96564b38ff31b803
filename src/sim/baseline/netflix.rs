//! How do the limits of Netflix' concurrency-limits move? AIMD, Vegas and Gradient2.
//!
//! From the library's published behaviour (`AIMDLimit`, `VegasLimit`, `Gradient2Limit`, `WindowedLimit`), written anew.
//! Defaults are the library's: AIMD 20 to 200, timeout 5 s, back-off 0.9; Vegas initial 20, at most 1000, queue between
//! 3·log10 L and 6·log10 L, minimum of the time re-measured every 30·L samples; Gradient2 20 to 200, queue 4,
//! smoothing 0.2, long window 600 samples, tolerance 1.5. The grids vary the bounds, which a small server needs, and
//! one gain each.

use std::time::Duration;

use super::law::{Ending, Law, Window};
use crate::sim::chance::Chance;
use crate::units::Instant;

/// Additive increase, multiplicative decrease, on losses alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct AimdSettings {
    pub(super) min: f64,
    pub(super) max: f64,
    pub(super) timeout: Duration,
    pub(super) backoff: f64,
}

pub(super) const AIMD: [(&str, AimdSettings); 6] = [
    (
        "20..200, 5 s, ×0.9",
        AimdSettings { min: 20.0, max: 200.0, timeout: Duration::from_secs(5), backoff: 0.9 },
    ),
    (
        "1..200, 5 s, ×0.9",
        AimdSettings { min: 1.0, max: 200.0, timeout: Duration::from_secs(5), backoff: 0.9 },
    ),
    (
        "1..200, 1 s, ×0.9",
        AimdSettings { min: 1.0, max: 200.0, timeout: Duration::from_secs(1), backoff: 0.9 },
    ),
    (
        "1..200, 1 s, ×0.5",
        AimdSettings { min: 1.0, max: 200.0, timeout: Duration::from_secs(1), backoff: 0.5 },
    ),
    (
        "4..1000, 2 s, ×0.7",
        AimdSettings { min: 4.0, max: 1000.0, timeout: Duration::from_secs(2), backoff: 0.7 },
    ),
    (
        "20..1000, 1 s, ×0.9",
        AimdSettings { min: 20.0, max: 1000.0, timeout: Duration::from_secs(1), backoff: 0.9 },
    ),
];

/// The limit at the start, of all three.
const INITIAL: f64 = 20.0;

#[derive(Debug)]
pub(super) struct Aimd {
    settings: AimdSettings,
    limit: f64,
}

impl Aimd {
    pub(super) fn new(settings: AimdSettings) -> Self {
        Self { settings, limit: INITIAL }
    }
}

impl Law for Aimd {
    fn limit(&self) -> f64 {
        self.limit
    }

    fn ended(&mut self, _now: Instant, ending: Ending) {
        if ending.dropped || ending.took > self.settings.timeout {
            self.limit *= self.settings.backoff;
        } else if f64::from(ending.beside) * 2.0 >= self.limit {
            self.limit += 1.0;
        }
        self.limit = self.limit.clamp(self.settings.min, self.settings.max);
    }
}

/// A queue estimated from the least time seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct VegasSettings {
    pub(super) max: f64,
    /// The queue, in log10 L, below which L grows.
    pub(super) alpha: f64,
    /// The queue beyond which it falls.
    pub(super) beta: f64,
    pub(super) probe: f64,
}

pub(super) const VEGAS: [(&str, VegasSettings); 5] = [
    ("α 3, β 6, ≤ 1000, probe 30", VegasSettings { max: 1000.0, alpha: 3.0, beta: 6.0, probe: 30.0 }),
    ("α 1, β 2, ≤ 1000, probe 30", VegasSettings { max: 1000.0, alpha: 1.0, beta: 2.0, probe: 30.0 }),
    ("α 6, β 12, ≤ 1000, probe 30", VegasSettings { max: 1000.0, alpha: 6.0, beta: 12.0, probe: 30.0 }),
    ("α 3, β 6, ≤ 200, probe 300", VegasSettings { max: 200.0, alpha: 3.0, beta: 6.0, probe: 300.0 }),
    ("α 12, β 24, ≤ 200, probe 300", VegasSettings { max: 200.0, alpha: 12.0, beta: 24.0, probe: 300.0 }),
];

#[derive(Debug)]
pub(super) struct Vegas {
    settings: VegasSettings,
    limit: f64,
    least: Option<f64>,
    updates: u32,
    probe_jitter: f64,
    window: Window,
    chance: Chance,
}

impl Vegas {
    pub(super) fn new(settings: VegasSettings, seed: u64) -> Self {
        let mut chance = Chance::new(seed, 0x76);
        let probe_jitter = chance.between(0.5, 1.0);
        Self {
            settings,
            limit: INITIAL,
            least: None,
            updates: 0,
            probe_jitter,
            window: Window::default(),
            chance,
        }
    }

    fn update(&mut self, whole: Ending) {
        let took = whole.took.as_secs_f64();
        self.updates += 1;
        if f64::from(self.updates) >= self.probe_jitter * self.settings.probe * self.limit {
            self.probe_jitter = self.chance.between(0.5, 1.0);
            self.updates = 0;
            self.least = Some(took);
            return;
        }
        let Some(least) = self.least.filter(|&least| least <= took) else {
            self.least = Some(took);
            return;
        };
        let log = self.limit.log10().max(1.0).floor();
        if whole.dropped {
            self.limit -= log;
        } else if f64::from(whole.beside) * 2.0 < self.limit {
            return;
        } else {
            let queue = (self.limit * (1.0 - least / took)).ceil();
            let (alpha, beta) = (self.settings.alpha * log, self.settings.beta * log);
            if queue <= log {
                self.limit += beta;
            } else if queue < alpha {
                self.limit += log;
            } else if queue > beta {
                self.limit -= log;
            }
        }
        self.limit = self.limit.clamp(1.0, self.settings.max);
    }
}

impl Law for Vegas {
    fn limit(&self) -> f64 {
        self.limit
    }

    fn ended(&mut self, now: Instant, ending: Ending) {
        if let Some(whole) = self.window.add(now, ending) {
            self.update(whole);
        }
    }
}

/// The ratio of a long to a short average of the time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gradient2Settings {
    pub(super) min: f64,
    pub(super) max: f64,
    pub(super) queue: f64,
    pub(super) tolerance: f64,
}

pub(super) const GRADIENT2: [(&str, Gradient2Settings); 6] = [
    ("20..200, queue 4, ×1.5", Gradient2Settings { min: 20.0, max: 200.0, queue: 4.0, tolerance: 1.5 }),
    ("4..200, queue 4, ×1.5", Gradient2Settings { min: 4.0, max: 200.0, queue: 4.0, tolerance: 1.5 }),
    ("1..200, queue 1, ×1.5", Gradient2Settings { min: 1.0, max: 200.0, queue: 1.0, tolerance: 1.5 }),
    ("1..200, queue 1, ×1.1", Gradient2Settings { min: 1.0, max: 200.0, queue: 1.0, tolerance: 1.1 }),
    ("4..1000, queue 4, ×2", Gradient2Settings { min: 4.0, max: 1000.0, queue: 4.0, tolerance: 2.0 }),
    ("20..1000, queue 4, ×1.5", Gradient2Settings { min: 20.0, max: 1000.0, queue: 4.0, tolerance: 1.5 }),
];

/// Samples of the long average.
const LONG: f64 = 600.0;
/// Samples over which the long average begins as a plain mean.
const WARM_UP: f64 = 10.0;
const SMOOTHING: f64 = 0.2;

#[derive(Debug)]
pub(super) struct Gradient2 {
    settings: Gradient2Settings,
    limit: f64,
    long: f64,
    samples: f64,
    window: Window,
}

impl Gradient2 {
    pub(super) fn new(settings: Gradient2Settings) -> Self {
        Self { settings, limit: INITIAL, long: 0.0, samples: 0.0, window: Window::default() }
    }

    fn update(&mut self, whole: Ending) {
        let short = whole.took.as_secs_f64();
        self.samples += 1.0;
        let weight = if self.samples <= WARM_UP { 1.0 / self.samples } else { 2.0 / (LONG + 1.0) };
        self.long += (short - self.long) * weight;
        // After a long overload the average has drifted up; it comes down faster than it went.
        if self.long / short > 2.0 {
            self.long *= 0.95;
        }
        if f64::from(whole.beside) < self.limit / 2.0 {
            return;
        }
        let gradient = (self.settings.tolerance * self.long / short).clamp(0.5, 1.0);
        let target = self.limit * gradient + self.settings.queue;
        self.limit += (target - self.limit) * SMOOTHING;
        self.limit = self.limit.clamp(self.settings.min, self.settings.max);
    }
}

impl Law for Gradient2 {
    fn limit(&self) -> f64 {
        self.limit
    }

    fn ended(&mut self, now: Instant, ending: Ending) {
        if let Some(whole) = self.window.add(now, ending) {
            self.update(whole);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::at;
    use super::*;

    fn ending(millis: u64, beside: u32) -> Ending {
        Ending { took: Duration::from_millis(millis), beside, dropped: false }
    }

    /// `seconds` windows of ten endings each.
    fn play(law: &mut dyn Law, from: u64, seconds: u64, ending: impl Fn(f64) -> Ending) {
        for second in from..from + seconds {
            for tenth in 0..10 {
                let now = ending(law.limit());
                law.ended(at(second * 1100 + tenth * 100 + 1000), now);
            }
        }
    }

    #[test]
    fn aimd_sees_only_losses_and_is_never_fooled_by_time() {
        let mut aimd = Aimd::new(AIMD[0].1);
        play(&mut aimd, 0, 40, |limit| ending(4_900, limit as u32));
        assert_eq!(aimd.limit(), 200.0, "slow is not lost");
        aimd.ended(at(0), Ending { dropped: true, ..ending(1, 200) });
        assert!((aimd.limit() - 180.0).abs() < 1e-9);
        for _ in 0..100 {
            aimd.ended(at(0), ending(5_001, 200));
        }
        assert_eq!(aimd.limit(), 20.0);
    }

    #[test]
    fn vegas_grows_while_it_sees_no_queue_and_falls_when_it_sees_one() {
        let mut vegas = Vegas::new(VEGAS[0].1, 1);
        play(&mut vegas, 0, 30, |limit| ending(10, limit as u32));
        let high = vegas.limit();
        assert!(high > 100.0, "{high}");
        play(&mut vegas, 30, 30, |limit| ending(40, limit as u32));
        assert!(vegas.limit() <= high - 20.0, "{}", vegas.limit());
    }

    #[test]
    fn vegas_takes_a_mere_change_of_mix_for_a_queue() {
        let mut vegas = Vegas::new(VEGAS[0].1, 1);
        play(&mut vegas, 0, 30, |limit| ending(3, limit as u32));
        let before = vegas.limit();
        play(&mut vegas, 30, 60, |limit| ending(30, limit as u32));
        assert!(vegas.limit() < before, "no overload anywhere, and it cuts: {} of {before}", vegas.limit());
    }

    #[test]
    fn gradient2_halves_at_once_and_forgets_its_baseline_in_a_long_overload() {
        let mut gradient = Gradient2::new(GRADIENT2[0].1);
        play(&mut gradient, 0, 300, |limit| ending(10, limit as u32));
        assert_eq!(gradient.limit(), 200.0);
        play(&mut gradient, 300, 30, |limit| ending(40, limit as u32));
        let cut = gradient.limit();
        assert!(cut < 60.0, "{cut}");
        play(&mut gradient, 330, 600, |limit| ending(40, limit as u32));
        assert!(gradient.limit() > 3.0 * cut, "what lasts becomes the new normal: {}", gradient.limit());
    }

    #[test]
    fn nobody_grows_without_use() {
        let (mut vegas, mut gradient) = (Vegas::new(VEGAS[0].1, 1), Gradient2::new(GRADIENT2[0].1));
        play(&mut vegas, 0, 30, |_| ending(10, 2));
        play(&mut gradient, 0, 30, |_| ending(10, 2));
        assert_eq!((vegas.limit(), gradient.limit()), (20.0, 20.0));
    }
}

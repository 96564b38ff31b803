//! How long did this kind of call take lately?
//!
//! A window keeps the last [`KEPT`] times to first byte of one key. It is read once it holds [`ENOUGH`] samples, or
//! once it is old and holds any, so that the signal works at 20 requests a second as well as at 20,000. Quantiles
//! are exact over what is kept; no sketch is worth its bias at this size.

/// Samples kept a window: enough for a steady median and a 90th percentile that is not just the maximum.
const KEPT: usize = 16;
/// Samples that make a window readable at once.
const ENOUGH: u32 = 5;
/// Ticks (of 250 ms) after which a window is read with whatever it holds.
const AGED_TICKS: u32 = 8;

/// The recent times to first byte of one key, in microseconds.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    kept: [u32; KEPT],
    count: u32,
    opened: u32,
}

/// What a window says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    /// Half of the calls were faster, in microseconds.
    pub(super) median: u32,
    /// Nine of ten calls were faster, in microseconds; the slowest of fewer than ten.
    pub(super) high: u32,
    /// How many calls it was.
    pub(super) samples: u32,
}

impl Window {
    /// Adds a sample at `tick`; true when it is the window's first.
    pub(super) fn add(&mut self, micros: u32, tick: u32) -> bool {
        let first = self.count == 0;
        if first {
            self.opened = tick;
        }
        self.kept[self.count as usize % KEPT] = micros;
        self.count = self.count.saturating_add(1);
        first
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Empties the window and says what it held, when that is enough.
    pub(super) fn take(&mut self, tick: u32) -> Option<Reading> {
        let aged = self.count > 0 && tick.wrapping_sub(self.opened) >= AGED_TICKS;
        if self.count < ENOUGH && !aged {
            return None;
        }
        let samples = self.count;
        let kept = &mut self.kept[..(samples as usize).min(KEPT)];
        kept.sort_unstable();
        let high = (kept.len() * 9).div_ceil(10) - 1;
        let reading = Reading { median: kept[kept.len() / 2], high: kept[high], samples };
        self.count = 0;
        Some(reading)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_samples_are_enough_and_one_slow_call_does_not_move_the_median() {
        let mut window = Window::default();
        for micros in [3, 4, 900, 5] {
            window.add(micros, 0);
        }
        assert_eq!(window.take(1), None);
        window.add(6, 1);
        assert_eq!(window.take(1), Some(Reading { median: 5, high: 900, samples: 5 }));
        assert!(window.is_empty());
    }

    #[test]
    fn a_rare_call_is_read_once_it_is_old() {
        let mut window = Window::default();
        window.add(700, 10);
        assert_eq!(window.take(10 + AGED_TICKS - 1), None);
        assert_eq!(window.take(10 + AGED_TICKS), Some(Reading { median: 700, high: 700, samples: 1 }));
        assert_eq!(window.take(1000), None);
    }

    #[test]
    fn only_the_latest_are_kept() {
        let mut window = Window::default();
        for micros in 0..100 {
            window.add(micros, 0);
        }
        assert_eq!(window.take(1), Some(Reading { median: 92, high: 98, samples: 100 }));
    }
}

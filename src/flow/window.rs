//! How long did this kind of call take lately?
//!
//! A window keeps some times to first byte of one key, sorted as they come, so that a tick only picks the quantiles. It
//! is read once it holds [`ENOUGH`] samples, or once it is old and holds any, so that the signal works at 20
//! requests a second as well as at 20,000. When it is full it keeps every second of its values and from then on takes
//! every second sample: all of a tick is represented, not only its end. Times are kept as the upper half of a
//! float (within 0.4 %), which makes a window fit into one line of the processor's cache.

/// Samples kept a window: enough for a steady median and a 90th percentile that is not just the maximum.
const KEPT: usize = 16;
/// Samples that make a window readable at once.
const ENOUGH: u32 = 5;
/// Ticks (of 250 ms) after which a window is read with whatever it holds.
const AGED_TICKS: u32 = 8;
/// Most times a window halves itself: every 32,768th sample is still taken.
const HALVINGS_MAX: u8 = 15;

/// The recent times to first byte of one key.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Window {
    /// Sorted; the upper halves of the floats of the microseconds, which sort like the floats.
    kept: [u16; KEPT],
    len: u8,
    halvings: u8,
    /// How many samples came, up to what fits.
    count: u16,
    opened: u32,
}

/// What a window says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Reading {
    /// Half of the calls were faster, in microseconds.
    pub(super) median: f32,
    /// Nine of ten calls were faster, in microseconds; the slowest of fewer than ten.
    pub(super) high: f32,
    /// How many calls it was.
    pub(super) samples: u32,
}

impl Window {
    /// Adds a sample at `tick`.
    pub(super) fn add(&mut self, micros: u32, tick: u32) {
        if self.count == 0 {
            self.opened = tick;
        }
        let turn = self.count;
        self.count = self.count.saturating_add(1);
        if turn & ((1 << self.halvings) - 1) != 0 {
            return;
        }
        if self.len as usize == KEPT {
            self.halve();
        }
        // Half a step is added first: cut off floats would all be a little too small.
        let value = (((micros.max(1) as f32).to_bits() + 0x8000) >> 16) as u16;
        let mut at = self.len as usize;
        while at > 0 && self.kept[at - 1] > value {
            self.kept[at] = self.kept[at - 1];
            at -= 1;
        }
        self.kept[at] = value;
        self.len += 1;
    }

    /// Keeps every second value; the largest among them, for the slow end must not get lost.
    fn halve(&mut self) {
        for at in 0..KEPT / 2 {
            self.kept[at] = self.kept[2 * at + 1];
        }
        self.len = (KEPT / 2) as u8;
        self.halvings = (self.halvings + 1).min(HALVINGS_MAX);
    }

    /// Whether a sample takes at least half as long as the slowest that is kept.
    pub(super) fn is_slow_for(&self, micros: u32) -> bool {
        let len = self.len as usize;
        len == 0 || micros as f32 >= 0.5 * f32::from_bits(u32::from(self.kept[len - 1]) << 16)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Empties the window and says what it held, when that is enough.
    pub(super) fn take(&mut self, tick: u32) -> Option<Reading> {
        let aged = self.count > 0 && tick.wrapping_sub(self.opened) >= AGED_TICKS;
        if u32::from(self.count) < ENOUGH && !aged {
            return None;
        }
        let len = self.len as usize;
        let value = |at: usize| f32::from_bits(u32::from(self.kept[at]) << 16);
        let high = (len * 9).div_ceil(10) - 1;
        let reading = Reading { median: value(len / 2), high: value(high), samples: self.count.into() };
        (self.len, self.halvings, self.count) = (0, 0, 0);
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
        assert_eq!(window.take(1), Some(Reading { median: 5.0, high: 900.0, samples: 5 }));
        assert!(window.is_empty());
    }

    #[test]
    fn a_rare_call_is_read_once_it_is_old() {
        let mut window = Window::default();
        window.add(700, 10);
        assert_eq!(window.take(10 + AGED_TICKS - 1), None);
        assert_eq!(window.take(10 + AGED_TICKS), Some(Reading { median: 700.0, high: 700.0, samples: 1 }));
        assert_eq!(window.take(1000), None);
    }

    #[test]
    fn a_full_window_stands_for_the_whole_tick() {
        let mut window = Window::default();
        for micros in 0..40_000u32 {
            window.add(micros, 0);
        }
        let reading = window.take(1).unwrap();
        assert_eq!(reading.samples, 40_000);
        assert!((15_000.0..25_000.0).contains(&reading.median), "{reading:?}");
        assert!((30_000.0..40_000.0).contains(&reading.high), "{reading:?}");
    }

    #[test]
    fn a_kept_time_is_within_half_a_percent() {
        for micros in [1, 17, 999, 1_234, 250_000, 3_999_999, u32::MAX / 2] {
            let mut window = Window::default();
            window.add(micros, 0);
            let reading = window.take(AGED_TICKS).unwrap();
            assert!((reading.median / micros as f32 - 1.0).abs() < 0.005, "{micros}: {}", reading.median);
        }
    }
}

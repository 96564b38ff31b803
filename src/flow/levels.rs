//! Which of the apiserver's priority levels do we know?
//!
//! APF names its levels by UID; here each gets a small number, so that a sample can carry it in a byte and pressure can
//! be computed without one level. APF ships with eight levels, clusters add a handful; when the table is full, further
//! levels share number 0, "unknown", which is never left out of anything.

use super::decision::Level;

/// Numbers, "unknown" included.
pub(super) const LEVELS: usize = 24;

/// The number of a level; 0 is "unknown".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LevelNumber(pub(super) u8);

/// The levels seen, in order of their first sight.
#[derive(Clone, Debug, Default)]
pub(super) struct Levels {
    seen: [u64; LEVELS - 1],
    len: u8,
}

impl Levels {
    /// The number of `level`, which is given one if there is room.
    pub(super) fn number(&mut self, level: Level) -> LevelNumber {
        if level.0 == 0 {
            return LevelNumber(0);
        }
        let len = self.len as usize;
        if let Some(at) = self.seen[..len].iter().position(|&seen| seen == level.0) {
            return LevelNumber(at as u8 + 1);
        }
        if len == self.seen.len() {
            return LevelNumber(0);
        }
        self.seen[len] = level.0;
        self.len += 1;
        LevelNumber(self.len)
    }

    /// The numbers in use, "unknown" left out.
    pub(super) fn known(&self) -> impl Iterator<Item = LevelNumber> {
        (1..=self.len).map(LevelNumber)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_keep_their_number_and_the_table_its_size() {
        let mut levels = Levels::default();
        assert_eq!(levels.number(Level(0)), LevelNumber(0));
        let first = levels.number(Level(77));
        for hash in 100..200 {
            levels.number(Level(hash));
        }
        assert_eq!(levels.number(Level(77)), first);
        assert_eq!(levels.number(Level(199)), LevelNumber(0));
        assert_eq!(levels.known().count(), LEVELS - 1);
    }
}

//! Whose requests are held to the policy already?
//!
//! A policy that is new to a cluster begins in [`Mode::Shadow`]: it decides and counts, and lets everything pass. Then it is
//! enforced for a part of the identities, which grows. Who is in that part follows from a hash of the user name that is the
//! same on every instance, after every restart and for every version: a client is either held to the policy or not, never
//! now and then, and whoever was in at 5 % is in at 25 %.
//!
//! Left out: what shadow means for a request (`flow::shadow`), and who moves the percentage.

use std::fmt;

/// How far a request is held to what the policy decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Nothing is decided: everything is let in, and the brake is off as well.
    Disabled,
    /// Everything is decided and counted; nothing is refused or queued, unless the brake holds.
    Shadow,
    /// What is decided is done.
    #[default]
    Enforce,
}

impl Mode {
    /// All modes.
    pub const ALL: [Self; 3] = [Self::Disabled, Self::Shadow, Self::Enforce];

    /// As in a policy. No word of it is one that YAML 1.1 takes for true or false.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disabled => "Disabled",
            Self::Shadow => "Shadow",
            Self::Enforce => "Enforce",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The mode of everybody whom no rule gives a mode of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enforcement {
    /// Of those within the percentage; [`Mode::Shadow`] for the others where it is [`Mode::Enforce`].
    pub mode: Mode,
    /// Percent of the identities, 0 to 100. Counts in [`Mode::Enforce`] alone.
    pub percent: u32,
}

impl Default for Enforcement {
    fn default() -> Self {
        Self { mode: Mode::Enforce, percent: 100 }
    }
}

impl Enforcement {
    /// How far `user` is held to the policy.
    ///
    /// ```
    /// use spillway::policy::{Enforcement, Mode};
    ///
    /// let half = Enforcement { mode: Mode::Enforce, percent: 50 };
    /// assert_eq!(half.of("system:serviceaccount:obs:agent"), Mode::Shadow);
    /// assert_eq!(half.of("alice"), half.of("alice"));
    /// assert_eq!(Enforcement { percent: 0, ..half }.of("alice"), Mode::Shadow);
    /// ```
    #[must_use]
    pub fn of(self, user: &str) -> Mode {
        match self.mode {
            Mode::Enforce if self.percent < 100 && place(user) >= self.percent * PLACES / 100 => Mode::Shadow,
            mode => mode,
        }
    }
}

/// Places that identities are spread over.
const PLACES: u32 = 10_000;

/// Where a user stands among all: 0 to 9,999, for ever the same. FNV-1a, because it is written down in two lines and will
/// not change with a library, and a mixer, because its high bits alone are not even.
#[must_use]
pub fn place(user: &str) -> u32 {
    let mut hash = user.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^= hash >> 31;
    u32::try_from(hash % u64::from(PLACES)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_written_down_so_that_no_version_moves_anybody() {
        let users = ["", "alice", "system:node:node-1", "system:serviceaccount:obs:agent"];
        assert_eq!(users.map(place), [6_203, 572, 97, 8_257]);
    }

    #[test]
    fn a_percentage_takes_that_part_of_the_identities_and_a_larger_one_takes_them_too() {
        let users: Vec<String> = (0..20_000).map(|number| format!("system:node:node-{number}")).collect();
        let mut before: Vec<&String> = vec![];
        for percent in [0, 1, 5, 25, 50, 100] {
            let enforcement = Enforcement { mode: Mode::Enforce, percent };
            let held: Vec<&String> =
                users.iter().filter(|user| enforcement.of(user) == Mode::Enforce).collect();
            let share = held.len() as f64 / users.len() as f64 * 100.0;
            assert!(
                (share - f64::from(percent)).abs() < 0.05 * f64::from(percent) + 0.2,
                "{percent}: {share}"
            );
            assert!(before.iter().all(|user| enforcement.of(user) == Mode::Enforce), "{percent}");
            before = held;
        }
    }

    #[test]
    fn a_percentage_says_nothing_about_the_other_modes() {
        for mode in [Mode::Disabled, Mode::Shadow] {
            assert_eq!(Enforcement { mode, percent: 100 }.of("alice"), mode);
            assert_eq!(Enforcement { mode, percent: 0 }.of("alice"), mode);
        }
    }
}

//! What are time, seats and work?
//!
//! The pure core never reads a clock: every decision is handed an [`Instant`], so that the same code runs
//! against real time in production and against virtual time in the simulator and in tests.
//! Work is fixed point, as APF's `SeatSeconds` is, so that long runs do not drift and traces repeat exactly.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;

/// A point on a monotonic clock: nanoseconds since an origin that only the clock's owner knows.
///
/// ```
/// use std::time::Duration;
/// use spillway::units::Instant;
///
/// let start = Instant::ORIGIN + Duration::from_millis(250);
/// assert_eq!(start.as_nanos(), 250_000_000);
/// assert_eq!((start + Duration::from_secs(1)).since(start), Duration::from_secs(1));
/// // Time that runs backwards counts as no time.
/// assert_eq!(Instant::ORIGIN.since(start), Duration::ZERO);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The clock's own zero.
    pub const ORIGIN: Self = Self(0);

    /// The instant `nanos` nanoseconds after the origin; 584 years fit.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the origin.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time passed since `earlier`; zero when `earlier` lies in the future.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;

    fn sub(self, rhs: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// Units of upstream capacity, the word that API Priority and Fairness uses. A request takes 1 to 16.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seats(pub u32);

impl Seats {
    /// No capacity at all.
    pub const ZERO: Self = Self(0);
    /// What a plain object request takes.
    pub const ONE: Self = Self(1);
    /// The most one request may take, so that no single LIST can ask for a whole server.
    pub const MAX_PER_REQUEST: Self = Self(16);

    /// `self - rhs`, never below zero.
    #[must_use]
    pub const fn saturating_sub(self, rhs: Self) -> Self {
        Self(self.0.saturating_sub(rhs.0))
    }

    /// Seats held for `duration`.
    ///
    /// ```
    /// use std::time::Duration;
    /// use spillway::units::{SeatSeconds, Seats};
    ///
    /// assert_eq!(Seats(4).held_for(Duration::from_millis(250)), SeatSeconds::from_micros(1_000_000));
    /// ```
    #[must_use]
    pub fn held_for(self, duration: Duration) -> SeatSeconds {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        SeatSeconds(micros.saturating_mul(u64::from(self.0)))
    }
}

impl Add for Seats {
    type Output = Self;

    fn add(self, rhs: Self) -> Self {
        Self(self.0.saturating_add(rhs.0))
    }
}

impl AddAssign for Seats {
    fn add_assign(&mut self, rhs: Self) {
        *self = *self + rhs;
    }
}

impl fmt::Display for Seats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Work: seats times the seconds they were held, in millionths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeatSeconds(u64);

impl SeatSeconds {
    /// No work.
    pub const ZERO: Self = Self(0);

    /// `micros` millionths of a seat-second.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Millionths of a seat-second.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// `self - rhs`, never below zero.
    #[must_use]
    pub const fn saturating_sub(self, rhs: Self) -> Self {
        Self(self.0.saturating_sub(rhs.0))
    }
}

impl Add for SeatSeconds {
    type Output = Self;

    fn add(self, rhs: Self) -> Self {
        Self(self.0.saturating_add(rhs.0))
    }
}

impl AddAssign for SeatSeconds {
    fn add_assign(&mut self, rhs: Self) {
        *self = *self + rhs;
    }
}

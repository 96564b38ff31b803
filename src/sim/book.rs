//! How are requests looked up by their names?
//!
//! A hash map with a fixed, fast hasher: names are the simulator's own numbers, so nobody can choose colliding ones, and
//! equal runs must not differ by a random hash key. Books are looked up, never iterated, where order could decide.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::guard::Id;

/// What is known about requests, by name.
pub(super) type Book<T> = HashMap<Id, T, BuildHasherDefault<Spread>>;

/// Multiplies by the golden ratio in 64 bits, which spreads consecutive numbers well.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

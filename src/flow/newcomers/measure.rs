//! What does one newcomer cost, and how does it spread?

use std::collections::HashMap;
use std::time::Duration;

use super::{Figures, SPREADING_PLACES};
use crate::units::Instant;

/// What a place costs in its first seconds is its start: discovery and the first LISTs.
const START: Duration = Duration::from_secs(20);
/// The steady cost is that of the last minute.
const WINDOW: Duration = Duration::from_secs(60);
/// Parts of the window.
const PARTS: usize = 6;
/// Places must have been watched for so long, all together, before their steady cost is believed.
const ENOUGH: f64 = 30.0;
/// Places of one newcomer that are told apart: beyond, only their number is a lower bound. 256 kB.
const PLACES_MAX: usize = 16_384;

/// Sums over the last minute, in six parts.
#[derive(Clone, Copy, Debug, Default)]
struct Recently {
    parts: [f64; PARTS],
    /// The part that is written to, counted from the clock's origin.
    at: u64,
}

impl Recently {
    fn turn(&mut self, now: Instant) {
        let at = part(now);
        let passed = usize::try_from(at.saturating_sub(self.at)).unwrap_or(PARTS).min(PARTS);
        for step in 1..=passed {
            self.parts[index(at - (passed - step) as u64)] = 0.0;
        }
        self.at = self.at.max(at);
    }

    fn add(&mut self, now: Instant, amount: f64) {
        self.turn(now);
        self.parts[index(self.at)] += amount;
    }

    /// The sum, and the seconds that it is of.
    fn sum(mut self, now: Instant) -> f64 {
        self.turn(now);
        self.parts.iter().sum()
    }
}

fn part(now: Instant) -> u64 {
    now.as_nanos() / (WINDOW.as_nanos() as u64 / PARTS as u64)
}

fn index(part: u64) -> usize {
    (part % PARTS as u64) as usize
}

/// Seconds that the parts of the window cover: five whole ones, and the one that has begun.
fn covered(now: Instant) -> f64 {
    let length = WINDOW.as_secs_f64() / PARTS as f64;
    let begun = (now.as_nanos() as f64 / 1e9) % length;
    length * (PARTS - 1) as f64 + begun
}

/// The measure of one newcomer.
#[derive(Debug)]
pub(super) struct Measure {
    began: Instant,
    /// When each place was first seen.
    places: HashMap<u64, Instant>,
    added: Recently,
    starts: f64,
    steady: Recently,
    asked: u64,
}

impl Measure {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            began: now,
            places: HashMap::new(),
            added: Recently { at: part(now), ..Recently::default() },
            starts: 0.0,
            steady: Recently { at: part(now), ..Recently::default() },
            asked: 0,
        }
    }

    /// A place asked for work worth `price` seat-seconds.
    pub(super) fn asked(&mut self, now: Instant, place: u64, price: f64) {
        self.asked += 1;
        let first = match self.places.get(&place) {
            Some(first) => *first,
            None => {
                if self.places.len() < PLACES_MAX {
                    self.places.insert(place, now);
                    self.added.add(now, 1.0);
                }
                now
            }
        };
        if now.since(first) < START {
            self.starts += price;
        } else {
            self.steady.add(now, price);
        }
    }

    pub(super) fn figures(&self, now: Instant, nodes: usize) -> Figures {
        let places = self.places.len();
        let window = covered(now);
        let watched: f64 = self
            .places
            .values()
            .map(|first| now.since(*first).saturating_sub(START).as_secs_f64().min(window))
            .sum();
        let per_place = (watched >= ENOUGH).then(|| self.steady.sum(now) / watched);
        let per_start = if places == 0 { 0.0 } else { self.starts / places as f64 };
        let age = now.since(self.began).as_secs_f64().clamp(10.0, window.max(10.0));
        let growth = self.added.sum(now) / age;
        // The last places of a roll-out come slowly: it goes on until it is nearly everywhere, or stands still.
        let spreads = places >= SPREADING_PLACES && places * 100 >= nodes && growth > 0.0 && places < nodes;
        let everywhere = if spreads { nodes } else { places };
        let steady = per_place.unwrap_or_default() * everywhere as f64;
        let starting = if spreads { growth * per_start } else { 0.0 };
        Figures {
            places,
            nodes,
            growth,
            spreads,
            per_place,
            per_start,
            projected: steady + starting,
            asked: self.asked,
        }
    }
}

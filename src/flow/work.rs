//! Who makes the work, and how much is done?
//!
//! Work is counted when it is done, in seat-seconds of calm, so that a slow server does not look busier than a quick one.
//! Clients are counted by the space-saving sketch (Metwally 2005): a fixed table in which a newcomer takes the
//! place, and inherits the count, of the smallest; whoever makes more than a 64th of the work is surely in it, and its
//! count is too high by at most that. Everything fades over about ten seconds.

use crate::units::SeatSeconds;

/// Clients counted at a time.
const CLIENTS: usize = 64;
/// What is left of the counts after a tick: ten seconds' memory.
const FADE: f32 = 0.975;

/// The counts.
#[derive(Clone, Debug)]
pub(super) struct Work {
    clients: [u64; CLIENTS],
    counts: [f32; CLIENTS],
    len: usize,
    /// Faded sums: all work, and that of heavy requests which reach etcd.
    total: f32,
    etcd: f32,
    /// Work done since the last tick.
    fresh: f32,
}

impl Work {
    pub(super) fn new() -> Self {
        Self { clients: [0; CLIENTS], counts: [0.0; CLIENTS], len: 0, total: 0.0, etcd: 0.0, fresh: 0.0 }
    }

    /// A call ended well.
    pub(super) fn done(&mut self, client: u64, work: SeatSeconds, is_etcd: bool) {
        let work = work.as_micros() as f32 / 1e6;
        self.fresh += work;
        self.total += work;
        if is_etcd {
            self.etcd += work;
        }
        if let Some(at) = self.clients[..self.len].iter().position(|&known| known == client) {
            self.counts[at] += work;
        } else if self.len < CLIENTS {
            (self.clients[self.len], self.counts[self.len]) = (client, work);
            self.len += 1;
        } else {
            let at =
                (0..CLIENTS).min_by(|&one, &two| self.counts[one].total_cmp(&self.counts[two])).unwrap_or(0);
            self.clients[at] = client;
            self.counts[at] += work;
        }
    }

    /// The work since the last tick, in seat-seconds; fades the rest.
    pub(super) fn tick(&mut self) -> f64 {
        self.counts.iter_mut().for_each(|count| *count *= FADE);
        self.total *= FADE;
        self.etcd *= FADE;
        f64::from(std::mem::take(&mut self.fresh))
    }

    /// Share of the work that heavy requests which reach etcd made.
    pub(super) fn etcd_share(&self) -> f64 {
        if self.total > 0.0 { f64::from(self.etcd / self.total) } else { 0.0 }
    }

    /// The counted clients and their shares of all work, in no order.
    pub(super) fn shares(&self) -> impl Iterator<Item = (u64, f64)> {
        let share = |count: f32| if self.total > 0.0 { f64::from(count / self.total).min(1.0) } else { 0.0 };
        let counted = self.clients.iter().zip(self.counts).take(self.len);
        counted.map(move |(&client, count)| (client, share(count)))
    }

    /// The client with the most work and its share of all.
    pub(super) fn heaviest(&self) -> Option<(u64, f64)> {
        let at = (0..self.len).max_by(|&one, &two| self.counts[one].total_cmp(&self.counts[two]))?;
        (self.total > 0.0).then(|| (self.clients[at], f64::from(self.counts[at] / self.total).min(1.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_makes_most_of_the_work_is_found_among_thousands() {
        let mut work = Work::new();
        for turn in 0..10_000u64 {
            work.done(1_000 + turn, SeatSeconds::from_micros(1_000), false);
            if turn % 10 == 0 {
                work.done(7, SeatSeconds::from_micros(20_000), true);
            }
        }
        let (client, share) = work.heaviest().unwrap();
        assert_eq!(client, 7);
        assert!((0.66..0.70).contains(&share), "{share}");
        assert!((0.66..0.67).contains(&work.etcd_share()));
        assert_eq!(work.shares().find(|(client, _)| *client == 7), Some((client, share)));
        assert_eq!(Work::new().shares().count(), 0);
    }

    #[test]
    fn old_work_fades() {
        let mut work = Work::new();
        work.done(1, SeatSeconds::from_micros(9_000_000), false);
        assert!((work.tick() - 9.0).abs() < 1e-3);
        (0..200).for_each(|_| _ = work.tick());
        work.done(2, SeatSeconds::from_micros(1_000_000), false);
        assert_eq!(work.heaviest().map(|(client, _)| client), Some(2));
    }
}

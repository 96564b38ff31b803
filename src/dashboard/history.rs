//! What happened in the last ten minutes, second by second?
//!
//! Rings of a fixed size: the proxy as a whole, its lanes, and the clients that stood in a list lately. A second of
//! which nothing is known is a gap in the line and never a zero.

use std::collections::{HashMap, VecDeque};

use super::figures::Lately;
use crate::admin::wire::{ClientView, Status};
use crate::policy::Lane;

/// Seconds that are kept.
pub(super) const SECONDS_MAX: usize = 600;
/// Seconds of one client that are kept.
pub(super) const CLIENT_SECONDS_MAX: usize = 120;
/// Clients with a line of their own; the one that was in no list for longest gives way.
const CLIENTS_MAX: usize = 64;

/// One second.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Slot {
    pub(super) limit: f32,
    pub(super) seats: f32,
    pub(super) served: f32,
    pub(super) shed: f32,
    /// Seconds; not a number when nothing was answered.
    pub(super) p99: f32,
    pub(super) lanes: [LaneSlot; Lane::COUNT],
}

/// One lane in one second.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LaneSlot {
    pub(super) served: f32,
    pub(super) shed: f32,
    pub(super) seats: f32,
    pub(super) waiting: f32,
}

/// What is remembered.
#[derive(Debug, Default)]
pub(super) struct History {
    slots: VecDeque<Slot>,
    clients: HashMap<String, Client>,
}

#[derive(Debug, Default)]
struct Client {
    /// Served and refused a second; not a number where it was in no list.
    rates: VecDeque<(f32, f32)>,
    /// When it was in a list last.
    listed: u64,
}

impl History {
    /// Takes in one second.
    pub(super) fn take(&mut self, at: u64, status: &Status, lately: &Lately, listed: &[ClientView]) {
        while self.slots.len() >= SECONDS_MAX {
            self.slots.pop_front();
        }
        let mut slot = Slot {
            limit: status.limit as f32,
            seats: status.seats as f32,
            served: status.served_per_second as f32,
            shed: status.shed_per_second as f32,
            p99: lately.first_byte.1.map_or(f32::NAN, |seconds| seconds as f32),
            lanes: Default::default(),
        };
        for (of, lane) in slot.lanes.iter_mut().zip(&status.lanes) {
            *of = LaneSlot {
                served: lane.served_per_second as f32,
                shed: lane.shed_per_second as f32,
                seats: lane.seats as f32,
                waiting: lane.waiting as f32,
            };
        }
        self.slots.push_back(slot);
        self.take_clients(at, listed);
    }

    fn take_clients(&mut self, at: u64, listed: &[ClientView]) {
        for view in listed {
            if !self.clients.contains_key(&view.user) {
                self.make_room();
                self.clients.insert(view.user.clone(), Client::default());
            }
        }
        for (user, client) in &mut self.clients {
            while client.rates.len() >= CLIENT_SECONDS_MAX {
                client.rates.pop_front();
            }
            let view = listed.iter().find(|view| view.user == *user);
            if view.is_some() {
                client.listed = at;
            }
            client.rates.push_back(view.map_or((f32::NAN, f32::NAN), |view| {
                (view.served_per_second as f32, view.shed_per_second as f32)
            }));
        }
    }

    fn make_room(&mut self) {
        if self.clients.len() < CLIENTS_MAX {
            return;
        }
        let oldest =
            self.clients.iter().min_by_key(|(_, client)| client.listed).map(|(user, _)| user.clone());
        if let Some(user) = oldest {
            self.clients.remove(&user);
        }
    }

    /// The last `seconds`, the oldest first.
    pub(super) fn last(&self, seconds: usize) -> impl ExactSizeIterator<Item = &Slot> + Clone {
        self.slots.iter().skip(self.slots.len().saturating_sub(seconds))
    }

    /// Served and refused of one client, the oldest second first.
    pub(super) fn client(&self, user: &str) -> Option<&VecDeque<(f32, f32)>> {
        self.clients.get(user).map(|client| &client.rates)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(user: &str, served: f64) -> ClientView {
        ClientView { user: user.to_owned(), served_per_second: served, ..ClientView::default() }
    }

    #[test]
    fn everything_is_bounded_and_what_is_not_known_is_a_gap() {
        let mut history = History::default();
        let mut take = |at: u64, listed: &[ClientView]| {
            history.take(at, &Status::default(), &Lately::default(), listed);
        };
        (0..700).for_each(|second| take(second, &[view(&format!("client {second}"), 1.0)]));
        take(700, &[view("client 699", 5.0)]);
        take(701, &[]);
        assert_eq!(history.last(9_999).len(), SECONDS_MAX);
        assert_eq!(history.last(3).len(), 3);
        assert_eq!(history.clients.len(), CLIENTS_MAX);
        let rates = history.client("client 699").unwrap();
        assert_eq!((rates[0].0, rates[1].0), (1.0, 5.0));
        assert!(rates[2].0.is_nan());
        assert!(history.client("client 1").is_none(), "the one that was listed longest ago gives way");
    }
}

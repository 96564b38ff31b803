//! What is the client called that the scheduler knows by a number?
//!
//! The scheduler counts work by a hash; a person wants a name. Only callers whose identity was verified here are
//! remembered, so nobody can put a name into a log line that is not theirs, and only so many of them.

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;

use crate::policy::ClientKey;

/// Names that are kept; the oldest goes first. Half a megabyte.
const NAMES_MAX: usize = 4_096;
/// Bytes of a name that are kept: a service account's full name has at most 341.
const NAME_BYTES_MAX: usize = 341;

/// Names of verified clients.
#[derive(Debug, Default)]
pub struct Names(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    names: HashMap<ClientKey, String>,
    /// In the order in which they came.
    order: VecDeque<ClientKey>,
}

impl Names {
    /// Remembers a client's name.
    pub(super) fn learn(&self, client: ClientKey, name: &str) {
        let mut table = self.0.lock();
        if table.names.contains_key(&client) {
            return;
        }
        while table.order.len() >= NAMES_MAX
            && let Some(oldest) = table.order.pop_front()
        {
            table.names.remove(&oldest);
        }
        let mut end = name.len().min(NAME_BYTES_MAX);
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        table.names.insert(client, name[..end].to_owned());
        table.order.push_back(client);
    }

    /// The name of the client with this key, if it is still known.
    #[must_use]
    pub fn of(&self, client: ClientKey) -> Option<String> {
        self.0.lock().names.get(&client).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_bounded_and_forgets_the_oldest() {
        let names = Names::default();
        for client in 0..=NAMES_MAX as u64 {
            names.learn(ClientKey(client), &format!("client {client}"));
            names.learn(ClientKey(client), "somebody else");
        }
        assert_eq!(names.0.lock().names.len(), NAMES_MAX);
        assert_eq!(names.of(ClientKey(0)), None);
        assert_eq!(names.of(ClientKey(1)).as_deref(), Some("client 1"));
    }

    #[test]
    fn a_long_name_is_cut_at_a_character() {
        let names = Names::default();
        names.learn(ClientKey(1), &"ü".repeat(NAME_BYTES_MAX));
        assert_eq!(names.of(ClientKey(1)).map(|name| name.len()), Some(NAME_BYTES_MAX - 1));
    }
}

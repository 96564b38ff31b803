//! How much memory may the heads of requests hold that are not answered yet?
//!
//! A head costs its client what it sends, and us what hyper makes of it: a hundred fields of one byte each become some
//! twenty kilobytes. Two budgets bound that. A connection's counts only what is out of proportion, fields beyond
//! what any honest client sends; a listener's counts everything beyond a small head, over all connections, so that
//! more connections do not mean more memory. Who is over one of them is told 429, and may come back; who goes on beyond
//! its own is cut off ([`super::frames`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::HeaderMap;

/// Fields that cost nothing: kubectl sends ten, a browser behind two proxies twenty.
const FIELDS_FREE: usize = 24;
/// What the map keeps for a field beside its text, in bytes, with the room that it reserves in advance.
const FIELD_BYTES: usize = 224;
/// Out of proportion, per connection: eight heads of a hundred fields.
const CONNECTION_BYTES_MAX: usize = 128 * 1024;
/// A head of this size is in nobody's budget: identity, accept, user agent and a service-account token.
const HEAD_BYTES_FREE: usize = 4 * 1024;
/// All larger heads of a listener.
const LISTENER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes that may be in use.
#[derive(Debug)]
pub(super) struct Budget {
    used: AtomicUsize,
    max: usize,
}

/// A part of a budget, given back on drop.
#[derive(Debug)]
struct Part {
    budget: Arc<Budget>,
    bytes: usize,
}

/// What a request's head holds of both budgets.
#[derive(Debug)]
pub(super) struct Held {
    _connection: Option<Part>,
    _listener: Option<Part>,
}

/// Whose budget is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exhausted {
    /// The client's own.
    Connection,
    /// Everybody's.
    Listener,
}

impl Budget {
    /// For the heads of one connection.
    pub(super) fn of_connection() -> Arc<Self> {
        Self::new(CONNECTION_BYTES_MAX)
    }

    /// For the heads of one listener.
    pub(super) fn of_listener() -> Arc<Self> {
        Self::new(LISTENER_BYTES_MAX)
    }

    fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), max })
    }

    fn take(self: &Arc<Self>, bytes: usize, whose: Exhausted) -> Result<Option<Part>, Exhausted> {
        if bytes == 0 {
            return Ok(None);
        }
        let part = Part { budget: Arc::clone(self), bytes };
        if self.used.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) > self.max {
            return Err(whose);
        }
        Ok(Some(part))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Takes what `headers` holds.
pub(super) fn hold(
    headers: &HeaderMap,
    connection: &Arc<Budget>,
    listener: &Arc<Budget>,
) -> Result<Held, Exhausted> {
    let fields = headers.len();
    let text: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    let all = fields.saturating_mul(FIELD_BYTES).saturating_add(text);
    Ok(Held {
        _connection: connection
            .take(fields.saturating_sub(FIELDS_FREE) * FIELD_BYTES, Exhausted::Connection)?,
        _listener: listener.take(all.saturating_sub(HEAD_BYTES_FREE), Exhausted::Listener)?,
    })
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(fields: usize, bytes: usize) -> HeaderMap {
        let value = HeaderValue::from_str(&"v".repeat(bytes)).unwrap();
        (0..fields)
            .map(|number| (HeaderName::try_from(format!("x-{number}")).unwrap(), value.clone()))
            .collect()
    }

    #[test]
    fn ordinary_heads_cost_nothing_and_bombs_are_few_at_a_time() {
        let (connection, listener) = (Budget::of_connection(), Budget::of_listener());
        let ordinary = headers(12, 60);
        let many: Vec<_> = (0..10_000).map(|_| hold(&ordinary, &connection, &listener).unwrap()).collect();
        assert_eq!(connection.used.load(Ordering::Relaxed) + listener.used.load(Ordering::Relaxed), 0);
        drop(many);

        let bomb = headers(100, 0);
        let held: Vec<_> = (0..100).map_while(|_| hold(&bomb, &connection, &listener).ok()).collect();
        assert_eq!(held.len(), CONNECTION_BYTES_MAX / (76 * FIELD_BYTES));
        let elsewhere = Budget::of_connection();
        assert!(hold(&bomb, &elsewhere, &listener).is_ok(), "another connection has its own");
        drop(held);
        assert!(hold(&bomb, &connection, &listener).is_ok(), "what is given back can be had again");
    }

    #[test]
    fn more_connections_do_not_mean_more_memory() {
        let listener = Budget::of_listener();
        let large = headers(20, 3_000);
        let held: Vec<_> =
            (0..10_000).map_while(|_| hold(&large, &Budget::of_connection(), &listener).ok()).collect();
        assert!((1_000..1_200).contains(&held.len()), "{} heads of 60 KB in 64 MB", held.len());
        drop(held);
        assert_eq!(listener.used.load(Ordering::Relaxed), 0);
    }
}

//! Who may take how many file descriptors?
//!
//! Without a plan the answer is: whoever connects first. A crowd of clients then takes the last one, and neither an
//! operator's connection, nor one to the apiserver, nor a log file can be opened. So the soft limit is raised to the hard
//! one (only `select` needed it low), a reserve is put aside, and what is left is divided: what clients may have, what
//! connections to the apiserver may have, and what break-glass has for itself, for both. Every part is bounded by a
//! count of its own, so `accept` meets the kernel's limit only if somebody lowers it afterwards, and then backs off.

use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::Semaphore;

use super::StartError;

/// For files, logs, listeners, runtimes, probes and scrapes; never given to connections.
pub(super) const RESERVE: u64 = 64;
/// The least with which a proxy can be run: below it the parts are too small to serve anybody.
const LEAST: u64 = 128;
/// Break-glass needs no more than this: 128 clients, and connections to the apiserver for their tunnels.
const BREAK_GLASS_MAX: u64 = 256;
/// Assumed where the kernel names no limit; more than any table of connections here can hold.
const UNLIMITED: u64 = 1 << 30;

/// How the descriptors are divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Descriptors that the process may have.
    pub(super) limit: u64,
    /// Client connections of all listeners but break-glass.
    pub(super) clients: usize,
    /// Connections to the apiserver, for all lanes but break-glass.
    pub(super) upstream: usize,
    /// Client connections of break-glass; it may have as many to the apiserver.
    pub(super) break_glass: usize,
}

impl Plan {
    /// Raises the soft limit as far as this process may, and divides what there is; `wanted` is the configured number of
    /// client connections.
    ///
    /// # Errors
    /// There are too few for a proxy.
    pub(super) fn make(wanted: usize) -> Result<Self, StartError> {
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        // A limit that cannot be raised is no reason not to start: the plan fits what there is.
        let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok();
        let limit = if raised { maximum } else { current };
        let plan = Self::of(limit.unwrap_or(UNLIMITED), wanted)?;
        if plan.clients < wanted {
            tracing::warn!(
                limit = plan.limit,
                clients = plan.clients,
                upstream = plan.upstream,
                configured = wanted,
                "limits.connections is lowered to what the limit on open files allows (ulimit -n)"
            );
        }
        Ok(plan)
    }

    fn of(limit: u64, wanted: usize) -> Result<Self, StartError> {
        if limit < LEAST {
            return Err(StartError::Descriptors { limit, least: LEAST });
        }
        let break_glass = (limit / 4).min(BREAK_GLASS_MAX);
        let rest = limit - RESERVE - break_glass;
        // Tunnels and unverified callers take one connection to the apiserver each, all others share: a third is more than
        // an ordinary mix needs.
        let clients = (rest - rest / 3).min(wanted as u64);
        let small = |count: u64| usize::try_from(count).unwrap_or(Semaphore::MAX_PERMITS);
        Ok(Self {
            limit,
            clients: small(clients),
            upstream: small(rest - clients).min(Semaphore::MAX_PERMITS),
            break_glass: small(break_glass / 2),
        })
    }

    /// One permit for each connection to the apiserver.
    pub(super) fn sockets(&self) -> Arc<Semaphore> {
        Arc::new(Semaphore::new(self.upstream))
    }
}

/// Descriptors that this process has open now.
pub(super) fn open() -> Option<u64> {
    let entries = std::fs::read_dir("/proc/self/fd").ok()?.count() as u64;
    // The directory itself is one of them.
    Some(entries.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn d4_the_parts_and_the_reserve_are_never_more_than_there_are(limit in 128..2_000_000u64, wanted in 16..1_000_000usize) {
            let plan = Plan::of(limit, wanted).unwrap();
            let parts = plan.clients + plan.upstream + 2 * plan.break_glass;
            prop_assert!(parts as u64 + RESERVE <= limit);
            prop_assert!(plan.clients >= 16.min(wanted) && plan.upstream >= 8 && plan.break_glass >= 16);
            prop_assert!(plan.clients <= wanted);
        }
    }

    #[test]
    fn d4_what_was_asked_for_is_given_where_there_is_enough() {
        assert_eq!(Plan::of(1 << 20, 10_000).unwrap().clients, 10_000);
        let small = Plan::of(256, 10_000).unwrap();
        assert_eq!((small.clients, small.upstream, small.break_glass), (86, 42, 32));
        let error = Plan::of(127, 10_000).unwrap_err().to_string();
        assert!(error.contains("127") && error.contains("128") && error.contains("ulimit -n"), "{error}");
    }

    #[test]
    fn this_process_has_descriptors_open() {
        assert!(open().unwrap() >= 3);
    }
}

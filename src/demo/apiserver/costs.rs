//! What does a request cost a real kube-apiserver?
//!
//! CPU times of one core, measured on kube-apiserver 1.34 or taken from KEP-2340 and KEP-3157: GET 0.7 to 1 ms, lease PUT
//! 2 ms, LIST of 5,000 pods as JSON 361 ms (72 µs a pod), watch start 1 ms, TLS handshake 1 to 2 ms. A LIST holds
//! about five times its response in memory while it runs. The model's own objects are smaller than real ones, so
//! memory is counted by real sizes (7.8 kB a pod in that measurement) and not by the bytes that are sent.

use std::time::Duration;

use super::processor::Work;

/// What small requests hold while they run: buffers, decoded object, goroutine stacks.
const SMALL_BYTES: u64 = 64 << 10;
/// Measured: 361 ms for 5,000 pods.
const LIST_PER_OBJECT: Duration = Duration::from_micros(72);
/// Measured: 39 MB for 5,000 pods; five times that is in memory (KEP-3157).
const LIST_BYTES_PER_OBJECT: u64 = 5 * 7_800;
/// The fixed part of a LIST is that of a GET.
const LIST_BASE: Duration = GET.cpu;

const fn small(cpu: Duration) -> Work {
    Work { cpu, memory_bytes: SMALL_BYTES }
}

/// Health probes touch no storage.
pub(crate) const PROBE: Work = small(Duration::from_micros(200));
/// Discovery and other documents that are ready to send.
pub(crate) const DOCUMENT: Work = small(Duration::from_micros(500));
/// One object from the store.
pub(crate) const GET: Work = small(Duration::from_millis(1));
/// A lease renewal.
pub(crate) const LEASE_PUT: Work = small(Duration::from_millis(2));
/// Any other small write.
pub(crate) const WRITE: Work = small(Duration::from_millis(4));
/// The start of a watch, without its initial objects.
pub(crate) const WATCH_START: Work = small(Duration::from_millis(1));
/// Encoding and sending one batch of watch events to one watcher.
pub(crate) const WATCH_DELIVERY: Work = small(Duration::from_micros(100));
/// A TLS handshake on the server's side.
pub(crate) const HANDSHAKE: Work = small(Duration::from_micros(1_500));

/// A LIST that reads `objects` objects, whether or not a selector drops them afterwards.
///
/// `list(6_000)`, a whole cluster of 200 nodes, is 433 ms of one core and 234 MB.
pub(crate) fn list(objects: usize) -> Work {
    let count = u32::try_from(objects).unwrap_or(u32::MAX);
    Work {
        cpu: LIST_BASE + LIST_PER_OBJECT * count,
        memory_bytes: SMALL_BYTES + LIST_BYTES_PER_OBJECT * u64::from(count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_costs_by_the_objects_it_reads() {
        assert_eq!(list(0).cpu, GET.cpu);
        assert_eq!(list(6_000).cpu, Duration::from_millis(433));
        assert_eq!(list(6_000).memory_bytes / 1_000_000, 234);
    }
}

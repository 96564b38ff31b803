//! Over which connection does it go?
//!
//! [`Pools`] keeps the connections of one shard to the apiserver and forwards one request at a time through
//! [`Forward`], the one narrow trait between the gateway and the wire. Connections are apart by lane (a lower
//! lane cannot fill a higher one's streams), by credential ([`Via`]: the apiserver closes a whole HTTP/2
//! connection after one bad token) and by [`Traffic`] (a burst of watches must not block a lease renewal).
//! Inside a pool requests are packed, not spread: fill the first connection to its stream limit, then the next.
//! Packing is worth up to a quarter of the CPU, and hyper itself would queue above the limit without telling.
//!
//! Left out: retries. A request that hyper hands back unsent goes to another connection once; anything that may
//! have reached the apiserver is the caller's to repeat. Theory: RFC 9113 5.1.2 and 6.8, kube-apiserver's
//! `UnauthenticatedHTTP2DOSMitigation`, and the measurements in `docs/ARCHITECTURE.md`.

mod backoff;
mod body;
mod connection;
mod dial;
mod error;
mod forward;
mod pool;
mod prober;
mod rotation;
mod settings;
mod spare;
mod stall;
mod stats;
mod target;
pub mod tls;
pub mod trust;

pub use body::{BodyError, RequestBody, ResponseBody};
pub use error::{Kind, Side, UpstreamError};
pub use forward::{BoxFuture, Forward, Pools, Route, Traffic};
pub use prober::{Outcome, Prober, Probers, Reading};
pub use rotation::Rotation;
pub use settings::{ProbeIdentity, Settings, UnverifiedProtocol};
pub use stats::{Stats, Via};
pub use tls::{ClientCertificate, TlsError};

//! How do bytes leave cheaply, and how long may a peer stay silent?
//!
//! h2 flushes after every DATA frame, so an untuned proxy pays one TLS record and one system call per answer.
//! [`Deferred`] answers "flushed" at once and lets one task per runtime, the [`Flusher`], push what a scheduler
//! tick has gathered: one record and one send per connection and tick. [`ReadAhead`] does the same below rustls
//! for reading. Buffers come from bounded pools and go back as soon as they are empty, so that ten thousand
//! idle connections hold none. [`FirstRequest`] bounds the time a peer may take before it says something useful.
//!
//! Left out: HTTP, TLS and every decision. The measurements that led here are in `docs/ARCHITECTURE.md`.

mod buffers;
mod deferred;
mod executor;
mod first_request;
mod flusher;
mod read_ahead;

pub use buffers::Buffers;
pub use deferred::{Deferred, WRITE_BUFFER_BYTES};
pub use executor::Boxed;
pub use first_request::{Awaited, FirstRequest};
pub use flusher::Flusher;
pub use read_ahead::{READ_BUFFER_BYTES, ReadAhead};

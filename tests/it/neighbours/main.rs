//! What does everybody else notice while somebody abuses spillway?
//!
//! One client asks all the time and measures, on a connection to each shard. Beside it, in turn and again and again within
//! one run: nothing, honest clients, and abusers. The honest ones come as often as the abusers, over as many connections,
//! and send about as many bytes, so what they cost the bystander is what so many clients cost; the abusers may not
//! cost more than twice that. Because all three are measured within the same second, a busy machine is in all of them.
//!
//! A program of its own, not a module of `it`: it measures, so nothing else may run beside it. `make neighbours` runs it
//! optimised and for longer, and shows its tables; `NEIGHBOURS_ONLY=ping` plays one of them.

// A test measures real time, says what it expected by panicking, and shows its table.
#![allow(clippy::disallowed_methods, clippy::expect_used, clippy::unwrap_used, clippy::print_stderr)]

mod abusers;
mod bystander;
#[allow(dead_code, reason = "the other programs use the rest of it")]
#[path = "../client.rs"]
mod client;
#[path = "../cluster/mod.rs"]
mod cluster;
mod floods;
#[allow(dead_code, reason = "the other programs use the rest of it")]
#[path = "../framing"]
mod framing {
    pub(crate) mod stand;
    pub(crate) mod upstream;
    pub(crate) mod wire;
}
mod reviews;

/// What the shared modules know of the program under test.
mod spillway {
    pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_spillway");
}

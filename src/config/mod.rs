//! What did the operator ask for, and is it sane?

mod proxy;
mod traffic;

pub use proxy::*;
pub use traffic::*;

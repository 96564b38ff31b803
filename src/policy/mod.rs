//! Which lane does this caller's request belong to, and why?

mod lane;

pub use lane::{Lane, NotALane};

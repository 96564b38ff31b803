//! Which lane does this caller's request belong to, and why?

mod lane;
mod pattern;
mod rule;
mod settings;

pub use lane::{Lane, NotALane};
pub use pattern::Pattern;
pub use rule::{Hints, Match, ResourcePattern, Rule, ServiceAccountPattern};
pub use settings::{LaneSettings, Rate};

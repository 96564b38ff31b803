//! Is spillway better than the others, where, by how much, and where not?
//!
//! Pure formatting and judgement over runs that somebody else played: `study` keeps them, `statistics` says what an
//! interval is, `judge` has the score, the pass rule and the targets, `text` writes `docs/OVERLOAD.md`, `plot` the figures
//! beside it. Equal runs give equal bytes.

mod judge;
mod plot;
mod statistics;
mod study;
mod text;

pub use plot::figures;
pub(in crate::sim) use statistics::median;
pub(in crate::sim) use study::useful_work;
pub use study::{Part, Study, points_of};
pub use text::markdown;

//! What survives a restart?
//!
//! What calls cost in calm takes minutes to learn, and the minutes after a restart are when it is needed most. So the
//! scheduler can hand out what it learnt as plain numbers and take them back; reading and writing a file is somebody
//! else's. Whatever comes back is checked and aged here: a remembered number may only be a start, never a truth.

/// Everything worth keeping over a restart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Remembered {
    /// [`Remembered::VERSION`] of the writer: keys are hashes, and a changed hash would give them other meanings.
    pub version: u32,
    /// The limit L when all was last well, in seats.
    pub limit: f64,
    /// Calm times of the three probes in microseconds; 0 is not known.
    pub probes: [f32; 3],
    /// What calls cost, by key.
    pub calls: Vec<RememberedCall>,
}

/// What one kind of call costs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RememberedCall {
    /// Hash of the key.
    pub exact: u64,
    /// Hash of its family; 0 for a family itself.
    pub family: u64,
    /// Calm time to first byte in microseconds; 0 is not known.
    pub baseline: f32,
    /// Calm time to the end of the answer in microseconds; 0 is not known.
    pub total: f32,
    /// Mean size of the answer in bytes.
    pub bytes: f32,
    /// Calls that taught it.
    pub calls: u32,
}

impl Remembered {
    /// Changes whenever the hash behind [`RememberedCall::exact`] or the meaning of a number does.
    pub const VERSION: u32 = 1;
}

//! What do the fuzz targets see of `format`? The same functions, in public types; nothing here decides.

use std::time::{Duration, SystemTime};

use super::format;
use crate::flow::Remembered;

/// The file's bytes.
#[must_use]
pub fn write(remembered: &Remembered, now: SystemTime) -> Vec<u8> {
    format::write(remembered, now)
}

/// What a file says, and how old it is.
///
/// # Errors
/// Why it is not believed.
pub fn read(file: &[u8], now: SystemTime) -> Result<(Remembered, Duration), String> {
    format::read(file, now).map_err(|distrust| distrust.to_string())
}

//! Where does a certificate, a key or a key set come from?
//!
//! From a file, usually; from memory in tests and in the demo. Reading is the one place that names the file
//! in its error, so that everything built on top can speak about the contents.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;

/// Certificates or keys: a file to read, or its contents.
#[derive(Clone)]
pub enum Material {
    /// Read when asked for, so that a later read sees a rotated file.
    File(PathBuf),
    /// Contents held in memory.
    Bytes(Vec<u8>),
}

/// A file could not be read.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot read {what} from {path}: {source}; check that the file exists and that spillway's user may read it"
)]
pub struct MaterialError {
    what: &'static str,
    path: String,
    source: std::io::Error,
}

impl Material {
    /// The contents; `what` says in an error what was expected there.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(&self, what: &'static str) -> Result<Cow<'_, [u8]>, MaterialError> {
        match self {
            Self::Bytes(bytes) => Ok(Cow::Borrowed(bytes)),
            Self::File(path) => std::fs::read(path).map(Cow::Owned).map_err(|source| MaterialError {
                what,
                path: path.display().to_string(),
                source,
            }),
        }
    }
}

impl fmt::Display for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Bytes(_) => f.write_str("memory"),
        }
    }
}

/// Without the bytes: they may be a private key.
impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Material({self})")
    }
}

impl From<PathBuf> for Material {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

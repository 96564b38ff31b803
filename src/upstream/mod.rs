//! Over which connection does it go?

//! What can be typed? One file a command.

pub mod validate;

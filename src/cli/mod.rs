//! What can be typed? One file a command.

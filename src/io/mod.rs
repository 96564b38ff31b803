//! How do bytes leave cheaply?

//! How do the parts become a running proxy?

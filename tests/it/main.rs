//! The integration tests: one binary, one module a subject.

mod cluster;
mod cluster_selftest;

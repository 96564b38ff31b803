//! The integration tests: one binary, one module a subject.

mod apiserver;
mod cluster;
mod cluster_selftest;
mod upstream;

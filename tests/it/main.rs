//! The integration tests: one binary, one module a subject.

mod apiserver;
mod bad_input;
mod break_glass;
mod client;
mod cluster;
mod cluster_selftest;
mod drain;
mod identity;
mod identity_rows;
mod isolation;
mod issuer;
mod kubectl;
mod meaning;
mod payloads;
mod probes;
mod refusal;
mod reset;
mod reviews;
mod rotation;
mod simulate;
mod spillway;
mod stand;
mod state;
mod streams;
mod upstream;

//! The integration tests: one binary, one module a subject.

mod apiserver;
mod bad_input;
mod break_glass;
mod client;
mod cluster;
mod cluster_selftest;
mod drain;
mod identity;
mod isolation;
mod kubectl;
mod lane;
mod meaning;
mod payloads;
mod probes;
mod refusal;
mod reset;
mod simulate;
mod spillway;
mod state;
mod streams;
mod upstream;

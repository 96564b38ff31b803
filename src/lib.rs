//! spillway: a guard in front of kube-apiserver.
//!
//! Operators keep access, the apiserver stays up, and telemetry is shed first when latency climbs.
//! `docs/ARCHITECTURE.md` has the map; read [`flow`] first.

pub mod admin;
pub mod app;
pub mod authn;
pub mod breakglass;
pub mod cli;
pub mod clock;
pub mod config;
pub mod dashboard;
pub mod demo;
pub mod flow;
pub mod gateway;
pub mod identity;
pub mod io;
pub mod policy;
pub mod replay;
pub mod request;
pub mod server;
pub mod sim;
pub mod telemetry;
pub mod units;
pub mod upstream;

//! What does kube-apiserver do under load, without a cluster?
//!
//! A model with real sockets: TLS, HTTP/2 and HTTP/1.1, client certificates, front-proxy headers and service-account tokens,
//! objects with versions, LIST with paging, WATCH, tables for kubectl. Only its speed is invented: requests wait
//! on a computed machine ([`processor`]) for what they cost on a real one ([`costs`]). Left out: etcd, admission
//! plugins, authorization, API Priority and Fairness, aggregated APIs, exec and logs; the tests on a real
//! kube-apiserver cover those.

mod answer;
mod capacity;
pub(crate) mod cluster;
mod costs;
mod fault;
mod handle;
mod identify;
mod object;
mod processor;
pub(crate) mod resources;
pub(crate) mod rollout;
mod serve;
pub(crate) mod store;
mod table;
mod target;
mod watching;

use std::sync::Arc;

pub(crate) use fault::Fault;
pub(crate) use object::timestamp_micros;
pub(crate) use processor::{Machine, Usage};
pub(crate) use serve::Server;

use capacity::{Capacity, InFlight};
use fault::Faults;
use identify::Authenticator;
use store::Store;

/// Everything that requests share.
pub(crate) struct Model {
    pub(crate) store: Arc<Store>,
    capacity: Arc<Capacity>,
    in_flight: InFlight,
    authenticator: Authenticator,
    faults: Faults,
}

#[cfg(test)]
mod tests;

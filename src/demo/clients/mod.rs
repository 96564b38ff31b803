//! Who uses the modelled cluster? Real connections, each with an identity of its own.

pub(crate) mod connection;
pub(crate) mod dns;
pub(crate) mod leases;
pub(crate) mod operator;
pub(crate) mod telemetry;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::task::JoinSet;

use connection::Credentials;
use operator::Insight;

use super::DemoError;
use super::apiserver::cluster::{TELEMETRY_NAME, TELEMETRY_NAMESPACE, node_name};
use super::apiserver::store::Store;
use super::ledger::Ledger;
use super::pki::{Leaf, Pki};
use super::seed::Seed;

/// The operator's user name and group; the default policy knows the group as on-call.
const OPERATOR: (&str, &str) = ("alice", "platform-oncall");

/// Everybody's credentials, made once for both halves.
pub(crate) struct Cast {
    nodes: Vec<Credentials>,
    agents: Arc<Vec<Credentials>>,
    controller: Credentials,
    dns: Credentials,
    operator: Credentials,
    /// The operator's certificate, for a kubeconfig.
    pub(crate) operator_leaf: Leaf,
}

impl Cast {
    pub(crate) fn new(pki: &Pki, nodes: usize) -> Result<Self, DemoError> {
        let tls = Credentials::tokens_only(pki)?;
        let mut kubelets = Vec::with_capacity(nodes);
        let mut agents = Vec::with_capacity(nodes);
        for node in (0..nodes).map(node_name) {
            let leaf = pki.client_ca.client(&format!("system:node:{node}"), Some("system:nodes"))?;
            kubelets.push(Credentials::certificate(pki, &leaf, "kubelet/v1.34.0 (linux/amd64)")?);
            let token = pki.tokens.token(TELEMETRY_NAMESPACE, TELEMETRY_NAME, &node)?;
            agents.push(Credentials::token(&tls, &token, "otelcol/0.140.0 (linux/amd64)"));
        }
        let controller = pki.client_ca.client("system:kube-controller-manager", None)?;
        let dns = pki.tokens.token("kube-system", "coredns", &node_name(0))?;
        let operator_leaf = pki.client_ca.client(OPERATOR.0, Some(OPERATOR.1))?;
        Ok(Self {
            nodes: kubelets,
            agents: Arc::new(agents),
            controller: Credentials::certificate(
                pki,
                &controller,
                "kube-controller-manager/v1.34.0 (linux/amd64)",
            )?,
            dns: Credentials::token(&tls, &dns, "coredns/1.12.4 (linux/amd64)"),
            operator: Credentials::certificate(pki, &operator_leaf, "kubectl/v1.34.0 (linux/amd64)")?,
            operator_leaf,
        })
    }

    /// Everybody who is there in calm times. They work until the set is dropped.
    pub(crate) fn start(
        &self,
        address: SocketAddr,
        ledger: &Arc<Ledger>,
        insight: Insight,
        seed: &Seed,
    ) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for (index, credentials) in self.nodes.iter().enumerate() {
            let node_seed = seed.fork(1_000 + index as u64);
            tasks.spawn(leases::renew(index, address, credentials.clone(), Arc::clone(ledger), node_seed));
        }
        let knowledge = dns::Knowledge::new();
        tasks.spawn(dns::control(address, self.controller.clone(), Arc::clone(ledger)));
        tasks.spawn(dns::sample(Arc::clone(&knowledge), Arc::clone(ledger)));
        let core_dns =
            dns::CoreDns::new(address, self.dns.clone(), knowledge, Arc::clone(ledger), seed.fork(1));
        tasks.spawn(core_dns.run());
        tasks.spawn(operator::work(address, self.operator.clone(), Arc::clone(ledger), insight));
        tasks
    }

    /// The nodes' willingness to run the telemetry agent wherever its DaemonSet wants it.
    pub(crate) fn start_fleet(
        &self,
        address: SocketAddr,
        store: &Arc<Store>,
        ledger: &Arc<Ledger>,
        seed: &Seed,
    ) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        let agents = Arc::clone(&self.agents);
        tasks.spawn(telemetry::fleet(Arc::clone(store), address, agents, Arc::clone(ledger), seed.fork(2)));
        tasks
    }
}

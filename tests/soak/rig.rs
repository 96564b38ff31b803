//! What stands before the first scene begins: kube-apiserver and etcd on core 1, full of nodes and pods, and
//! credentials for everybody. It stays up over many runs; kube-apiserver is started anew for each of them.

use std::{collections::BTreeMap, net::SocketAddr, path::Path, time::Duration};

use futures_util::{StreamExt, stream};
use http::Method;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{
    agents::{self, Agent},
    arguments::Wish,
    client::{Connection, Who, swallow},
    cluster::{Cluster, ClusterOptions, Credential, Front, Pair, canary},
    etcd::{Etcd, Template},
    gauges::processor_time,
    informers::{self, Informer, Informers, Kind},
    kubelets,
    mode::Mode,
    objects::{self, CROWD, node_name, pod_name},
    operator, runtime,
    scene::{Ask, Event, Identity},
    starters,
};

/// The core of etcd and kube-apiserver. Everything else is on core 0.
pub(crate) const SERVER_CORE: usize = 1;
/// Requests on the way at once while the rig is built.
const HANDS: usize = 16;
/// For one request while the rig is built.
const PATIENCE: Duration = Duration::from_secs(60);
const SERVICES: usize = 50;
/// Large Secrets, 512 kB each.
pub(crate) const SECRETS: usize = 100;
/// Where the pods are in etcd, and where they end.
const PODS_FROM: &str = "/registry/pods/crowd/crowd-";
const PODS_TO: &str = "/registry/pods/crowd/crowd.";

/// What an expert would have written; and the same names without anybody in them.
const EXPERTS_APF: &str = include_str!("../../deploy/apf/culprit.yaml");
const NOBODYS_APF: &str = "
apiVersion: flowcontrol.apiserver.k8s.io/v1
kind: FlowSchema
metadata: {name: contained}
spec: {matchingPrecedence: 100, priorityLevelConfiguration: {name: catch-all}, rules: []}
---
apiVersion: flowcontrol.apiserver.k8s.io/v1
kind: FlowSchema
metadata: {name: oncall}
spec: {matchingPrecedence: 50, priorityLevelConfiguration: {name: exempt}, rules: []}
";

/// Set-ups of kube-apiserver that are not one another's continuation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavour {
    Plain,
    /// LISTs of Secrets are read from etcd, as everything is on older servers; with large Secrets.
    Secrets,
}

pub(crate) struct Rig {
    pub(crate) cluster: Cluster,
    pub(crate) flavour: Flavour,
    pub(crate) nodes: Vec<Pair>,
    pub(crate) pods: usize,
    etcd: Etcd,
    pod: Template,
    uid: String,
    /// Tokens of service accounts that were asked for before.
    tokens: Mutex<BTreeMap<String, Vec<String>>>,
    pub(crate) list: Weight,
}

/// One LIST of all pods.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weight {
    /// Its bytes as JSON.
    pub(crate) json: u64,
    /// Its bytes as clients written in Go ask for them.
    pub(crate) compressed: u64,
    /// What these cost the servers.
    pub(crate) processor: Duration,
}

/// Where the clients of one run connect.
pub(crate) struct Entrance {
    pub(crate) address: SocketAddr,
    pub(crate) front: Option<Front>,
}

impl Rig {
    pub(crate) fn build(wish: &Wish, flavour: Flavour) -> Self {
        let flags = match flavour {
            Flavour::Plain => vec![],
            Flavour::Secrets => vec!["--watch-cache-sizes=secrets#0".into()],
        };
        let options =
            ClusterOptions { cpus: Some(vec![SERVER_CORE]), apiserver_flags: flags, ..Default::default() };
        let cluster = Cluster::start(options);
        cluster.apply(&format!("{}{}", objects::OBJECTS, objects::services(SERVICES)));
        let nodes = (0..wish.nodes).map(|number| cluster.pki.node(&node_name(number))).collect();
        let etcd = Etcd::new(cluster.etcd_addr());
        let (pod, uid) = runtime().block_on(async {
            let admin =
                admin(&cluster).connect().await.expect("the apiserver takes an administrator's connection");
            create_all(&admin, "/api/v1/nodes", wish.nodes, objects::node).await;
            if flavour == Flavour::Secrets {
                let path = "/api/v1/namespaces/vault/secrets";
                create_all(&admin, path, SECRETS, objects::large_secret).await;
            }
            let created = create(&admin, &format!("/api/v1/namespaces/{CROWD}/pods"), &objects::pod()).await;
            let uid = created["metadata"]["uid"].as_str().expect("a pod has a UID").to_owned();
            (etcd.template(&format!("/registry/pods/{CROWD}/{}", pod_name(0))), uid)
        });
        let mut rig = Self {
            cluster,
            flavour,
            nodes,
            pods: wish.pods,
            etcd,
            pod,
            uid,
            tokens: Mutex::default(),
            list: Weight::default(),
        };
        rig.fill(0, wish.pods);
        rig.list = runtime().block_on(rig.weigh_a_list());
        rig
    }

    /// Stores pods `from` to `to` behind kube-apiserver's back, spread over the nodes.
    pub(crate) fn fill(&self, from: usize, to: usize) {
        let key = |number| format!("/registry/pods/{CROWD}/{}", pod_name(number));
        self.etcd.copy(&self.pod, from..to, key, |number| {
            let uid = format!("{}{number:012}", &self.uid[..24]);
            vec![
                (pod_name(0), pod_name(number)),
                (node_name(0), node_name(number % self.nodes.len())),
                (self.uid.clone(), uid),
            ]
        });
    }

    /// Takes away all pods from number `from` on.
    pub(crate) fn thin_out(&self, from: usize) {
        self.etcd.remove(&format!("{PODS_FROM}{from:05}"), PODS_TO);
    }

    /// A new process, so that no run inherits the heap or the queues of another.
    pub(crate) fn restart(&self) {
        self.cluster.stop("apiserver");
        self.cluster.start_apiserver();
    }

    /// The way in for one run.
    pub(crate) fn open(&self, mode: Mode, event: Event, binary: &Path) -> Entrance {
        self.cluster.apply(if mode == Mode::ApfByHand { EXPERTS_APF } else { NOBODYS_APF });
        if mode.is_direct() {
            return Entrance { address: self.cluster.apiserver_addr(), front: None };
        }
        let front = self.cluster.start_front(binary, mode.policy(event), |config| {
            // Here all clients have one address; elsewhere each node has its own.
            config["limits"] =
                json!({"connections": 10_000, "connectionsPerSource": 10_000, "connectionsPerUser": 10_000});
        });
        Entrance { address: front.main, front: Some(front) }
    }

    /// An administrator who goes straight to kube-apiserver.
    pub(crate) fn admin(&self) -> Who {
        admin(&self.cluster)
    }

    fn who(&self, at: &Entrance, credential: &Credential, agent: &'static str) -> Who {
        Who::new(at.address, &self.cluster.paths.server_ca.cert, credential).called(agent).compressed()
    }

    pub(crate) fn kubelets(&self, at: &Entrance) -> Vec<(String, Who)> {
        (0..self.nodes.len())
            .map(|number| (node_name(number), self.node(at, number, kubelets::AGENT)))
            .collect()
    }

    fn node(&self, at: &Entrance, number: usize, agent: &'static str) -> Who {
        self.who(at, &Credential::Certificate(self.nodes[number].clone()), agent)
    }

    pub(crate) fn operator(&self, at: &Entrance) -> Who {
        self.who(at, &self.cluster.alice(), operator::AGENT)
    }

    /// Somebody whom no rule names.
    pub(crate) fn unknown(&self, at: &Entrance) -> Who {
        let pair = self.cluster.pki.client("inspector", "inspector", &["inspectors"]);
        self.who(at, &Credential::Certificate(pair), agents::AGENT)
    }

    pub(crate) fn leaders(&self, at: &Entrance) -> Vec<(&'static str, Who)> {
        let paths = &self.cluster.paths;
        [("kube-controller-manager", &paths.controllers), ("kube-scheduler", &paths.scheduler)]
            .map(|(name, pair)| (name, self.who(at, &Credential::Certificate(pair.clone()), name)))
            .into()
    }

    /// Kubelets of the last nodes, and DNS servers.
    pub(crate) fn starters(&self, at: &Entrance) -> (Vec<(String, Who)>, Vec<Who>) {
        let half = starters::COUNT / 2;
        let last = (self.nodes.len().saturating_sub(half)..self.nodes.len())
            .map(|number| (node_name(number), self.node(at, number, kubelets::AGENT)));
        let base = self.who(at, &Credential::Token(String::new()), "coredns/1.12.4");
        let dns = self.tokens("kube-system", "coredns", half);
        (last.collect(), dns.iter().map(|token| base.with_token(token)).collect())
    }

    /// Who creates pods in the scene about webhooks.
    pub(crate) fn deployer(&self, at: &Entrance) -> Who {
        let token = self.tokens("hooked", "deployer", 1).remove(0);
        self.who(at, &Credential::Token(token), "deployer/1")
    }

    /// Everybody who watches, for the scene in which they all come back. Not compressed: they read what they get.
    pub(crate) fn informers(&self, at: &Entrance) -> Informers {
        let ca = &self.cluster.paths.server_ca.cert;
        let nodes = (0..informers::NODES).map(|number| {
            let number = number % self.nodes.len();
            let name = node_name(number);
            let credential = Credential::Certificate(self.nodes[number].clone());
            let paths = vec![
                format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{name}&"),
                format!("/api/v1/nodes?fieldSelector=metadata.name%3D{name}&"),
                "/api/v1/services?".into(),
            ];
            let who = Who::new(at.address, ca, &credential).called(kubelets::AGENT);
            Informer { name, who, kind: Kind::Node, paths }
        });
        let base = Who::new(at.address, ca, &Credential::Token(String::new())).called(agents::AGENT);
        let tokens = self.tokens("monitoring", "otel-collector", informers::TELEMETRY);
        let telemetry = tokens.iter().enumerate().map(|(number, token)| Informer {
            name: format!("telemetry-{number}"),
            who: base.with_token(token),
            kind: Kind::Telemetry,
            paths: vec!["/api/v1/pods?".into()],
        });
        Informers::new(nodes.chain(telemetry).collect())
    }

    /// `count` agents.
    pub(crate) fn agents(&self, at: &Entrance, count: usize, ask: Ask, identity: Identity) -> Vec<Agent> {
        let own = |number: usize| number % self.nodes.len();
        let path = |number: usize| agents::path(ask, &node_name(own(number)));
        let certificate = |name: &str, group: &str| {
            let pair = self.cluster.pki.client(name, name, &[group]);
            self.who(at, &Credential::Certificate(pair), agents::AGENT)
        };
        let whos: Vec<Who> = match identity {
            Identity::Node => (0..count).map(|number| self.node(at, own(number), agents::AGENT)).collect(),
            Identity::Unknown => vec![certificate("inspector", "inspectors"); count],
            Identity::Masters => vec![certificate("cluster-inspector", "system:masters"); count],
            Identity::Telemetry | Identity::KubeSystem => {
                let (namespace, account) = match identity {
                    Identity::Telemetry => ("monitoring", "otel-collector"),
                    _ => ("kube-system", "node-inspector"),
                };
                let base = self.who(at, &Credential::Token(String::new()), agents::AGENT);
                let tokens = self.tokens(namespace, account, count);
                tokens.iter().map(|token| base.with_token(token)).collect()
            }
        };
        whos.into_iter().enumerate().map(|(number, who)| Agent { who, path: path(number) }).collect()
    }

    /// `count` tokens, each bound to a node, as a DaemonSet's pods have them.
    fn tokens(&self, namespace: &str, account: &str, count: usize) -> Vec<String> {
        let mut known = self.tokens.lock();
        let known = known.entry(format!("{namespace}/{account}")).or_default();
        if known.len() < count {
            *known = runtime().block_on(self.ask_for_tokens(namespace, account, count));
        }
        known[..count].to_vec()
    }

    async fn ask_for_tokens(&self, namespace: &str, account: &str, count: usize) -> Vec<String> {
        let admin = self.admin().connect().await.expect("the apiserver takes an administrator's connection");
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let token = async |number: usize| {
            let node = node_name(number % self.nodes.len());
            let request = json!({
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenRequest",
                "spec": {"expirationSeconds": 7200, "boundObjectRef": {"apiVersion": "v1", "kind": "Node", "name": node}},
            });
            let answer = create(&admin, &path, &request).await;
            let token = answer["status"]["token"].as_str();
            let token = token.unwrap_or_else(|| panic!("expected a token in {answer}"));
            canary::token(token);
            token.to_owned()
        };
        stream::iter(0..count).map(token).buffered(HANDS).collect().await
    }

    pub(crate) fn server_time(&self) -> Duration {
        ["apiserver", "etcd"].into_iter().filter_map(|part| self.cluster.pid(part)).map(processor_time).sum()
    }

    /// What the storm's request weighs when nothing else runs.
    async fn weigh_a_list(&self) -> Weight {
        const TIMES: u32 = 5;
        let list = async |who: Who| {
            let direct = who.connect().await.expect("the apiserver takes an administrator's connection");
            let response = direct.open(Method::GET, "/api/v1/pods", None).await.expect("a LIST begins");
            swallow(response.into_body()).await.expect("a LIST ends")
        };
        let json = list(self.admin()).await;
        let (before, mut compressed) = (self.server_time(), 0);
        for _ in 0..TIMES {
            compressed = list(self.admin().compressed()).await;
        }
        Weight { json, compressed, processor: (self.server_time() - before) / TIMES }
    }
}

fn admin(cluster: &Cluster) -> Who {
    Who::new(cluster.apiserver_addr(), &cluster.paths.server_ca.cert, &cluster.admin())
}

async fn create_all(admin: &Connection, path: &str, count: usize, object: impl Fn(usize) -> Value) {
    let object = &object;
    let create = |number| async move {
        create(admin, path, &object(number)).await;
    };
    stream::iter(0..count).for_each_concurrent(HANDS, create).await;
}

/// POSTs an object and returns what was made of it.
pub(crate) async fn create(admin: &Connection, path: &str, object: &Value) -> Value {
    let answer = admin.ask(Method::POST, path, Some(object.to_string()), PATIENCE).await;
    let answer = answer.unwrap_or_else(|e| panic!("expected POST {path} to be answered, but {e}"));
    let said = String::from_utf8_lossy(&answer.body);
    assert_eq!(answer.status, 201, "expected POST {path} to create, but {said}");
    serde_json::from_str(&said).expect("the apiserver answers in JSON")
}

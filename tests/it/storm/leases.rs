//! Do the nodes stay alive? Renewals of node leases, by writers of our own and by the real kubelets.
//!
//! Real kubelets renew every ten seconds, which is too seldom for statistics in half a minute. So writers with
//! kubelet certificates of their own renew every second, each on a connection of its own, with the kubelet's timeout and
//! its optimistic update. The real kubelets' renewals are watched on a direct connection; how often one of them gave
//! up on a try is in its log.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use http::Method;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::client::{Answer, Connection, Failure, Who};

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
/// The kubelet's: what it gives one try.
const PATIENCE: Duration = Duration::from_secs(10);
/// One renewal a second.
const PERIOD: Duration = Duration::from_secs(1);
/// What a kubelet writes when a try to renew failed; it tries up to five times in a row.
const KUBELET_FAILED: [&str; 2] = ["Failed to update lease\"", "Failed to ensure lease exists"];

/// What one window of time saw of renewals.
#[derive(Clone, Debug, Default)]
pub(crate) struct Renewals {
    pub(crate) renewed: u64,
    pub(crate) failed: u64,
    /// Between two renewals of one node, or a renewal and the window's edge.
    pub(crate) longest_gap: Duration,
    /// Why the first one failed.
    pub(crate) first_failure: Option<String>,
}

/// The writers, and what they saw since the last [`Writers::take`].
pub(crate) struct Writers {
    nodes: Vec<(String, Who)>,
    seen: Mutex<(Renewals, BTreeMap<String, Instant>)>,
}

impl Writers {
    pub(crate) fn new(nodes: Vec<(String, Who)>) -> Self {
        Self { nodes, seen: Mutex::default() }
    }

    /// Renews until the returned future is dropped.
    pub(crate) async fn run(&self) {
        let nodes = self.nodes.iter().enumerate();
        join_all(nodes.map(|(number, (node, who))| async move {
            // Spread over the second, as nodes are.
            sleep(PERIOD * u32::try_from(number).unwrap_or(0) / self.nodes.len() as u32).await;
            let mut writer = Writer { node, who, connection: None, lease: None };
            let mut seconds = interval(PERIOD);
            seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                seconds.tick().await;
                let outcome = writer.renew().await;
                self.note(node, outcome);
            }
        }))
        .await;
    }

    fn note(&self, node: &str, outcome: Result<(), String>) {
        let now = Instant::now();
        let (seen, last) = &mut *self.seen.lock();
        match outcome {
            Ok(()) => {
                seen.renewed += 1;
                if let Some(before) = last.insert(node.into(), now) {
                    seen.longest_gap = seen.longest_gap.max(now - before);
                }
            }
            Err(why) => {
                seen.failed += 1;
                seen.first_failure.get_or_insert(why);
            }
        }
    }

    /// Ends a window of time and begins the next.
    pub(crate) fn take(&self) -> Renewals {
        let now = Instant::now();
        let (seen, last) = &mut *self.seen.lock();
        for before in last.values_mut() {
            seen.longest_gap = seen.longest_gap.max(now - *before);
        }
        std::mem::take(seen)
    }
}

struct Writer<'a> {
    node: &'a str,
    who: &'a Who,
    connection: Option<Connection>,
    /// What the apiserver said last: it carries the resourceVersion that the next update needs.
    lease: Option<Value>,
}

impl Writer<'_> {
    /// One round: an update, and, if somebody else was quicker (an own try whose answer was lost), one more.
    async fn renew(&mut self) -> Result<(), String> {
        match self.update().await? {
            409 => {
                self.lease = None;
                self.update().await.and_then(|status| if status < 300 { Ok(()) } else { Err(said(status)) })
            }
            200..300 => Ok(()),
            status => Err(said(status)),
        }
    }

    async fn update(&mut self) -> Result<u16, String> {
        let path = format!("{LEASES}/{}", self.node);
        if self.lease.is_none() {
            let answer = self.ask(Method::GET, &path, None).await?;
            match answer.status.as_u16() {
                200 => self.lease = Some(parse(&answer)?),
                404 => {}
                status => return Ok(status),
            }
        }
        let (method, path, mut lease) = match self.lease.take() {
            Some(lease) => (Method::PUT, path, lease),
            None => (Method::POST, LEASES.to_owned(), new_lease(self.node)),
        };
        lease["spec"]["renewTime"] = json!(micro_time());
        let answer = self.ask(method, &path, Some(lease.to_string())).await?;
        if answer.status.is_success() {
            self.lease = Some(parse(&answer)?);
        }
        Ok(answer.status.as_u16())
    }

    async fn ask(&mut self, method: Method, path: &str, body: Option<String>) -> Result<Answer, String> {
        let answer = self.ask_once(method, path, body).await;
        answer.map_err(|failure| {
            self.connection = None;
            format!("{}: {failure}", self.node)
        })
    }

    async fn ask_once(
        &mut self,
        method: Method,
        path: &str,
        body: Option<String>,
    ) -> Result<Answer, Failure> {
        let open = match self.connection.take() {
            Some(open) => open,
            None => {
                tokio::time::timeout(PATIENCE, self.who.connect()).await.unwrap_or(Err(Failure::Timeout))?
            }
        };
        self.connection.insert(open).ask(method, path, body, PATIENCE).await
    }
}

fn said(status: u16) -> String {
    format!("status {status}")
}

fn parse(answer: &Answer) -> Result<Value, String> {
    serde_json::from_slice(&answer.body).map_err(|e| format!("not a lease: {e}"))
}

fn new_lease(node: &str) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": node, "namespace": "kube-node-lease"},
        "spec": {"holderIdentity": node, "leaseDurationSeconds": 40},
    })
}

/// Now, as `metav1.MicroTime` is written.
fn micro_time() -> String {
    let format = time::macros::format_description!(
        "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z"
    );
    time::OffsetDateTime::now_utc().format(format).expect("a time can be written")
}

/// The real kubelets: their logs, and the renewals that a watch has seen.
pub(crate) struct Kubelets {
    /// Name, log, and how much of it an earlier window has read.
    nodes: BTreeMap<String, (PathBuf, usize)>,
    last: BTreeMap<String, (String, Instant)>,
    seen: Renewals,
}

impl Kubelets {
    pub(crate) fn new(nodes: impl IntoIterator<Item = (String, PathBuf)>) -> Self {
        let nodes = nodes.into_iter().map(|(name, log)| (name, (log, 0))).collect();
        Self { nodes, last: BTreeMap::new(), seen: Renewals::default() }
    }

    /// A lease was seen in a watch.
    pub(crate) fn observe(&mut self, lease: &Value, now: Instant) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (name, renewed) = (text(&lease["metadata"]["name"]), text(&lease["spec"]["renewTime"]));
        if !self.nodes.contains_key(&name) {
            return;
        }
        match self.last.insert(name, (renewed.clone(), now)) {
            Some((before, at)) if before != renewed => {
                self.seen.renewed += 1;
                self.seen.longest_gap = self.seen.longest_gap.max(now - at);
            }
            _ => {}
        }
    }

    /// Ends a window of time and begins the next.
    pub(crate) fn take(&mut self) -> Renewals {
        let now = Instant::now();
        for (_, at) in self.last.values() {
            self.seen.longest_gap = self.seen.longest_gap.max(now - *at);
        }
        for (log, read) in self.nodes.values_mut() {
            let text = fs::read_to_string(log).unwrap_or_default();
            for line in text.get(*read..).unwrap_or_default().lines() {
                if KUBELET_FAILED.iter().any(|words| line.contains(words)) {
                    self.seen.failed += 1;
                    self.seen.first_failure.get_or_insert_with(|| line.to_owned());
                }
            }
            *read = text.len();
        }
        std::mem::take(&mut self.seen)
    }
}

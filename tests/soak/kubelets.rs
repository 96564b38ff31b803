//! Do the nodes stay alive? 500 leases, renewed as kubelets renew them.
//!
//! Every ten seconds and up to 4 % later, counted from the end of the last round; an optimistic update first, five
//! tries in a row, each with ten seconds for itself and its retries; from the second failed try on the connection is
//! closed; after five the lease is read again, with pauses of 0.1 s to 7 s in between.
//! (component-helpers/apimachinery/lease/controller.go)

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::Method;
use parking_lot::Mutex;
use tokio::time::sleep;

use super::{
    client::Who,
    journal::{Calls, Clock, Node},
    manners::{Body, Client},
};

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
pub(crate) const AGENT: &str = "kubelet/v1.34.4 (linux/amd64) kubernetes/soak";
const PERIOD: Duration = Duration::from_secs(10);
/// The period grows by up to this share.
const JITTER: f64 = 0.04;
const PATIENCE: Duration = Duration::from_secs(10);
const TRIES: usize = 5;
const BACKOFF: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(7);

pub(crate) struct Kubelets {
    nodes: Vec<(String, Who)>,
    clock: Clock,
    /// How each node fared.
    pub(crate) seen: Vec<Mutex<Node>>,
    /// Every try to renew.
    pub(crate) calls: Calls,
}

impl Kubelets {
    pub(crate) fn new(nodes: Vec<(String, Who)>, clock: Clock) -> Self {
        let seen = nodes.iter().map(|_| Mutex::default()).collect();
        Self { nodes, clock, seen, calls: Calls::default() }
    }

    /// Connects all nodes within `warm_up`, and renews until the returned future is dropped.
    pub(crate) async fn run(&self, warm_up: Duration) {
        let count = self.nodes.len() as u32;
        join_all(self.nodes.iter().enumerate().map(|(number, (name, who))| async move {
            let kubelet = Kubelet {
                name,
                client: Client::new(who, &self.calls.refused),
                version: None,
                all: self,
                seen: &self.seen[number],
            };
            // The first renewal spreads the nodes over the period, in an order that no storm shares.
            let place = (number as u32 * 7) % count;
            kubelet.run(warm_up * number as u32 / count, PERIOD * place / count).await;
        }))
        .await;
    }

    /// What is known of every node now.
    pub(crate) fn nodes(&self) -> Vec<Node> {
        self.seen.iter().map(|node| node.lock().clone()).collect()
    }
}

struct Kubelet<'a> {
    name: &'a str,
    client: Client<'a>,
    /// The resourceVersion of what the apiserver said last.
    version: Option<String>,
    all: &'a Kubelets,
    seen: &'a Mutex<Node>,
}

impl Kubelet<'_> {
    async fn run(mut self, start: Duration, first: Duration) {
        sleep(start).await;
        self.ensure().await;
        self.done(self.all.clock.now());
        sleep(first).await;
        for round in 0_u32.. {
            let due = self.all.clock.now();
            self.seen.lock().open = Some(due);
            while !self.update().await {
                self.ensure().await;
            }
            self.done(due);
            sleep(PERIOD.mul_f64(1.0 + JITTER * spread(self.name, round))).await;
        }
    }

    fn done(&self, due: f64) {
        let mut seen = self.seen.lock();
        seen.open = None;
        seen.renewed.push((due, self.all.clock.now()));
    }

    /// Up to five tries.
    async fn update(&mut self) -> bool {
        for number in 0..TRIES {
            let began = Instant::now();
            let outcome = self.put().await;
            let conflict = matches!(outcome, Ok(409));
            let outcome = match outcome {
                Ok(200) => Ok(()),
                Ok(status) => Err(format!("PUT lease: status {status}")),
                Err(why) => Err(why.replace(self.name, "NODE")),
            };
            let done = outcome.is_ok();
            if conflict {
                // An own try has come through after all, and only its answer was lost.
                self.ensure().await;
                continue;
            }
            self.all.calls.note(self.all.clock, began, outcome);
            if done {
                return true;
            }
            if number > 0 {
                self.client.disconnect();
            }
        }
        false
    }

    async fn put(&mut self) -> Result<u16, String> {
        let (path, body) = (format!("{LEASES}/{}", self.name), self.lease());
        let answer = self.client.call(Method::PUT, &path, Some(&body), Body::Keep, PATIENCE).await?;
        if answer.status == 200 {
            self.version = version_in(&answer.body);
        }
        Ok(answer.status)
    }

    /// Reads or creates the lease, however long that takes.
    async fn ensure(&mut self) {
        let mut pause = BACKOFF;
        while self.read_or_create().await.is_none() {
            sleep(pause).await;
            pause = (pause * 2).min(BACKOFF_MAX);
        }
    }

    async fn read_or_create(&mut self) -> Option<()> {
        let path = format!("{LEASES}/{}", self.name);
        let mut answer = self.client.call(Method::GET, &path, None, Body::Keep, PATIENCE).await.ok()?;
        if answer.status == 404 {
            self.version = None;
            let body = self.lease();
            answer = self.client.call(Method::POST, LEASES, Some(&body), Body::Keep, PATIENCE).await.ok()?;
        }
        if answer.status > 201 {
            return None;
        }
        self.version = version_in(&answer.body);
        Some(())
    }

    fn lease(&self) -> String {
        let version = self.version.as_deref().map(|version| format!(r#","resourceVersion":"{version}""#));
        format!(
            r#"{{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{{"name":"{name}","namespace":"kube-node-lease"{version}}},"spec":{{"holderIdentity":"{name}","leaseDurationSeconds":40,"renewTime":"{now}"}}}}"#,
            name = self.name,
            version = version.unwrap_or_default(),
            now = micro_time(),
        )
    }
}

/// A number from 0 to 1 that is another one for each name and round, and the same in every run.
pub(crate) fn spread(name: &str, round: u32) -> f64 {
    // FNV-1a: small, and good enough to spread clients.
    let start = 0xcbf2_9ce4_8422_2325 ^ u64::from(round).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let hash = name.bytes().fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}

/// The resourceVersion of a JSON object, without reading the rest of it.
pub(crate) fn version_in(body: &[u8]) -> Option<String> {
    const MARK: &str = r#""resourceVersion":""#;
    let text = std::str::from_utf8(body).ok()?;
    let (_, rest) = text.split_once(MARK)?;
    Some(rest.split_once('"')?.0.to_owned())
}

/// Now, as `metav1.MicroTime` is written.
pub(crate) fn micro_time() -> String {
    let format = time::macros::format_description!(
        "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z"
    );
    time::OffsetDateTime::now_utc().format(format).expect("a time can be written")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_found_in_an_answer() {
        let body = br#"{"kind":"Lease","metadata":{"name":"n","resourceVersion":"4711"}}"#;
        assert_eq!(version_in(body).as_deref(), Some("4711"));
        assert_eq!(version_in(b"{}"), None);
    }

    #[test]
    fn jitter_differs_between_nodes_and_rounds_and_stays_in_range() {
        let all = [spread("a", 0), spread("b", 0), spread("a", 1)];
        assert!(all.iter().all(|share| (0.0..1.0).contains(share)), "{all:?}");
        assert!(all[0] != all[1] && all[0] != all[2], "{all:?}");
    }
}

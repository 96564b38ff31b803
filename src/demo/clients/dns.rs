//! How old is what DNS answers?
//!
//! The world changes all the time: pods behind a service come and go. A controller writes each change as an EndpointSlice,
//! CoreDNS sees it through its watch. The age of the newest change that CoreDNS knows is the staleness of its
//! answers; it grows when the controller cannot write, when events are delivered late, and when a watch that ended
//! cannot be opened again. CoreDNS behaves like a client-go reflector.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;
use tokio::time::MissedTickBehavior;

use super::connection::{ACCEPT_JSON, Broken, Call, Client, Credentials, retry_after};
use crate::clock;
use crate::demo::apiserver::cluster::{BUSY_SLICE, SERVICE_NAMESPACE, slice};
use crate::demo::ledger::{Ledger, Staleness, Who};
use crate::demo::seed::Seed;
use crate::units::Instant;

/// Time between two changes of the world.
const CHANGE_EVERY: Duration = Duration::from_millis(400);
/// How long the controller waits for one write before it tries the then newest state.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often staleness is read.
const SAMPLE_EVERY: Duration = Duration::from_millis(50);
/// Seconds that a watch lasts. Reflectors ask for 300 to 600; here several must end inside the storm.
const WATCH_SECONDS: std::ops::Range<u64> = 5..8;
/// A reflector's first back-off, doubled up to the last one.
const BACKOFF_FIRST: Duration = Duration::from_millis(800);
const BACKOFF_LAST: Duration = Duration::from_secs(30);
/// One line of a watch: far above any object here.
const LINE_BYTES_MAX: usize = 1 << 20;
/// A LIST of all slices.
const LIST_BYTES_MAX: usize = 4 << 20;

const COLLECTION: &str = "/apis/discovery.k8s.io/v1/endpointslices";
/// Where the controller notes when the world changed, in nanoseconds of the demo's clock.
const CHANGED_AT: &str = "spillway-demo/changed-at-nanos";

/// The newest change that CoreDNS knows.
#[derive(Debug)]
pub(crate) struct Knowledge(AtomicU64);

impl Knowledge {
    /// As if everything had been known at the start.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(clock::now().as_nanos())))
    }

    fn learn(&self, object: &Value) {
        let noted = object["metadata"]["annotations"][CHANGED_AT].as_str();
        if let Some(nanos) = noted.and_then(|text| text.parse().ok()) {
            self.0.fetch_max(nanos, Ordering::Relaxed);
        }
    }

    fn age(&self, now: Instant) -> Duration {
        now.since(Instant::from_nanos(self.0.load(Ordering::Relaxed)))
    }
}

/// Writes the changing endpoints until dropped.
pub(crate) async fn control(address: SocketAddr, credentials: Credentials, ledger: Arc<Ledger>) {
    let path =
        format!("/apis/discovery.k8s.io/v1/namespaces/{SERVICE_NAMESPACE}/endpointslices/{BUSY_SLICE}");
    let client = Client::new(address, credentials);
    let mut changes = tokio::time::interval(CHANGE_EVERY);
    // A late controller writes the newest state; it does not replay what it missed.
    changes.set_missed_tick_behavior(MissedTickBehavior::Skip);
    for count in (1..=250_u8).cycle() {
        changes.tick().await;
        let mut object = slice(&[format!("10.0.1.{count}")]);
        object["metadata"]["annotations"][CHANGED_AT] = clock::now().as_nanos().to_string().into();
        let write = client.call(Call::put(&path, object.to_string().into()));
        if let Ok(Ok(reply)) = tokio::time::timeout(WRITE_TIMEOUT, write).await
            && reply.status == StatusCode::TOO_MANY_REQUESTS
        {
            ledger.refused(clock::now(), Who::Controller);
            tokio::time::sleep(reply.retry_after.unwrap_or_default()).await;
        }
    }
}

/// Reads the staleness of `knowledge` until dropped.
pub(crate) async fn sample(knowledge: Arc<Knowledge>, ledger: Arc<Ledger>) {
    let mut ticks = tokio::time::interval(SAMPLE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let at = clock::now();
        ledger.staleness(Staleness { at, age: knowledge.age(at) });
    }
}

/// CoreDNS: lists once, then watches, until dropped.
pub(crate) struct CoreDns {
    client: Client,
    knowledge: Arc<Knowledge>,
    ledger: Arc<Ledger>,
    seed: Seed,
    backoff: Duration,
}

/// Why following the API stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stopped {
    /// The watch ended as it should.
    TimedOut,
    /// 429: the version is still good.
    Refused(Option<Duration>),
    /// Anything else: a reflector lists again.
    Lost,
}

impl From<Broken> for Stopped {
    fn from(_: Broken) -> Self {
        Self::Lost
    }
}

impl CoreDns {
    pub(crate) fn new(
        address: SocketAddr,
        credentials: Credentials,
        knowledge: Arc<Knowledge>,
        ledger: Arc<Ledger>,
        seed: Seed,
    ) -> Self {
        let client = Client::new(address, credentials);
        Self { client, knowledge, ledger, seed, backoff: BACKOFF_FIRST }
    }

    /// Follows the endpoints until dropped.
    pub(crate) async fn run(mut self) {
        let mut version = None;
        loop {
            let followed = match version {
                None => self.list().await.map(|listed| version = Some(listed)),
                Some(from) => self.watch(from, &mut version).await,
            };
            match followed {
                Ok(()) | Err(Stopped::TimedOut) => self.backoff = BACKOFF_FIRST,
                Err(Stopped::Refused(retry_after)) => {
                    self.ledger.refused(clock::now(), Who::Dns);
                    self.pause(retry_after).await;
                }
                Err(Stopped::Lost) => {
                    version = None;
                    self.pause(None).await;
                }
            }
        }
    }

    /// A reflector's back-off with full jitter, or what the server asked for if that is longer.
    async fn pause(&mut self, retry_after: Option<Duration>) {
        let jittered = self.seed.between(self.backoff, self.backoff * 2);
        self.backoff = (self.backoff * 2).min(BACKOFF_LAST);
        tokio::time::sleep(jittered.max(retry_after.unwrap_or_default())).await;
    }

    async fn list(&self) -> Result<u64, Stopped> {
        let path = format!("{COLLECTION}?resourceVersion=0");
        let answer = accepted(self.client.send(Call::get(&path, ACCEPT_JSON)).await?)?;
        let body = http_body_util::Limited::new(answer.into_body(), LIST_BYTES_MAX);
        let body = body.collect().await.map_err(|_| Stopped::Lost)?.to_bytes();
        let list: Value = serde_json::from_slice(&body).map_err(|_| Stopped::Lost)?;
        for object in list["items"].as_array().into_iter().flatten() {
            self.knowledge.learn(object);
        }
        version_of(&list).ok_or(Stopped::Lost)
    }

    async fn watch(&mut self, from: u64, version: &mut Option<u64>) -> Result<(), Stopped> {
        let span = WATCH_SECONDS.end - WATCH_SECONDS.start;
        let seconds = WATCH_SECONDS.start + self.seed.next() % span;
        let path = format!(
            "{COLLECTION}?watch=true&allowWatchBookmarks=true&resourceVersion={from}&timeoutSeconds={seconds}"
        );
        let mut body = accepted(self.client.send(Call::get(&path, ACCEPT_JSON)).await?)?.into_body();
        let mut lines = Lines::default();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| Stopped::Lost)?.into_data() else { continue };
            for line in lines.push(&data)? {
                let event: Value = serde_json::from_slice(&line).map_err(|_| Stopped::Lost)?;
                if event["type"] == "ERROR" {
                    return Err(Stopped::Lost);
                }
                self.knowledge.learn(&event["object"]);
                *version = version_of(&event["object"]).or(*version);
            }
        }
        Err(Stopped::TimedOut)
    }
}

fn accepted(answer: Response<Incoming>) -> Result<Response<Incoming>, Stopped> {
    match answer.status() {
        StatusCode::OK => Ok(answer),
        StatusCode::TOO_MANY_REQUESTS => Err(Stopped::Refused(retry_after(&answer))),
        _ => Err(Stopped::Lost),
    }
}

fn version_of(object: &Value) -> Option<u64> {
    object["metadata"]["resourceVersion"].as_str()?.parse().ok()
}

/// Cuts a stream into lines.
#[derive(Debug, Default)]
struct Lines(BytesMut);

impl Lines {
    fn push(&mut self, data: &Bytes) -> Result<Vec<Bytes>, Stopped> {
        self.0.extend_from_slice(data);
        let mut lines = Vec::new();
        while let Some(end) = self.0.iter().position(|byte| *byte == b'\n') {
            lines.push(self.0.split_to(end + 1).freeze());
        }
        if self.0.len() > LINE_BYTES_MAX { Err(Stopped::Lost) } else { Ok(lines) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_may_arrive_in_any_pieces() {
        let mut lines = Lines::default();
        assert_eq!(lines.push(&Bytes::from_static(b"{\"a\"")), Ok(vec![]));
        let complete = lines.push(&Bytes::from_static(b":1}\n{}\n{"));
        assert_eq!(complete, Ok(vec![Bytes::from_static(b"{\"a\":1}\n"), Bytes::from_static(b"{}\n")]));
        assert_eq!(lines.push(&Bytes::from(vec![b' '; LINE_BYTES_MAX + 1])), Err(Stopped::Lost));
    }

    #[test]
    fn knowledge_never_gets_older() {
        let knowledge = Knowledge(AtomicU64::new(50));
        let noted = |nanos: &str| serde_json::json!({"metadata": {"annotations": {CHANGED_AT: nanos}}});
        knowledge.learn(&noted("70"));
        knowledge.learn(&noted("60"));
        knowledge.learn(&serde_json::json!({}));
        assert_eq!(knowledge.age(Instant::from_nanos(100)), Duration::from_nanos(30));
    }
}

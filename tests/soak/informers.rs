//! Who comes back when kube-apiserver has been away? 1,500 watches: three of every node, and telemetry's of all pods.
//!
//! Each is a reflector as client-go has it: LIST, then watch from that resourceVersion; a watch that breaks or is
//! refused backs off (0.8 s, doubling to 30 s, and up to as much again) and watches from where it was; only when that
//! is too old, or the answer is any other error, it LISTs again.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use http::Method;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::time::{sleep, sleep_until, timeout};

use super::{
    client::{Connection, Failure, Who, retry_after, swallow},
    kubelets::spread,
    play::Notes,
    rig::Rig,
    runtime,
};

/// Telemetry's watches, of all pods. The rest up to 1,500 are nodes'.
pub(crate) const TELEMETRY: usize = 30;
/// Watches of each node.
const PER_NODE: usize = 3;
/// Nodes that watch.
pub(crate) const NODES: usize = (1_500 - TELEMETRY) / PER_NODE;
const BACKOFF: Duration = Duration::from_millis(800);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// client-go's retries within one LIST.
const RETRIES: usize = 10;
const PATIENCE: Duration = Duration::from_secs(65);
/// A watch from a resourceVersion that is too old says so at once.
const TOO_OLD: Duration = Duration::from_millis(500);
/// All have connected after this time.
const WARM_UP: Duration = Duration::from_secs(4);
/// The beginning of a LIST, in which its resourceVersion is.
const HEAD: usize = 512;

/// One client, on one connection, with its reflectors.
pub(crate) struct Informer {
    pub(crate) name: String,
    pub(crate) who: Who,
    pub(crate) kind: Kind,
    /// Path and selector of each reflector, ready for more of a query.
    pub(crate) paths: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Node,
    Telemetry,
}

/// What the clients of one kind went through since the server was killed.
#[derive(Debug, Default)]
struct Seen {
    /// When each watch was there again.
    back: Mutex<Vec<f64>>,
    /// Watches that are there.
    live: AtomicU64,
    lists: AtomicU64,
    watches: AtomicU64,
    refused: AtomicU64,
}

pub(crate) struct Informers {
    all: Vec<Informer>,
    seen: [Seen; 2],
}

impl Informers {
    pub(crate) fn new(all: Vec<Informer>) -> Self {
        Self { all, seen: Default::default() }
    }

    /// Watches until the end of the run; blocks.
    pub(crate) fn run(&self, notes: &Notes) {
        runtime().block_on(async {
            let count = self.all.len() as u32;
            let all = join_all(self.all.iter().enumerate().map(|(number, informer)| async move {
                sleep(WARM_UP * number as u32 / count).await;
                let connection = tokio::sync::Mutex::new(None);
                let reflectors = informer.paths.iter().map(|path| {
                    let seen = &self.seen[informer.kind as usize];
                    Reflector { informer, connection: &connection, path, seen, notes, version: None }.run()
                });
                join_all(reflectors).await;
            }));
            tokio::select! {
                _ = all => {}
                () = sleep_until(notes.times.end.into()) => {}
            }
        });
    }

    /// Forgets what happened before the server was killed, and says how many watches there were.
    pub(crate) fn killed(&self, notes: &Notes) {
        for seen in &self.seen {
            seen.back.lock().clear();
            for counter in [&seen.lists, &seen.watches, &seen.refused] {
                counter.store(0, Ordering::Relaxed);
            }
        }
        let live: u64 = self.seen.iter().map(|seen| seen.live.load(Ordering::Relaxed)).sum();
        notes.happened.note("watches when it was killed", live);
    }

    /// Writes down what happened since.
    pub(crate) fn report(&self, rig: &Rig, notes: &Notes) {
        let killed = notes.happened.changed.lock().unwrap_or_default();
        for (kind, seen) in [Kind::Node, Kind::Telemetry].into_iter().zip(&self.seen) {
            let mut back = seen.back.lock().clone();
            back.sort_unstable_by(f64::total_cmp);
            let at = |share: f64| {
                let rank = (back.len() as f64 * share) as usize;
                back.get(rank.min(back.len().saturating_sub(1)))
                    .map_or("never".into(), |at| format!("{:.1} s", at - killed))
            };
            let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            notes.happened.note(
                &format!("{kind:?} watches back").to_lowercase(),
                format!(
                    "{}; first {}, half {}, last {}; {} LISTs, {} watch starts, {} refusals",
                    back.len(),
                    at(0.0),
                    at(0.5),
                    at(1.0),
                    of(&seen.lists),
                    of(&seen.watches),
                    of(&seen.refused),
                ),
            );
        }
        let admin = rig.cluster.admin_kubeconfig();
        let metrics = rig.cluster.kubectl_ok(&admin, &["get", "--raw", "/metrics"]);
        notes.happened.note("LISTs of pods, nodes and services that reached etcd", lists_at_etcd(&metrics));
    }
}

/// The apiserver's own count, since its start.
fn lists_at_etcd(metrics: &str) -> u64 {
    let counts = metrics.lines().filter(|line| line.starts_with("etcd_request_duration_seconds_count{"));
    counts
        .filter(|line| line.contains(r#"operation="list""#))
        .filter(|line| {
            ["pods\"", "nodes\"", "minions\"", "services\"", "specs\""].iter().any(|kind| line.contains(kind))
        })
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum::<f64>() as u64
}

struct Reflector<'a> {
    informer: &'a Informer,
    connection: &'a tokio::sync::Mutex<Option<Connection>>,
    path: &'a str,
    seen: &'a Seen,
    notes: &'a Notes,
    version: Option<String>,
}

/// Why a step ended.
enum End {
    /// Watch again from where it was.
    Watch,
    /// LIST again.
    List,
}

impl Reflector<'_> {
    async fn run(mut self) {
        let mut failures = 0_u32;
        loop {
            let listed = match self.version {
                Some(_) => true,
                None => self.list().await,
            };
            if listed {
                let began = Instant::now();
                if matches!(self.watch().await, End::List) {
                    self.version = None;
                }
                if began.elapsed() > BACKOFF_MAX {
                    failures = 0;
                }
            }
            let pause = (BACKOFF * 2_u32.saturating_pow(failures.min(6))).min(BACKOFF_MAX);
            failures += 1;
            sleep(pause.mul_f64(1.0 + spread(&self.informer.name, failures))).await;
        }
    }

    async fn open(&self, query: &str) -> Result<hyper::Response<Incoming>, Failure> {
        let path = format!("{}{query}", self.path);
        let hand = {
            let mut connection = self.connection.lock().await;
            if connection.as_ref().is_none_or(Connection::is_closed) {
                *connection = Some(self.informer.who.connect().await?);
            }
            connection.as_ref().map(Connection::another)
        };
        let hand = hand.ok_or(Failure::Timeout)?;
        hand.open(Method::GET, &path, None).await
    }

    async fn list(&mut self) -> bool {
        // As informers do first: whatever the watch cache has.
        for _ in 0..=RETRIES {
            self.seen.lists.fetch_add(1, Ordering::Relaxed);
            let Ok(Ok(response)) = timeout(PATIENCE, self.open("limit=500&resourceVersion=0")).await else {
                return false;
            };
            let (status, seconds) = (response.status().as_u16(), retry_after(&response));
            if status == 429 {
                self.seen.refused.fetch_add(1, Ordering::Relaxed);
            }
            if status == 200 {
                self.version = timeout(PATIENCE, version_of(response.into_body())).await.ok().flatten();
                return self.version.is_some();
            }
            let _ = swallow(response.into_body()).await;
            let Some(seconds) = seconds else { return false };
            sleep(Duration::from_secs(seconds)).await;
        }
        false
    }

    async fn watch(&mut self) -> End {
        let version = self.version.clone().unwrap_or_default();
        self.seen.watches.fetch_add(1, Ordering::Relaxed);
        let query =
            format!("watch=true&resourceVersion={version}&allowWatchBookmarks=true&timeoutSeconds=400");
        let response = match timeout(PATIENCE, self.open(&query)).await {
            Ok(Ok(response)) => response,
            _ => return End::Watch,
        };
        match response.status().as_u16() {
            200 => self.follow(response.into_body()).await,
            429 => {
                self.seen.refused.fetch_add(1, Ordering::Relaxed);
                let _ = swallow(response.into_body()).await;
                End::Watch
            }
            _ => End::List,
        }
    }

    async fn follow(&self, mut body: Incoming) -> End {
        let now = self.notes.clock.now();
        if let Ok(first) = timeout(TOO_OLD, body.frame()).await {
            let Some(Ok(frame)) = first else { return End::Watch };
            if frame.data_ref().is_some_and(|part| part.starts_with(br#"{"type":"ERROR""#)) {
                return End::List;
            }
        }
        self.seen.back.lock().push(now);
        self.seen.live.fetch_add(1, Ordering::Relaxed);
        while let Some(Ok(_)) = body.frame().await {}
        self.seen.live.fetch_sub(1, Ordering::Relaxed);
        End::Watch
    }
}

/// Reads a LIST to its end for its resourceVersion.
async fn version_of(mut body: Incoming) -> Option<String> {
    let mut head = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.ok()?;
        let part: &[u8] = frame.data_ref().map_or(&[], |part| part);
        head.extend_from_slice(&part[..part.len().min(HEAD.saturating_sub(head.len()))]);
    }
    let text = String::from_utf8_lossy(&head);
    let (_, rest) = text.split_once(r#""resourceVersion":""#)?;
    Some(rest.split_once('"')?.0.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_the_kinds_that_are_watched_are_counted_and_no_others() {
        let metrics = "etcd_request_duration_seconds_count{group=\"\",operation=\"list\",resource=\"pods\"} 3\n\
            etcd_request_duration_seconds_count{group=\"\",operation=\"list\",resource=\"secrets\"} 5\n\
            etcd_request_duration_seconds_count{group=\"\",operation=\"get\",resource=\"pods\"} 7\n";
        assert_eq!(lists_at_etcd(metrics), 3);
    }
}

//! Can spillway be restarted without anybody's watch losing an event or starting over?
//!
//! 500 watches run through it while an object changes all the time. On SIGTERM each must see a clean end of its stream
//! within the grace time, not all at once; must resume at its last resourceVersion through the next spillway; and must
//! in the end have seen every change exactly once. Nobody lists again.

// Clippy's own exception for tests ends at the functions marked as tests; what they call are tests too. And what is
// measured is real time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, Method, Request, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde_json::{Value, json};
use tokio::{
    sync::{Mutex, mpsc, watch},
    task::JoinSet,
};

use crate::{
    client::{Body, Caller, Connection, Events, Protocol, block_on, get, send, within},
    cluster::{Cluster, ClusterOptions, Credential, free_port, wait_for},
    spillway::{CLUSTER, Spillway, Target, needs_spillway},
};

const WATCHES: usize = 500;
/// Of these, so many over HTTP/1.1, where each has a connection of its own.
const WATCHES_HTTP1: usize = 20;
/// Streams that kube-apiserver allows on one connection, and spillway too.
const PER_CONNECTION: usize = 80;

const GRACE: Duration = Duration::from_secs(8);
/// From the end of the grace time to the end of the process.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// The object changes this often.
const PACE: Duration = Duration::from_millis(200);

const NAMESPACE: &str = "drained";
const OBJECT: &str = "/api/v1/namespaces/drained/configmaps/changing";
const COLLECTION: &str = "/api/v1/namespaces/drained/configmaps";

/// A controller: the policy lets those ask often.
fn watcher() -> Credential {
    Credential::Certificate(CLUSTER.paths.controllers.clone())
}

#[test]
fn watches_end_spread_over_the_grace_time_and_resume_where_they_were() {
    CLUSTER.apply(&format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}}}\n---\n\
         apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: changing, namespace: {NAMESPACE}}}"
    ));
    let slow_end =
        |config: &mut Value| config["drain"] = json!({"gracePeriod": format!("{}s", GRACE.as_secs())});
    let (old, new) = (Target::start(&CLUSTER, None, slow_end), Target::start(&CLUSTER, None, slow_end));
    block_on(async {
        let story = Story::begin(&new).await;
        let watches = open(&old.caller(&watcher()), &story.path(&old)).await;
        let (stop, writer) = write_until_told(Target::direct(&CLUSTER).caller(&CLUSTER.admin()));
        let begun = Instant::now();
        let watchers: Vec<_> = watches
            .into_iter()
            .map(|events| tokio::spawn(Arc::clone(&story).follow(events, begun)))
            .collect();
        if let Target::Spillway(spillway) = &old {
            spillway.terminate();
        }

        tokio::task::block_in_place(|| {
            wait_for("all watches to end and be resumed", GRACE + LAST_WORDS, || {
                match story.resumed.load(Ordering::Relaxed) {
                    WATCHES => Ok(()),
                    resumed => Err(format!("{resumed} of {WATCHES}; {}", old.log())),
                }
            });
        });
        stop.send(true).unwrap();
        let changes = writer.await.unwrap();

        let mut ends = Vec::new();
        for (number, watcher) in watchers.into_iter().enumerate() {
            let what = format!("watch {number} to see the last of {changes} changes");
            let seen = within(&what, watcher)
                .await
                .unwrap()
                .unwrap_or_else(|e| panic!("watch {number}: {e}; {}", old.log()));
            let all: Vec<u64> = (1..=changes).collect();
            assert_eq!(seen.changes, all, "what watch {number} saw (left), of every change once");
            ends.push(seen.ended);
        }
        assert_spread(&mut ends);
        if let Target::Spillway(spillway) = &old {
            assert_ended_in_peace(spillway, begun).await;
        }
    });
}

/// What all watchers share.
struct Story {
    /// The version before the first change.
    first: String,
    /// Connections for those that resume.
    next: Vec<Mutex<Connection>>,
    resumed: AtomicUsize,
}

/// What one watcher saw.
struct Seen {
    changes: Vec<u64>,
    /// When its first stream ended, since SIGTERM.
    ended: Duration,
}

impl Story {
    async fn begin(new: &Target) -> Arc<Self> {
        let caller = new.caller(&watcher());
        let mut next = Vec::new();
        for _ in 0..WATCHES.div_ceil(PER_CONNECTION) {
            next.push(caller.connect(Protocol::Http2).await);
        }
        let list = next[0].ask(get(COLLECTION)).await.json();
        let first = list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
        let next = next.into_iter().map(Mutex::new).collect();
        Arc::new(Self { first, next, resumed: AtomicUsize::new(0) })
    }

    /// The watch from the first version on. Without spillway the server is asked to end it, spread as spillway would.
    fn path(&self, target: &Target) -> impl Fn(usize) -> String + use<> {
        let path = format!("{COLLECTION}?watch=1&resourceVersion={}", self.first);
        let direct = matches!(target, Target::Direct { .. });
        move |number| if direct { format!("{path}&timeoutSeconds={}", 1 + number % 6) } else { path.clone() }
    }

    /// Follows the object to its last change, over two streams.
    async fn follow(self: Arc<Self>, mut events: Events, begun: Instant) -> Result<Seen, String> {
        let (mut changes, mut version, mut ended) = (Vec::new(), self.first.clone(), None);
        loop {
            match events
                .next()
                .await
                .map_err(|e| format!("its stream broke after {:?}: {e}", begun.elapsed()))?
            {
                Some(event) if event["type"] == "MODIFIED" => {
                    let object = &event["object"];
                    version = object["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
                    let step = object["data"]["step"].as_str().and_then(|step| step.parse().ok());
                    changes.push(step.ok_or_else(|| format!("an event without its step: {event}"))?);
                    if let (Some(ended), "true") =
                        (ended, object["data"]["last"].as_str().unwrap_or_default())
                    {
                        return Ok(Seen { changes, ended });
                    }
                }
                Some(event) => return Err(format!("an unexpected event: {event}")),
                None if ended.is_some() => return Err("its second stream ended, too".into()),
                None => {
                    ended = Some(begun.elapsed());
                    events = self.resume(&version).await?;
                }
            }
        }
    }

    /// The rest of a watch that ended, through the next spillway.
    async fn resume(&self, version: &str) -> Result<Events, String> {
        let place = self.resumed.fetch_add(1, Ordering::Relaxed);
        let path = format!("{COLLECTION}?watch=1&resourceVersion={version}");
        let head = self.next[place % self.next.len()].lock().await.start(get(&path)).await;
        let head = head.map_err(|e| format!("it cannot resume: {e}"))?;
        if head.status() == StatusCode::OK {
            Ok(Events::new(head))
        } else {
            Err(format!("it cannot resume: {}", head.status()))
        }
    }
}

/// All watches, over as few connections as clients would use, and some over HTTP/1.1.
async fn open(caller: &Caller, path: &impl Fn(usize) -> String) -> Vec<Events> {
    let mut watches = Vec::new();
    let mut connection = caller.connect(Protocol::Http2).await;
    // The connections live as long as their streams.
    for number in 0..WATCHES {
        let streams = number.checked_sub(WATCHES_HTTP1);
        if streams.is_none() {
            connection = caller.connect(Protocol::Http1).await;
        } else if streams.is_some_and(|streams| streams % PER_CONNECTION == 0) {
            connection = caller.connect(Protocol::Http2).await;
        }
        let head = connection.start(get(&path(number))).await;
        let head = head.unwrap_or_else(|e| panic!("watch {number}: {e}"));
        assert_eq!(head.status(), StatusCode::OK, "watch {number}");
        watches.push(Events::new(head));
    }
    watches
}

/// Changes the object until told to stop, and then once more, for the last time. Returns how often.
fn write_until_told(admin: Caller) -> (watch::Sender<bool>, tokio::task::JoinHandle<u64>) {
    let (stop, told) = watch::channel(false);
    let writer = tokio::spawn(async move {
        let mut connection = admin.connect(Protocol::Http2).await;
        let mut pace = tokio::time::interval(PACE);
        for step in 1.. {
            pace.tick().await;
            let last = *told.borrow();
            let change = json!({"data": {"step": step.to_string(), "last": last.to_string()}});
            let mut patch = send(Method::PATCH, OBJECT, change.to_string());
            patch
                .headers_mut()
                .insert("content-type", HeaderValue::from_static("application/merge-patch+json"));
            let answer = connection.ask(patch).await;
            assert_eq!(answer.status, StatusCode::OK, "change {step}: {}", answer.text());
            if last {
                return step;
            }
        }
        unreachable!("steps do not run out")
    });
    (stop, writer)
}

/// An informer of every node that reconnects in the same moment is a storm of our own making.
fn assert_spread(ends: &mut [Duration]) {
    ends.sort();
    let last = ends.last().copied().unwrap_or_default();
    assert!(last <= GRACE, "the last watch ended after {last:?}, and the grace time is {GRACE:?}");
    let mut tenths = [0_usize; 10];
    for end in ends.iter() {
        tenths[((end.as_secs_f64() / GRACE.as_secs_f64() * 10.0) as usize).min(9)] += 1;
    }
    let (most, used) = (tenths.iter().max().unwrap(), tenths.iter().filter(|&&count| count > 0).count());
    assert!(
        *most <= ends.len() * 3 / 10 && used >= 6,
        "ends are not spread: by tenths of the grace time {tenths:?}"
    );
}

async fn assert_ended_in_peace(spillway: &Spillway, begun: Instant) {
    let status = tokio::task::block_in_place(|| {
        let left = (GRACE + LAST_WORDS).saturating_sub(begun.elapsed());
        wait_for("spillway to end after its grace time", left, || {
            spillway.ended().ok_or("still running".into())
        })
    });
    assert_eq!(status.code(), Some(0), "{}", spillway.log());
    assert!(std::net::TcpStream::connect(spillway.main).is_err(), "the main address still answers");
}

/// The same with a real informer: kube-scheduler, whose reflectors decide for themselves whether to list again. Its
/// spillway comes back at its own address, as a static pod does.
#[test]
fn a_scheduler_does_not_list_again_when_spillway_restarts() {
    if !needs_spillway() {
        return;
    }
    // Own, because its scheduler is pointed at one spillway, and its log is read.
    let cluster = Cluster::start(ClusterOptions { audit: true, ..Default::default() });
    let address = format!("127.0.0.1:{}", free_port());
    let start = || {
        Spillway::start(&cluster, None, |config| {
            config["listeners"][0]["address"] = json!(address);
            // Shorter than leader election's patience of 10 s: this is about watches.
            config["drain"] = json!({"gracePeriod": "3s"});
        })
    };
    let old = start();
    cluster.start_scheduler(&format!("https://{address}"), &cluster.paths.server_ca.cert);
    let watched = wait_for("the scheduler to watch all it needs", Duration::from_secs(60), || {
        let (lists, watches) = (requests(&cluster, "list", 0), requests(&cluster, "watch", 0));
        // Each reflector lists first, or asks a watch for the list.
        if watches.len() >= 10 && lists.iter().all(|list| watches.contains(list)) {
            Ok(watches)
        } else {
            Err(format!("it listed {lists:?} and watches {watches:?}; {}", old.log()))
        }
    });
    let begun = audit_length(&cluster);
    old.terminate();
    wait_for("the old spillway to end", 2 * LAST_WORDS, || old.ended().ok_or_else(|| old.log()));
    let new = start();
    wait_for("the scheduler to watch everything again", Duration::from_secs(60), || {
        let again = requests(&cluster, "watch", begun);
        let missing: Vec<_> = watched.difference(&again).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("not {missing:?}; {}", new.log())) }
    });
    // What it had not begun to watch by then is listed for the first time.
    let lists = requests(&cluster, "list", begun);
    let again: Vec<_> = watched.intersection(&lists).collect();
    assert!(again.is_empty(), "what the scheduler listed again: {again:?}; {}", new.log());
    assert!(
        cluster.pid("scheduler").is_some_and(|id| Path::new(&format!("/proc/{id}/exe")).exists()),
        "it ended"
    );
}

fn audit_length(cluster: &Cluster) -> usize {
    fs::read(cluster.audit_log().unwrap()).unwrap().len()
}

/// The paths that the scheduler has asked for with `verb`, from this place in the audit log on. A watch that begins
/// with the whole list counts as a list.
fn requests(cluster: &Cluster, verb: &str, from: usize) -> BTreeSet<String> {
    let log = fs::read(cluster.audit_log().unwrap()).unwrap();
    let events = log[from..]
        .split(|&byte| byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    let scheduler = events.filter(|event| event["user"]["username"] == "system:kube-scheduler");
    let mut paths = BTreeSet::new();
    for event in scheduler {
        let uri = event["requestURI"].as_str().unwrap_or_default();
        let as_list = event["verb"] == "list" || uri.contains("sendInitialEvents=true");
        if event["verb"] == verb || verb == "list" && as_list {
            paths.insert(uri.split('?').next().unwrap_or_default().to_owned());
        }
    }
    paths
}

#[test]
fn a_draining_spillway_finishes_what_it_began_and_begins_nothing() {
    if !needs_spillway() {
        return;
    }
    let grace = |config: &mut Value| config["drain"] = json!({"gracePeriod": "20s"});
    let spillway = Spillway::start(&CLUSTER, None, grace);
    assert_eq!(spillway.metrics_page("/readyz").unwrap().0, 200);
    block_on(async {
        let mut bodies = Vec::new();
        let mut uploads = JoinSet::new();
        for protocol in Protocol::BOTH {
            let (body, request) = upload();
            let mut connection = spillway.caller(&CLUSTER.alice()).connect(protocol).await;
            uploads.spawn(async move { connection.ask(request).await });
            bodies.push(body);
        }
        // Half a body is on its way to kube-apiserver when the end is announced.
        for body in &bodies {
            body.send(Bytes::from_static(br#"{"apiVersion": "v1", "kind": "ConfigMap", "#)).await.unwrap();
        }
        tokio::task::block_in_place(|| {
            wait_for("both uploads to be let in", LAST_WORDS, || {
                let (_, metrics) = spillway.metrics_page("/metrics").map_err(|e| e.to_string())?;
                let line = metrics
                    .lines()
                    .find(|line| line.starts_with(r#"spillway_lane_executing_requests{lane="operators"}"#));
                if line.is_some_and(|line| line.ends_with(" 2")) { Ok(()) } else { Err(format!("{line:?}")) }
            });
            spillway.terminate();
            wait_for("/readyz of the metrics listener to say 503", LAST_WORDS, || {
                match spillway.metrics_page("/readyz") {
                    Ok((503, _)) => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            });
            wait_for("new connections to be turned away", LAST_WORDS, || match std::net::TcpStream::connect(
                spillway.main,
            ) {
                Ok(_) => Err("connected".into()),
                Err(_) => Ok(()),
            });
        });
        for body in bodies {
            body.send(Bytes::from_static(br#""metadata": {"name": "late"}}"#)).await.unwrap();
        }
        while let Some(answer) = within("the uploads to be answered", uploads.join_next()).await {
            let answer = answer.unwrap();
            assert_eq!(answer.status, StatusCode::CREATED, "{}; {}", answer.text(), spillway.log());
        }
        // Nothing is left to wait for: it need not use up its grace time.
        let status = tokio::task::block_in_place(|| {
            wait_for("spillway to end when it has nothing left to do", 2 * LAST_WORDS, || {
                spillway.ended().ok_or_else(|| format!("still running; {}", spillway.log()))
            })
        });
        assert_eq!(status.code(), Some(0), "{}", spillway.log());
    });
}

/// A POST whose body comes piece by piece.
fn upload() -> (mpsc::Sender<Bytes>, Request<Body>) {
    let (body, pieces) = mpsc::channel(4);
    let frames = stream::unfold(pieces, |mut pieces| async move {
        let piece = pieces.recv().await?;
        Some((Ok(Frame::data(piece)), pieces))
    });
    let path = "/api/v1/namespaces/default/configmaps?dryRun=All";
    let request =
        Request::builder().method(Method::POST).uri(path).header("content-type", "application/json");
    (body, request.body(StreamBody::new(frames).boxed_unsync()).unwrap())
}

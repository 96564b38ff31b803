//! The storm: many clients that ask for the same large thing over and over, each on a connection of its own.
//!
//! Bodies are read to their end and dropped: nothing is parsed, so that five hundred agents fit beside spillway on one
//! core. They run on a thread of their own with less weight, as if they were elsewhere.

use std::{
    sync::{Arc, atomic::Ordering},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use http::Method;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};

use super::{
    client::{Connection, Failure, Who, retry_after, swallow},
    journal::{Call, Clock, Storm},
    runtime,
    scene::{Ask, Manners},
};

pub(crate) const AGENT: &str = "otelcol/0.110.0 (linux/amd64)";
/// From the end of one answer to the next request.
const PAUSE: Duration = Duration::from_millis(750);
/// All agents have started after this time: a roll-out is not a lightning strike, but it is quick.
const ROLL_OUT: Duration = Duration::from_secs(1);
/// kube-apiserver's own limit for a request, and a little more.
const PATIENCE: Duration = Duration::from_secs(65);
/// client-go's retries within one call.
const RETRIES: usize = 10;
/// Until an ignorant agent asks again.
const IGNORANT: Duration = Duration::from_millis(100);
/// Less weight on the core than spillway and the clients that are measured.
const NICE: i32 = 5;
/// Says that all initial events of a watch have come; in the annotations of a bookmark.
const INITIAL_EVENTS_END: &[u8] = b"k8s.io/initial-events-end";
/// The bookmark is shorter than this.
const BOOKMARK_MAX: usize = 512;

/// One agent: who it is, and the path it asks for.
pub(crate) struct Agent {
    pub(crate) who: Who,
    pub(crate) path: String,
}

/// The path of what is asked for; `node` is the agent's.
pub(crate) fn path(ask: Ask, node: &str) -> String {
    match ask {
        Ask::AllPods => "/api/v1/pods".into(),
        Ask::AllPodsCached => "/api/v1/pods?limit=500&resourceVersion=0".into(),
        Ask::OwnPods => format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{node}"),
        Ask::WatchAllPods => "/api/v1/pods?watch=true&sendInitialEvents=true\
                              &resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=400"
            .into(),
        Ask::Secrets => "/api/v1/namespaces/vault/secrets".into(),
    }
}

/// How the agents go about it.
#[derive(Clone, Copy)]
pub(crate) struct Habit {
    pub(crate) ask: Ask,
    pub(crate) manners: Manners,
    pub(crate) clock: Clock,
}

/// The agents' thread.
pub(crate) struct Running {
    thread: JoinHandle<()>,
    end: oneshot::Sender<()>,
}

impl Running {
    pub(crate) fn begin(agents: Vec<Agent>, habit: Habit, seen: Arc<Storm>) -> Self {
        let (end, ended) = oneshot::channel();
        let thread = thread::spawn(move || {
            // Not being allowed to only makes the measured clients a little slower.
            let _ = rustix::process::setpriority_process(None, NICE);
            runtime().block_on(async {
                tokio::select! {
                    () = storm(&agents, habit, &seen) => {}
                    _ = ended => {}
                }
            });
        });
        Self { thread, end }
    }

    pub(crate) fn end(self) {
        let _ = self.end.send(());
        self.thread.join().expect("the agents' thread ends");
    }
}

async fn storm(agents: &[Agent], habit: Habit, seen: &Storm) {
    let count = agents.len().max(1) as u32;
    join_all(agents.iter().enumerate().map(|(number, agent)| async move {
        sleep(ROLL_OUT * number as u32 / count).await;
        let mut one = One { agent, number, habit, seen, connection: None };
        loop {
            let served = one.call().await;
            if served && habit.ask == Ask::Secrets {
                // An informer that has its objects is content.
                return;
            }
            sleep(PAUSE).await;
        }
    }))
    .await;
}

enum Heard {
    Whole(u64),
    ComeBack(u64),
    Other(u16),
}

struct One<'a> {
    agent: &'a Agent,
    number: usize,
    habit: Habit,
    seen: &'a Storm,
    connection: Option<Connection>,
}

impl One<'_> {
    /// One call, retries included; true when it was answered.
    async fn call(&mut self) -> bool {
        let mut left = RETRIES;
        loop {
            let began = Instant::now();
            self.seen.asked.fetch_add(1, Ordering::Relaxed);
            let heard = timeout(PATIENCE, self.ask()).await.unwrap_or(Err(Failure::Timeout));
            match heard {
                Ok(Heard::Whole(bytes)) => {
                    let at = self.habit.clock.at(began);
                    let call = Call { at, took: began.elapsed().as_secs_f64(), ok: true };
                    self.seen.serve(self.number, call, bytes);
                    return true;
                }
                Ok(Heard::ComeBack(seconds)) => {
                    self.seen.refuse(self.habit.clock.now());
                    if self.habit.manners == Manners::Ignorant {
                        sleep(IGNORANT).await;
                        continue;
                    }
                    if left == 0 {
                        return false;
                    }
                    left -= 1;
                    sleep(Duration::from_secs(seconds)).await;
                }
                Ok(Heard::Other(status)) => {
                    self.seen.failed.note(self.habit.clock, began, Err(format!("status {status}")));
                    return false;
                }
                Err(failure) => {
                    // A late answer must not meet the next request.
                    self.connection = None;
                    self.seen.failed.note(self.habit.clock, began, Err(failure.to_string()));
                    return false;
                }
            }
        }
    }

    async fn ask(&mut self) -> Result<Heard, Failure> {
        let connection = match &mut self.connection {
            Some(open) => open,
            none => none.insert(self.agent.who.connect().await?),
        };
        let response = connection.open(Method::GET, &self.agent.path, None).await?;
        let (status, seconds) = (response.status().as_u16(), retry_after(&response));
        match (status, seconds) {
            (200, _) if self.habit.ask == Ask::WatchAllPods => initial_events(response.into_body()).await,
            (200, _) => Ok(Heard::Whole(swallow(response.into_body()).await?)),
            (429, seconds) => come_back(response.into_body(), seconds.unwrap_or(1)).await,
            (500..=599, Some(seconds)) => come_back(response.into_body(), seconds).await,
            (status, _) => {
                swallow(response.into_body()).await?;
                Ok(Heard::Other(status))
            }
        }
    }
}

async fn come_back(body: Incoming, seconds: u64) -> Result<Heard, Failure> {
    swallow(body).await?;
    Ok(Heard::ComeBack(seconds))
}

/// Reads a watch until its initial events are there; the stream is closed then.
async fn initial_events(mut body: Incoming) -> Result<Heard, Failure> {
    let (mut bytes, mut end) = (0, Vec::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| Failure::Broken(e.to_string()))?;
        let Some(part) = frame.data_ref() else { continue };
        bytes += part.len() as u64;
        // Only the end of what has come is looked at: the bookmark is the last thing that comes.
        end.extend_from_slice(&part[part.len().saturating_sub(BOOKMARK_MAX)..]);
        end.drain(..end.len().saturating_sub(BOOKMARK_MAX));
        if end.windows(INITIAL_EVENTS_END.len()).any(|window| window == INITIAL_EVENTS_END) {
            return Ok(Heard::Whole(bytes));
        }
    }
    Err(Failure::Broken("the watch ended before its initial events did".into()))
}

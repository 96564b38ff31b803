//! The storm: what the pods of a telemetry DaemonSet do when nobody has thought of the size of the cluster.
//!
//! Every agent lists all pods, waits a moment and lists again, on one connection. It behaves as client-go does: after
//! a 429, or a 5xx that carries `Retry-After`, it sleeps exactly those seconds and tries again, ten times, before its
//! caller hears of it. There are more agents than kubelets: each stands for a node that is not here.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use futures_util::future::join_all;
use http::Method;
use tokio::time::{sleep, timeout};

use super::client::{Connection, Failure, Who, retry_after, swallow};

/// All pods as JSON, with no limit and no resourceVersion: the expensive way.
const LIST: &str = "/api/v1/pods";
/// From the end of a LIST to the next.
const PAUSE: Duration = Duration::from_secs(1);
/// Between two agents' starts: a roll-out is not a lightning strike.
const STAGGER: Duration = Duration::from_millis(10);
/// One LIST may take this long.
const PATIENCE: Duration = Duration::from_secs(30);
/// client-go's retries within one call.
const RETRIES: usize = 10;

/// What the agents got.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Agents that sent at least one request.
    pub(crate) agents: AtomicU64,
    /// Requests sent.
    pub(crate) asked: AtomicU64,
    /// Whole LISTs.
    pub(crate) answered: AtomicU64,
    /// Bytes of those.
    pub(crate) bytes: AtomicU64,
    /// Told to come back.
    pub(crate) refused: AtomicU64,
    /// Everything else that ended: timeouts, broken connections, other statuses.
    pub(crate) failed: AtomicU64,
}

enum Heard {
    Answer(u64),
    ComeBack(u64),
    Other,
}

/// Runs all agents until the returned future is dropped.
pub(crate) async fn storm(agents: &[Who], tally: &Tally) {
    join_all(agents.iter().enumerate().map(|(number, who)| async move {
        sleep(STAGGER * u32::try_from(number).unwrap_or(u32::MAX)).await;
        add(&tally.agents, 1);
        let mut connection = None;
        loop {
            call(who, &mut connection, tally).await;
            sleep(PAUSE).await;
        }
    }))
    .await;
}

/// One call of client-go, retries included.
async fn call(who: &Who, connection: &mut Option<Connection>, tally: &Tally) {
    for _ in 0..=RETRIES {
        add(&tally.asked, 1);
        match timeout(PATIENCE, list(who, connection)).await.unwrap_or(Err(Failure::Timeout)) {
            Ok(Heard::Answer(bytes)) => {
                add(&tally.answered, 1);
                return add(&tally.bytes, bytes);
            }
            Ok(Heard::ComeBack(seconds)) => {
                add(&tally.refused, 1);
                sleep(Duration::from_secs(seconds)).await;
            }
            Ok(Heard::Other) => return add(&tally.failed, 1),
            Err(_) => {
                // A late answer must not meet the next request.
                *connection = None;
                return add(&tally.failed, 1);
            }
        }
    }
}

async fn list(who: &Who, connection: &mut Option<Connection>) -> Result<Heard, Failure> {
    let open = match connection.take() {
        Some(open) => open,
        None => who.connect().await?,
    };
    let response = connection.insert(open).open(Method::GET, LIST, None).await?;
    let (status, seconds) = (response.status().as_u16(), retry_after(&response));
    let bytes = swallow(response.into_body()).await?;
    Ok(match (status, seconds) {
        (200, _) => Heard::Answer(bytes),
        (429, seconds) => Heard::ComeBack(seconds.unwrap_or(1)),
        (500..=599, Some(seconds)) => Heard::ComeBack(seconds),
        _ => Heard::Other,
    })
}

fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

//! Somebody who asks all the time, and writes down how long it took.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use http::StatusCode;
use parking_lot::Mutex;
use tokio::runtime::Builder;

use crate::{
    client::{Caller, Protocol, get},
    cluster::Credential,
    framing::stand::Stand,
};

/// One for each shard of a machine with two cores: connections go to the shard that has the fewest.
const CONNECTIONS: usize = 2;
/// Between an answer and the next request: the bystander must not be the load itself.
const PAUSE: Duration = Duration::from_millis(1);

type Asked = (Instant, Duration);

/// See the top of the file. It has a thread of its own.
pub(crate) struct Bystander {
    asked: Arc<Mutex<Vec<Asked>>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Bystander {
    /// Begins to ask `stand` for something small that the upstream answers at once. Its lane is another than the abusers':
    /// what requests of one lane cost each other is not the question here.
    pub(crate) fn start(stand: &Stand) -> Self {
        let pair = stand.pki.client("bystander", "bystander", &["platform-oncall"]);
        let caller = stand.caller(&Credential::Certificate(pair));
        let (asked, over) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let (told, notes) = (Arc::clone(&over), Arc::clone(&asked));
        let thread = thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
            let all = (0..CONNECTIONS).map(|_| ask(caller.clone(), Arc::clone(&told), Arc::clone(&notes)));
            runtime.block_on(futures_util::future::join_all(all));
        });
        Self { asked, over, thread: Some(thread) }
    }

    /// What it measured of requests that began between these moments.
    pub(crate) fn between(&self, from: Instant, to: Instant) -> Vec<Duration> {
        let asked = self.asked.lock();
        asked.iter().filter(|(at, _)| (from..to).contains(at)).map(|(_, took)| *took).collect()
    }

    /// Ends it; panics if one of its requests was not answered.
    pub(crate) fn end(mut self) {
        self.over.store(true, Ordering::Relaxed);
        let ended = self.thread.take().expect("it ends once").join();
        ended.expect("every request of the bystander is answered");
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

async fn ask(caller: Caller, over: Arc<AtomicBool>, asked: Arc<Mutex<Vec<Asked>>>) {
    let mut connection = caller.connect(Protocol::Http2).await;
    while !over.load(Ordering::Relaxed) {
        let began = Instant::now();
        let answer = connection.ask(get("/bystander")).await;
        let took = began.elapsed();
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        asked.lock().push((began, took));
        tokio::time::sleep(PAUSE).await;
    }
}

/// The part of `took` that is `percent` from below.
pub(crate) fn quantile(took: &[Duration], percent: usize) -> Duration {
    let mut sorted = took.to_vec();
    sorted.sort_unstable();
    let last = sorted.len().checked_sub(1).expect("something was measured");
    sorted[last * percent / 100]
}

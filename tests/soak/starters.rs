//! Does a node or DNS server that starts in the middle of the storm get its first objects? Half of them are kubelets
//! that LIST their own node's pods, with the credential that agents may be misusing; half are CoreDNS, which LISTs and
//! watches services and endpoint slices. Each has 10 s.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::time::{sleep, timeout};

use super::{
    client::Who,
    journal::{Calls, Clock},
    manners::{Body, Client},
};

/// Half of each kind.
pub(crate) const COUNT: usize = 14;
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// From one start to the next.
const STAGGER: Duration = Duration::from_millis(100);
/// A reflector's first pause after an error; it doubles.
const BACKOFF: Duration = Duration::from_millis(800);
const SERVICES: &str = "/api/v1/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";

pub(crate) struct Starters {
    kubelets: Vec<(String, Who)>,
    dns: Vec<Who>,
    clock: Clock,
    pub(crate) calls: Calls,
}

impl Starters {
    pub(crate) fn new(kubelets: Vec<(String, Who)>, dns: Vec<Who>, clock: Clock) -> Self {
        Self { kubelets, dns, clock, calls: Calls::default() }
    }

    /// Starts all of them, and ends when each has what it needs or has waited in vain.
    pub(crate) async fn run(&self) {
        let kubelets = self.kubelets.iter().enumerate().map(|(number, (name, who))| async move {
            sleep(STAGGER * 2 * number as u32).await;
            let pods =
                format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{name}&limit=500&resourceVersion=0");
            let node = format!("/api/v1/nodes/{name}");
            self.start(who, &[(pods, Body::Drain), (node, Body::Drain)]).await;
        });
        let dns = self.dns.iter().enumerate().map(|(number, who)| async move {
            sleep(STAGGER * (2 * number + 1) as u32).await;
            let first = |path: &str| (format!("{path}?limit=500&resourceVersion=0"), Body::Drain);
            let watch = |path: &str| {
                let query = "watch=true&resourceVersion=0&allowWatchBookmarks=true&timeoutSeconds=400";
                (format!("{path}?{query}"), Body::Leave)
            };
            self.start(who, &[first(SERVICES), first(SLICES), watch(SERVICES), watch(SLICES)]).await;
        });
        tokio::join!(join_all(kubelets), join_all(dns));
    }

    async fn start(&self, who: &Who, needs: &[(String, Body)]) {
        let began = Instant::now();
        let mut client = Client::new(who, &self.calls.refused);
        let all = timeout(PATIENCE, async {
            for (path, body) in needs {
                let mut pause = BACKOFF;
                while client.get(path, *body, PATIENCE).await.is_err() {
                    sleep(pause).await;
                    pause *= 2;
                }
            }
        });
        let outcome = all.await.map_err(|_| "not all of its first objects within 10 s".to_owned());
        self.calls.note(self.clock, began, outcome);
    }
}

//! Do controllers keep their leases? Two leaders renew as client-go's leader election does: an update every 2 s, 5 s
//! for one call, and whoever has not renewed for 10 s has lost, ends, and is started again.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use http::Method;
use tokio::time::{sleep, timeout};

use super::{
    client::Who,
    journal::{Calls, Clock},
    kubelets::{micro_time, version_in},
    manners::{Body, Client},
};

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
const RETRY: Duration = Duration::from_secs(2);
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Half the renew deadline: client-go's timeout for one call.
const PATIENCE: Duration = Duration::from_secs(5);
/// Until the program that ended runs again.
const RESTART: Duration = Duration::from_secs(3);

pub(crate) struct Electors {
    /// Name of the lease, and who holds it.
    leaders: Vec<(&'static str, Who)>,
    clock: Clock,
    pub(crate) calls: Calls,
    lost: AtomicU64,
}

impl Electors {
    pub(crate) fn new(leaders: Vec<(&'static str, Who)>, clock: Clock) -> Self {
        Self { leaders, clock, calls: Calls::default(), lost: AtomicU64::new(0) }
    }

    /// Leases lost so far.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Leads until the returned future is dropped.
    pub(crate) async fn run(&self) {
        join_all(self.leaders.iter().map(|(name, who)| async move {
            loop {
                self.lead(name, who).await;
                self.lost.fetch_add(1, Ordering::Relaxed);
                sleep(RESTART).await;
            }
        }))
        .await;
    }

    /// From the start of the program to its end.
    async fn lead(&self, name: &str, who: &Who) {
        let mut client = Client::new(who, &self.calls.refused);
        let mut version = None;
        // Getting the lease has no deadline.
        while self.renew(name, &mut client, &mut version).await.is_err() {
            sleep(RETRY).await;
        }
        loop {
            sleep(RETRY).await;
            let renewed = timeout(RENEW_DEADLINE, async {
                while self.renew(name, &mut client, &mut version).await.is_err() {
                    sleep(RETRY).await;
                }
            });
            if renewed.await.is_err() {
                return;
            }
        }
    }

    async fn renew(
        &self,
        name: &str,
        client: &mut Client<'_>,
        version: &mut Option<String>,
    ) -> Result<(), String> {
        let began = Instant::now();
        let outcome = update(name, client, version).await;
        if outcome.is_err() {
            // The next one reads the lease first, as client-go does.
            *version = None;
        }
        self.calls.note(self.clock, began, outcome.clone());
        outcome
    }
}

async fn update(name: &str, client: &mut Client<'_>, version: &mut Option<String>) -> Result<(), String> {
    let path = format!("{LEASES}/{name}");
    let mut exists = true;
    if version.is_none() {
        let answer = client.call(Method::GET, &path, None, Body::Keep, PATIENCE).await?;
        exists = answer.status != 404;
        *version = version_in(&answer.body);
    }
    let known = version.as_ref().filter(|_| exists);
    let known = known.map_or_else(String::new, |version| format!(r#","resourceVersion":"{version}""#));
    let body = format!(
        r#"{{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{{"name":"{name}","namespace":"kube-system"{known}}},"spec":{{"holderIdentity":"{name}","leaseDurationSeconds":15,"renewTime":"{}"}}}}"#,
        micro_time(),
    );
    let (method, path) = if exists { (Method::PUT, path.as_str()) } else { (Method::POST, LEASES) };
    let answer = client.call(method, path, Some(&body), Body::Keep, PATIENCE).await?;
    *version = version_in(&answer.body);
    if answer.status <= 201 { Ok(()) } else { Err(format!("{name}: status {}", answer.status)) }
}

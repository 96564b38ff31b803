//! How does an emergency `exec` get its connection when the apiserver has no CPU left for handshakes?
//!
//! It was opened before. One HTTP/1.1 connection that has carried nothing waits beside the warm HTTP/2 one, and
//! is replaced when taken or when it grows old: the apiserver closes a connection that sends no request for 32 s.

use std::sync::{Arc, Weak};
use std::time::Duration;

use hyper::client::conn::http1;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use super::body::RequestBody;
use super::connection::http1_builder;
use super::dial::{Dialed, Dialer, Offer};
use super::error::UpstreamError;
use super::stats::Via;

/// Well below the apiserver's 32 s (its `ReadHeaderTimeout`).
const AGE_MAX: Duration = Duration::from_secs(20);
/// Between attempts, so that an apiserver that closes at once is not met by handshakes without pause.
const RETRY: Duration = Duration::from_secs(1);

/// The sending side of a connection that may be upgraded.
pub(super) type Upgradable = http1::SendRequest<RequestBody>;

/// Starts HTTP/1.1 over `dialed` for one request that may become a tunnel; `ended` is notified when it closes.
pub(super) async fn open(dialed: Dialed, ended: Option<Arc<Notify>>) -> hyper::Result<Upgradable> {
    let (sender, driver) = http1_builder().handshake(dialed.io).await?;
    tokio::spawn(async move {
        // The request learns the reason itself.
        driver.with_upgrades().await.ok();
        if let Some(ended) = ended {
            ended.notify_one();
        }
    });
    Ok(sender)
}

/// One unused connection for upgrades with one credential.
pub(super) struct Spare {
    ready: Mutex<Option<Upgradable>>,
    /// The connection was taken or has closed.
    gone: Arc<Notify>,
}

impl Spare {
    /// Keeps a connection ready from now on; it counts as one of the upgraded connections that `places` bounds.
    pub(super) fn keep(dialer: Arc<Dialer>, via: Via, places: Arc<Semaphore>) -> Arc<Self> {
        let spare = Arc::new(Self { ready: Mutex::new(None), gone: Arc::new(Notify::new()) });
        tokio::spawn(renew(Arc::downgrade(&spare), Arc::clone(&spare.gone), dialer, via, places));
        spare
    }

    /// The connection, if there is one and it is still open.
    pub(super) fn take(&self) -> Option<Upgradable> {
        let ready = self.ready.lock().take();
        self.gone.notify_one();
        ready.filter(|sender| !sender.is_closed())
    }

    /// Whether a connection is ready now.
    pub(super) fn is_ready(&self) -> bool {
        self.ready.lock().as_ref().is_some_and(|sender| !sender.is_closed())
    }
}

async fn renew(spare: Weak<Spare>, gone: Arc<Notify>, dialer: Arc<Dialer>, via: Via, places: Arc<Semaphore>) {
    loop {
        let opened = connect(&dialer, via, &places, &gone).await;
        let failed = opened.is_err();
        match spare.upgrade() {
            // What it replaces is closed by being dropped.
            Some(spare) => *spare.ready.lock() = opened.ok(),
            None => return,
        }
        let lost = if failed { Lost::ToApiserver } else { wait_for_loss(&spare, &gone).await };
        match lost {
            Lost::ToUserOrAge => {}
            Lost::ToApiserver => tokio::time::sleep(RETRY).await,
        }
    }
}

/// Why the spare connection must be replaced.
enum Lost {
    /// At once.
    ToUserOrAge,
    /// After a pause.
    ToApiserver,
}

async fn wait_for_loss(spare: &Weak<Spare>, gone: &Notify) -> Lost {
    let old = Instant::now() + AGE_MAX;
    loop {
        let expired = tokio::time::timeout_at(old, gone.notified()).await.is_err();
        let Some(spare) = spare.upgrade() else { return Lost::ToUserOrAge };
        if expired || spare.ready.lock().is_none() {
            return Lost::ToUserOrAge;
        }
        if !spare.is_ready() {
            return Lost::ToApiserver;
        }
        // A late notice, from a predecessor of the one that waits now.
    }
}

async fn connect(
    dialer: &Dialer,
    via: Via,
    places: &Arc<Semaphore>,
    gone: &Arc<Notify>,
) -> Result<Upgradable, UpstreamError> {
    let place = Arc::clone(places).acquire_owned().await.ok();
    let dialed = dialer.dial(via, Offer::Http1, place).await?;
    open(dialed, Some(Arc::clone(gone))).await.map_err(UpstreamError::after_sending)
}

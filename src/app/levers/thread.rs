//! Who serves the admin socket, and who ends what is over?
//!
//! A thread of its own with a runtime of its own: it answers when every shard is busy and the control thread waits.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::time::MissedTickBehavior;

use super::Keeper;
use crate::admin;
use crate::app::StartError;

/// How often ends are looked for and rates are sampled.
const EVERY: Duration = Duration::from_secs(1);

/// The thread; dropping it ends it and takes the socket away.
pub(in crate::app) struct AdminThread {
    thread: Option<JoinHandle<()>>,
    end: Option<oneshot::Sender<()>>,
}

impl AdminThread {
    /// Starts it. Without a path there is no socket, but levers of before still end.
    pub(in crate::app) fn start(socket: Option<PathBuf>, keeper: Arc<Keeper>) -> Result<Self, StartError> {
        let runtime = Builder::new_current_thread().enable_all().build().map_err(StartError::Control)?;
        let (end, ended) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("admin".to_owned())
            .spawn(move || {
                runtime.block_on(live(socket, keeper, ended));
                // A disk that hangs must not keep the process.
                runtime.shutdown_background();
            })
            .map_err(StartError::Control)?;
        Ok(Self { thread: Some(thread), end: Some(end) })
    }
}

impl Drop for AdminThread {
    fn drop(&mut self) {
        self.end = None;
        if let Some(thread) = self.thread.take() {
            // If it panicked, the panic hook has said so.
            let _ = thread.join();
        }
    }
}

async fn live(socket: Option<PathBuf>, keeper: Arc<Keeper>, ended: oneshot::Receiver<()>) {
    let sweeping = Arc::clone(&keeper);
    let sweep = async move {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            sweeping.sweep().await;
        }
    };
    let serve = async move {
        match socket {
            Some(path) => admin::serve_socket(&path, keeper).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = ended => {}
        () = sweep => {}
        () = serve => {}
    }
}

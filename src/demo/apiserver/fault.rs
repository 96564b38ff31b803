//! What is wrong with the modelled apiserver at this moment?
//!
//! A drill turns one fault on and off again. `Slow` delays every answer, as a slow webhook or authenticator does: work that
//! no shedding makes less. `Stalled` holds whatever needs etcd: writes, `/readyz`, and reads that must be fresh; watches and
//! reads from the cache go on. `Dead` ends every connection and takes no new one, as a crash does; when it is over, the
//! server is back with all its objects, which stand in etcd.

use std::time::Duration;

use tokio::sync::watch;

/// One fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Fault {
    /// None.
    #[default]
    None,
    /// Every answer comes so much later.
    Slow(Duration),
    /// etcd does not answer.
    Stalled,
    /// The process is gone.
    Dead,
}

/// The switch.
#[derive(Debug, Default)]
pub(crate) struct Faults(watch::Sender<Fault>);

impl Faults {
    /// From now on.
    pub(crate) fn set(&self, fault: Fault) {
        self.0.send_replace(fault);
    }

    pub(crate) fn is_dead(&self) -> bool {
        *self.0.borrow() == Fault::Dead
    }

    /// Returns when the process dies.
    pub(crate) async fn death(&self) {
        // The sender is this very struct, so there is no error.
        let _ = self.0.subscribe().wait_for(|fault| *fault == Fault::Dead).await;
    }

    /// What a request waits for before it is worked on.
    pub(crate) async fn hold(&self, needs_etcd: bool) {
        let mut fault = self.0.subscribe();
        let now = *fault.borrow_and_update();
        match now {
            Fault::Slow(by) => tokio::time::sleep(by).await,
            Fault::Stalled if needs_etcd => {
                let _ = fault.wait_for(|fault| *fault != Fault::Stalled).await;
            }
            Fault::None | Fault::Stalled | Fault::Dead => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn waits(faults: &Faults, needs_etcd: bool) -> bool {
        tokio::time::timeout(Duration::from_secs(3_600), faults.hold(needs_etcd)).await.is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn a_stall_holds_what_needs_etcd_until_it_is_over_and_nothing_else() {
        let faults = Faults::default();
        assert!(!waits(&faults, true).await);
        faults.set(Fault::Stalled);
        assert!(!waits(&faults, false).await && waits(&faults, true).await);
        let held = faults.hold(true);
        faults.set(Fault::None);
        held.await;
        faults.set(Fault::Slow(Duration::from_secs(2)));
        let began = tokio::time::Instant::now();
        faults.hold(false).await;
        assert_eq!(began.elapsed(), Duration::from_secs(2));
    }
}

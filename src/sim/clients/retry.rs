//! When does a client's library try a call again, without asking the client?

use std::time::Duration;

use crate::sim::chance::Chance;

/// Tries after the first (client-go rest/request.go).
const CLIENT_GO_RETRIES: u32 = 10;
/// Tries of kube-rs' server-led policy.
const KUBE_RS_RETRIES: u32 = 15;
const KUBE_RS_FIRST: Duration = Duration::from_millis(500);
const KUBE_RS_MAX: Duration = Duration::from_secs(30);
/// Pause of a loop that obeys only its own time, where the scenario names none: a new process or connection.
pub(in crate::sim) const IGNORANT_PAUSE: Duration = Duration::from_millis(200);

/// A library's ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sim) enum Policy {
    /// Ten more tries of what carries a Retry-After, after exactly that many seconds.
    ClientGo,
    /// Fifteen, by Retry-After or an exponential pause.
    KubeRs,
    /// Always again after the same pause, whatever the server says.
    Ignorant { pause: Duration },
    /// Never.
    Once,
}

/// The tries of one call.
#[derive(Clone, Copy, Debug)]
pub(in crate::sim) struct Tries {
    policy: Policy,
    made: u32,
}

impl Tries {
    pub(in crate::sim) fn new(policy: Policy) -> Self {
        Self { policy, made: 0 }
    }

    /// A new call begins.
    pub(in crate::sim) fn begin(&mut self) {
        self.made = 0;
    }

    /// A try failed; `retry_after` is what its answer said, if there was one that said it. When to try again; `None`:
    /// the client is told.
    pub(in crate::sim) fn again(
        &mut self,
        retry_after: Option<u32>,
        chance: &mut Chance,
    ) -> Option<Duration> {
        self.made += 1;
        let told = retry_after.map(|seconds| Duration::from_secs(seconds.into()));
        match self.policy {
            Policy::Once => None,
            Policy::ClientGo => told.filter(|_| self.made <= CLIENT_GO_RETRIES),
            Policy::KubeRs if self.made > KUBE_RS_RETRIES => None,
            Policy::KubeRs => told.or_else(|| {
                let pause = KUBE_RS_FIRST.saturating_mul(1 << self.made.min(8)).min(KUBE_RS_MAX);
                Some(pause.mul_f64(chance.between(0.5, 1.0)))
            }),
            Policy::Ignorant { pause } => Some(pause.mul_f64(chance.between(0.9, 1.1))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_go_sleeps_whole_seconds_ten_times_and_only_when_told() {
        let mut chance = Chance::new(1, 1);
        let mut tries = Tries::new(Policy::ClientGo);
        for _ in 0..10 {
            assert_eq!(tries.again(Some(7), &mut chance), Some(Duration::from_secs(7)));
        }
        assert_eq!(tries.again(Some(7), &mut chance), None);
        tries.begin();
        assert_eq!(tries.again(None, &mut chance), None);
    }

    #[test]
    fn an_ignorant_loop_never_listens() {
        let mut chance = Chance::new(1, 1);
        let mut tries = Tries::new(Policy::Ignorant { pause: Duration::from_millis(100) });
        for _ in 0..100 {
            assert!(tries.again(Some(60), &mut chance).unwrap() < Duration::from_millis(120));
        }
    }
}

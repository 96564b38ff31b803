//! What stands between the clients and kube-apiserver?

use super::scene::Event;

/// The same load is played in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Nothing: API Priority and Fairness alone, at its defaults.
    Direct,
    /// Nothing but APF, and an expert has contained exactly this culprit beforehand.
    ApfByHand,
    /// spillway with its default policy, which names the operators' group.
    Spillway,
    /// The same, and single objects are to be answered within 100 ms.
    Spillway100ms,
}

impl Mode {
    const ALL: [Self; 4] = [Self::Direct, Self::ApfByHand, Self::Spillway, Self::Spillway100ms];

    /// Whether clients talk to kube-apiserver itself.
    pub(crate) const fn is_direct(self) -> bool {
        matches!(self, Self::Direct | Self::ApfByHand)
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::ApfByHand => "apf-by-hand",
            Self::Spillway => "spillway",
            Self::Spillway100ms => "spillway-100ms",
        }
    }

    pub(crate) fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }

    /// The text of a `TrafficPolicy`, where the built-in one does not do. A server with a memory limit of its own is one
    /// that the policy must know of: from beside it only the host's memory can be seen.
    pub(crate) const fn policy(self, event: Event) -> Option<&'static str> {
        match (self, event) {
            (Self::Spillway, Event::MemoryLimit) => Some(
                "apiVersion: config.spillway.dev/v1alpha1\nkind: TrafficPolicy\nname: soak\n\
                 overload: {memory: {responseBytes: 192MiB}}\n",
            ),
            (Self::Spillway100ms, Event::MemoryLimit) => Some(
                "apiVersion: config.spillway.dev/v1alpha1\nkind: TrafficPolicy\nname: soak\n\
                 overload: {objectives: {object: 100ms}, memory: {responseBytes: 192MiB}}\n",
            ),
            (Self::Direct | Self::ApfByHand | Self::Spillway, _) => None,
            (Self::Spillway100ms, _) => Some(
                "apiVersion: config.spillway.dev/v1alpha1\nkind: TrafficPolicy\nname: soak\n\
                 overload: {objectives: {object: 100ms}}\n",
            ),
        }
    }

    /// What a protected single object is promised, in seconds.
    pub(crate) const fn objective(self) -> f64 {
        match self {
            Self::Direct | Self::ApfByHand | Self::Spillway => 0.25,
            Self::Spillway100ms => 0.1,
        }
    }
}

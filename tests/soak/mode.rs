//! What stands between the clients and kube-apiserver?

/// The same load is played in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Nothing: API Priority and Fairness alone, at its defaults.
    Direct,
    /// spillway with its default policy, which names the operators' group.
    Spillway,
    /// The same, and single objects are to be answered within 100 ms.
    Spillway100ms,
}

impl Mode {
    const ALL: [Self; 3] = [Self::Direct, Self::Spillway, Self::Spillway100ms];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Spillway => "spillway",
            Self::Spillway100ms => "spillway-100ms",
        }
    }

    pub(crate) fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }

    /// The text of a `TrafficPolicy`, where the built-in one does not do.
    pub(crate) const fn policy(self) -> Option<&'static str> {
        match self {
            Self::Direct | Self::Spillway => None,
            Self::Spillway100ms => Some(
                "apiVersion: config.spillway.dev/v1alpha1\nkind: TrafficPolicy\nname: soak\n\
                 overload: {objectives: {object: 100ms}}\n",
            ),
        }
    }

    /// What a protected single object is promised, in seconds.
    pub(crate) const fn objective(self) -> f64 {
        match self {
            Self::Direct | Self::Spillway => 0.25,
            Self::Spillway100ms => 0.1,
        }
    }
}

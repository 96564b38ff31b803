//! Which scenarios come with the binary? Those of `tests/scenarios/`, usable by name without any file.

/// A scenario that comes with the binary.
#[derive(Clone, Copy, Debug)]
pub struct BuiltIn {
    /// Its name, and that of its file without `.yaml`.
    pub name: &'static str,
    /// Its text.
    pub yaml: &'static str,
}

macro_rules! built_in {
    ($($name:literal),* $(,)?) => {
        &[$(BuiltIn { name: $name, yaml: include_str!(concat!("../../../tests/scenarios/", $name, ".yaml")) }),*]
    };
}

/// All of them, in the order of a report.
pub const BUILT_IN: &[BuiltIn] = built_in![
    "one-core",
    "one-core-nodes",
    "one-core-masters",
    "one-core-halved",
    "one-core-doubled",
    "one-core-pods",
    "one-core-ignorant",
    "one-core-watches",
    "one-core-own-pods",
    "rollout-2000",
    "rollout-5000",
    "ignorant",
    "mix-shift",
    "lost-cores",
    "memory-pressure",
    "slow-etcd",
    "stalled-etcd",
    "slow-webhook",
    "cold-restart",
    "slow-readers",
    "mislabelled",
    "never-recovers",
    "worst-minute",
    "steady-day",
    "found-small-sibling",
    "found-busy-kubelets",
];

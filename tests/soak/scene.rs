//! Which storms are there, and what is expected of spillway in each?
//!
//! A scene is a load, an identity that causes it, and something that happens meanwhile. Every scene has the same cast
//! besides: kubelets that renew, an operator, two leader electors, and nodes and DNS servers that start in the middle.

/// One play.
pub(crate) struct Scene {
    pub(crate) name: &'static str,
    /// What it is, for people.
    pub(crate) what: &'static str,
    pub(crate) agents: Agents,
    pub(crate) ask: Ask,
    pub(crate) identity: Identity,
    pub(crate) manners: Manners,
    pub(crate) event: Event,
    /// The storm lasts at least this many seconds, because the event needs them.
    pub(crate) storm_min: u64,
    pub(crate) target: Target,
}

/// How many cause the storm.
#[derive(Clone, Copy)]
pub(crate) enum Agents {
    /// As many as the command line says.
    Wished,
    Fixed(usize),
}

/// What an agent asks for, over and over.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// All pods, with no limit and no resourceVersion.
    AllPods,
    /// All pods as an informer's first LIST asks for them: a limit that the watch cache ignores.
    AllPodsCached,
    /// The pods of the agent's own node.
    OwnPods,
    /// A watch of all pods that begins with all of them.
    WatchAllPods,
    /// The large Secrets, all of them, until one LIST has come through.
    Secrets,
}

/// In whose name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Identity {
    /// A collector's service account, one token per node; the default policy calls it telemetry.
    Telemetry,
    /// The credentials of the nodes the agents run on.
    Node,
    /// A service account in kube-system that no rule names.
    KubeSystem,
    /// A certificate that no rule names.
    Unknown,
    /// A certificate of `system:masters`.
    Masters,
}

/// How an agent takes a refusal.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manners {
    /// As client-go: sleeps the whole seconds of `Retry-After`, ten times.
    ClientGo,
    /// Asks again after 100 ms, whatever it was told.
    Ignorant,
}

/// What happens besides.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    None,
    /// A busy neighbour comes to the server's core in the middle of the storm.
    Halved,
    /// A busy neighbour leaves the server's core in the middle of the storm.
    Doubled,
    /// A quarter of the pods is there at first, the rest comes in the middle of the storm.
    Fourfold,
    /// The server ends when it uses more memory than its limit.
    MemoryLimit,
    /// etcd pauses in bursts.
    EtcdPauses,
    /// Creating pods waits for a webhook that never answers, 50 times a second.
    WebhookHole,
    /// kube-apiserver is suspended for 30 s.
    Stopped,
    /// kube-apiserver is killed and started again; 1,500 watches return.
    Killed,
}

/// What a run through spillway is held to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// LISTs: leases, operators, throughput, memory.
    Lists,
    /// The same with watches.
    Watches,
    /// All of it passes: nobody is refused.
    Harmless,
    /// Nodes stay Ready and operators get through.
    Alive,
    /// Numbers only: an outage is part of the play.
    Shown,
}

const LIST: Scene = Scene {
    name: "list",
    what: "agents of a telemetry DaemonSet LIST all pods in a loop",
    agents: Agents::Wished,
    ask: Ask::AllPods,
    identity: Identity::Telemetry,
    manners: Manners::ClientGo,
    event: Event::None,
    storm_min: 0,
    target: Target::Lists,
};

/// All scenes, in the order of the report.
pub(crate) const ALL: &[Scene] = &[
    Scene {
        name: "two",
        what: "only two such agents",
        agents: Agents::Fixed(2),
        target: Target::Harmless,
        ..LIST
    },
    LIST,
    Scene {
        name: "list-ignorant",
        what: "agents that ignore Retry-After and ask again after 100 ms",
        manners: Manners::Ignorant,
        ..LIST
    },
    Scene { name: "list-node", what: "agents with node credentials", identity: Identity::Node, ..LIST },
    Scene {
        name: "list-kube-system",
        what: "agents with a kube-system service account that no rule names",
        identity: Identity::KubeSystem,
        ..LIST
    },
    Scene {
        name: "list-unknown",
        what: "agents with an identity that no rule names",
        identity: Identity::Unknown,
        ..LIST
    },
    Scene {
        name: "list-masters",
        what: "agents with a certificate of system:masters",
        identity: Identity::Masters,
        ..LIST
    },
    Scene {
        name: "list-rv0",
        what: "agents LIST as informers do first: limit=500&resourceVersion=0",
        ask: Ask::AllPodsCached,
        ..LIST
    },
    Scene {
        name: "list-own",
        what: "agents LIST their own node's pods only",
        ask: Ask::OwnPods,
        target: Target::Harmless,
        ..LIST
    },
    Scene {
        name: "watch",
        what: "watches of all pods with initial events",
        ask: Ask::WatchAllPods,
        target: Target::Watches,
        ..LIST
    },
    Scene {
        name: "halved",
        what: "a busy neighbour comes to the server's core in mid-storm",
        event: Event::Halved,
        storm_min: 60,
        ..LIST
    },
    Scene {
        name: "doubled",
        what: "a busy neighbour leaves the server's core in mid-storm",
        event: Event::Doubled,
        storm_min: 60,
        ..LIST
    },
    Scene {
        name: "fourfold",
        what: "pods grow fourfold in mid-storm",
        event: Event::Fourfold,
        storm_min: 60,
        ..LIST
    },
    Scene {
        name: "memory",
        what: "16 informers LIST large Secrets; the server has a memory limit",
        agents: Agents::Fixed(16),
        ask: Ask::Secrets,
        identity: Identity::KubeSystem,
        event: Event::MemoryLimit,
        storm_min: 60,
        target: Target::Alive,
        ..LIST
    },
    Scene {
        name: "etcd",
        what: "etcd pauses in bursts; the agents are harmless",
        agents: Agents::Fixed(50),
        ask: Ask::OwnPods,
        event: Event::EtcdPauses,
        target: Target::Alive,
        ..LIST
    },
    Scene {
        name: "webhook",
        what: "creating pods waits for a webhook that never answers; the agents are harmless",
        agents: Agents::Fixed(50),
        ask: Ask::OwnPods,
        event: Event::WebhookHole,
        target: Target::Alive,
        ..LIST
    },
    Scene {
        name: "stop",
        what: "kube-apiserver is suspended for 30 s in the storm",
        event: Event::Stopped,
        storm_min: 60,
        target: Target::Shown,
        ..LIST
    },
    Scene {
        name: "kill",
        what: "kube-apiserver is killed with 1,500 watches and started at once",
        agents: Agents::Fixed(0),
        event: Event::Killed,
        storm_min: 45,
        target: Target::Shown,
        ..LIST
    },
];

pub(crate) fn find(name: &str) -> Option<&'static Scene> {
    ALL.iter().find(|scene| scene.name == name)
}

/// The scenes, one a line.
pub(crate) fn describe() -> String {
    ALL.iter().map(|scene| format!("  {:<17} {}\n", scene.name, scene.what)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scene_is_found_by_its_own_name() {
        for scene in ALL {
            assert_eq!(find(scene.name).expect("a scene").what, scene.what, "{} is there twice", scene.name);
        }
    }
}

//! Which scenarios may the search try? A bounded space: a scenario is one choice for each of its genes.
//!
//! Servers of half a core to sixteen, a calm cluster on them that uses at most half, one or two groups of culprits of any
//! identity, call and manner, and what may happen to the server meanwhile. A scenario leaves here as YAML, the same text
//! that `--write` writes, so that whoever plays the file plays what was rated. The rarer a thing should be, the more often
//! its absence stands among the choices.

use std::fmt::Write as _;

use crate::sim::chance::Chance;

/// Seconds of calm, storm and after: half of what the built-in scenarios take, for thousands of tries.
const PHASES: (u32, u32, u32) = (20, 30, 20);
/// When what happens to the server happens: the storm has begun, and was met.
const HAPPENS: u32 = PHASES.0 + 10;
const STORM_ENDS: u32 = PHASES.0 + PHASES.1;
/// Nodes at most: beyond these a try takes long and shows nothing new.
const NODES_MAX: f64 = 2_000.0;
const NODES_MIN: f64 = 20.0;
/// Memory that a LIST takes while it is built, against its bytes.
const BUILDING: f64 = 5.0;
const GIB: f64 = 1_073_741_824.0;
/// Genes that a mutation draws anew, at most.
const CHANGES_MAX: f64 = 4.0;

type Choices = &'static [&'static str];

/// Genes of the server and of the calm cluster on it.
const CLUSTER: [Choices; 17] = [
    &["0.5", "1", "2", "4", "8", "16"],
    &["50", "150", "500"],
    &["5", "10", "30"],
    &["2kB", "8kB", "20kB"],
    &["1", "2", "4"],
    // Age: what reads LISTs from etcd (1.30) cannot stop one whose client is gone.
    &["new", "new", "new", "old"],
    &["true", "true", "true", "false"],
    // Cores in use in calm, in percent.
    &["5", "5", "20", "45"],
    &["0", "5", "20"],
    &["1", "1", "1", "1", "0.25", "0.5", "2"],
    &["0ms", "0ms", "0ms", "0ms", "20ms", "200ms"],
    &["no", "no", "no", "no", "no", "stalls"],
    &["none", "none", "none", "none", "pods 2s", "configmaps 5s"],
    &["no", "no", "no", "no", "no", "no", "killed"],
    &["1", "1", "1", "1", "4"],
    // Whose calm work it is: controllers' and workload's, or telemetry's as well.
    &["workload", "workload", "workload telemetry"],
    &["1", "1", "2"],
];
const CORES: usize = 0;
const NODES: usize = 1;
const PODS: usize = 2;
const POD_BYTES: usize = 3;
const MEMORY: usize = 4;
const AGE: usize = 5;
const APF: usize = 6;
const USE: usize = 7;
const STARTING: usize = 8;
const CAPACITY: usize = 9;
const ETCD: usize = 10;
const STALLS: usize = 11;
const WEBHOOK: usize = 12;
const KILL: usize = 13;
const GROWTH: usize = 14;
const WORK: usize = 15;
const CULPRITS: usize = 16;

/// Genes of one group of culprits.
const CULPRIT: [Choices; 8] = [
    &["agents", "agents", "accounts", "daemonset", "kube-system", "nodes", "admin", "unknown", "controller"],
    &[
        "list-all",
        "list-all",
        "list-quorum",
        "list-nodes",
        "list-own",
        "list-namespace",
        "list-label",
        "get",
        "patch",
        "watch-all",
        "informer",
    ],
    &["1", "5", "20", "100", "300", "1000"],
    &["client-go", "client-go", "kube-rs", "ignorant", "ignorant-slow"],
    &["closed", "closed", "200ms", "1s", "5s", "15s"],
    &["0s", "1s", "10s"],
    &["storm", "storm", "storm", "run"],
    &["usual", "usual", "usual", "5ms", "20ms", "100ms"],
];
const WHO: usize = 0;
const CALL: usize = 1;
const COUNT: usize = 2;
const MANNER: usize = 3;
const PERIOD: usize = 4;
const RAMP: usize = 5;
const DURING: usize = 6;
const COST: usize = 7;

const GENES: usize = CLUSTER.len() + 2 * CULPRIT.len();

/// One scenario: the number of its choice for each gene.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Genes([u8; GENES]);

fn choices(gene: usize) -> Choices {
    match gene.checked_sub(CLUSTER.len()) {
        None => CLUSTER[gene],
        Some(place) => CULPRIT[place % CULPRIT.len()],
    }
}

fn draw(gene: usize, chance: &mut Chance) -> u8 {
    // No gene has more than a dozen choices.
    (chance.bits() % choices(gene).len() as u64) as u8
}

impl Genes {
    /// Any scenario of the space.
    pub(super) fn random(chance: &mut Chance) -> Self {
        let mut genes = [0; GENES];
        for (gene, choice) in genes.iter_mut().enumerate() {
            *choice = draw(gene, chance);
        }
        Self(genes)
    }

    /// A scenario that differs in few genes.
    pub(super) fn mutated(&self, chance: &mut Chance) -> Self {
        let mut genes = self.0;
        for _ in 0..chance.between(1.0, CHANGES_MAX + 1.0) as u32 {
            let gene = (chance.bits() % GENES as u64) as usize;
            genes[gene] = draw(gene, chance);
        }
        Self(genes)
    }

    fn of(&self, gene: usize) -> &'static str {
        choices(gene)[usize::from(self.0[gene])]
    }

    fn culprit(&self, number: usize, gene: usize) -> &'static str {
        self.of(CLUSTER.len() + number * CULPRIT.len() + gene)
    }

    /// Choices are numbers where this is called.
    fn number(&self, gene: usize) -> f64 {
        self.of(gene).parse().unwrap_or(1.0)
    }

    fn nodes(&self) -> f64 {
        (self.number(CORES) * self.number(NODES)).clamp(NODES_MIN, NODES_MAX)
    }

    /// GiB of the server: by its cores, and at least what two of the largest LISTs take while they are built. A server that
    /// one LIST fills is nobody's to save.
    fn memory(&self) -> f64 {
        let sizes = [("2kB", 2e3), ("8kB", 8e3), ("20kB", 2e4)];
        let size = sizes.iter().find(|(name, _)| *name == self.of(POD_BYTES)).map_or(2e4, |(_, size)| *size);
        let list = self.nodes() * self.number(PODS) * self.number(GROWTH) * size;
        let by_cores = 2.0 + (self.number(CORES) * self.number(MEMORY)).ceil();
        by_cores.max(1.0 + (2.0 * BUILDING * list / GIB).ceil())
    }

    fn culprits(&self) -> usize {
        self.number(CULPRITS) as usize
    }

    /// The scenario in one line.
    pub(super) fn about(&self) -> String {
        let mut text = format!(
            "{} cores, {} nodes with {} pods of {}, {} % used in calm",
            self.of(CORES),
            self.nodes(),
            self.of(PODS),
            self.of(POD_BYTES),
            self.of(USE)
        );
        let remarks = [
            (self.of(AGE) == "old", "LISTs from etcd".to_owned()),
            (self.of(APF) == "false", "no APF".to_owned()),
            (self.of(CAPACITY) != "1", format!("cores × {} for 20 s", self.of(CAPACITY))),
            (self.of(ETCD) != "0ms", format!("etcd {} slower", self.of(ETCD))),
            (self.of(STALLS) != "no", "etcd stalls".to_owned()),
            (self.of(WEBHOOK) != "none", format!("webhook on {}", self.of(WEBHOOK))),
            (self.of(KILL) != "no", "a restart".to_owned()),
            (self.of(GROWTH) != "1", "pods × 4".to_owned()),
        ];
        for (_, remark) in remarks.iter().filter(|(holds, _)| *holds) {
            let _ = write!(text, ", {remark}");
        }
        for number in 0..self.culprits() {
            let of = |gene| self.culprit(number, gene);
            let _ = write!(text, "; {} {} {}", of(COUNT), of(WHO), of(CALL));
            if of(CALL) != "informer" {
                let _ = write!(text, " {} {}", of(MANNER), of(PERIOD));
            }
            let cost = if has_cost(of(CALL)) { of(COST) } else { "usual" };
            let _ = write!(text, "{}", if cost == "usual" { String::new() } else { format!(" of {cost}") });
        }
        text
    }

    /// The scenario as its file: `head` are lines of comment without their signs, `expect` a band that it breaks.
    pub(super) fn yaml(&self, name: &str, head: &[String], expect: Option<&str>) -> String {
        let mut text = String::new();
        for line in head {
            let _ = writeln!(text, "# {line}");
        }
        let (calm, storm, after) = PHASES;
        let old = self.of(AGE) == "old";
        let nodes = self.nodes();
        let _ = writeln!(
            text,
            "name: {name}\nabout: {}\nserver: {{ cores: {}, memory: {}GiB, apf: {}, streaming: {}, listsFromEtcd: {old} }}",
            self.about(),
            self.of(CORES),
            self.memory(),
            self.of(APF),
            !old
        );
        let _ = writeln!(
            text,
            "objects: {{ pods: {{ count: {}, bytes: {} }}, nodes: {{ count: {nodes} }}, leases: {{ count: {nodes} }} }}",
            nodes * self.number(PODS),
            self.of(POD_BYTES)
        );
        let _ = writeln!(text, "phases: {{ calm: {calm}s, storm: {storm}s, after: {after}s }}");
        let events = self.events();
        if !events.is_empty() {
            let _ = writeln!(text, "events:");
            events.iter().for_each(|event| _ = writeln!(text, "  - {{ {event} }}"));
        }
        let _ = writeln!(text, "clients:");
        text.push_str(&self.cluster());
        for number in 0..self.culprits() {
            text.push_str(&self.culprit_group(number));
        }
        if let Some(band) = expect {
            let _ = writeln!(text, "expect: {{ {band} }}");
        }
        text
    }

    fn events(&self) -> Vec<String> {
        let mut events = Vec::new();
        let cores = self.number(CORES);
        let factor = self.number(CAPACITY);
        if self.of(CAPACITY) != "1" {
            events.push(format!("at: {HAPPENS}s, cores: {}", cores * factor));
            events.push(format!("at: {STORM_ENDS}s, cores: {cores}"));
        }
        if self.of(ETCD) != "0ms" {
            events.push(format!("at: {}s, etcdDelay: {}", PHASES.0, self.of(ETCD)));
            events.push(format!("at: {STORM_ENDS}s, etcdDelay: 0ms"));
        }
        if self.of(STALLS) != "no" {
            events.push(format!("at: {}s, etcdStall: 500ms, every: 2s, until: {STORM_ENDS}s", PHASES.0));
        }
        if let Some((resource, delay)) = self.of(WEBHOOK).split_once(' ') {
            events.push(format!("at: {}s, webhook: {{ resource: {resource}, delay: {delay} }}", PHASES.0));
            events.push(format!("at: {STORM_ENDS}s, webhook: {{ resource: {resource}, delay: 0s }}"));
        }
        if self.of(KILL) != "no" {
            events.push(format!("at: {HAPPENS}s, kill: 5s"));
        }
        if self.of(GROWTH) != "1" {
            let count = self.nodes() * self.number(PODS) * self.number(GROWTH);
            events.push(format!("at: {HAPPENS}s, objects: {{ resource: pods, count: {count} }}"));
        }
        events
    }

    /// Everybody who is there in calm, and who must not suffer.
    fn cluster(&self) -> String {
        let cores = self.number(CORES);
        // Two calls a second of 10 ms each are a hundredth of a core for each percent that is to be used.
        let loops = (cores * self.number(USE)).ceil().max(1.0);
        let (workload, telemetry) = match self.of(WORK) {
            "workload" => (loops, 0.0),
            _ => ((loops / 2.0).ceil(), (loops / 2.0).ceil()),
        };
        let controllers = (cores * 4.0).ceil();
        let mut text = format!(
            "  - {{ name: leases, kind: kubelet, count: {}, lane: node-health }}\n  \
             - {{ name: leaders, kind: leader, count: 3, lane: control-plane, apf: leader-election }}\n  \
             - name: operator\n    kind: operator\n    lane: operators\n    calls:\n      \
             - GET /api/v1/nodes?limit=20\n      - GET /apis/apps/v1/namespaces/obs/daemonsets/agent\n      \
             - PATCH /apis/apps/v1/namespaces/obs/daemonsets/agent\n  \
             - name: controllers\n    kind: loop\n    count: {controllers}\n    lane: control-plane\n    period: 500ms\n    \
             calls: [ \"GET /api/v1/namespaces/shop/pods/p{{n}}\", \"PATCH /api/v1/namespaces/shop/pods/p{{n}}/status\" ]\n  \
             - name: workload\n    kind: loop\n    count: {workload}\n    lane: workload\n    period: 1s\n    \
             cost: {{ cpu: 10ms }}\n    calls: [ \"GET /api/v1/namespaces/shop/configmaps\" ]\n",
            self.nodes()
        );
        if telemetry > 0.0 {
            let _ = write!(
                text,
                "  - name: scrapers\n    kind: loop\n    count: {telemetry}\n    lane: telemetry\n    shared: true\n    \
                 period: 1s\n    cost: {{ cpu: 10ms }}\n    calls: [ \"GET /api/v1/namespaces/shop/pods\" ]\n"
            );
        }
        if self.of(STARTING) != "0" {
            let _ = write!(
                text,
                "  - name: kubelets-starting\n    kind: informer\n    count: {}\n    lane: platform\n    during: storm\n    \
                 ramp: 20s\n    calls:\n      \
                 - GET /api/v1/pods?fieldSelector=spec.nodeName%3Dn1&limit=500&resourceVersion=0\n      \
                 - GET /api/v1/pods?fieldSelector=spec.nodeName%3Dn1&watch=1&resourceVersion=100\n",
                self.of(STARTING)
            );
        }
        text
    }

    fn culprit_group(&self, number: usize) -> String {
        let of = |gene| self.culprit(number, gene);
        let (kind, calls) = calls(of(CALL));
        let manner = match of(MANNER) {
            "kube-rs" => "\n    retry: kube-rs",
            "ignorant" => "\n    retry: ignorant\n    pause: 100ms",
            "ignorant-slow" => "\n    retry: ignorant\n    pause: 1s",
            _ => "",
        };
        let mut text = format!(
            "  - name: culprits-{}\n    kind: {kind}\n    count: {}\n    identity: {{ {} }}\n    during: {}\n    ramp: {}{}",
            number + 1,
            of(COUNT),
            identity(of(WHO)),
            of(DURING),
            of(RAMP),
            if kind == "loop" { manner } else { "" },
        );
        if kind == "loop" && of(PERIOD) != "closed" {
            let _ = write!(text, "\n    period: {}", of(PERIOD));
        }
        if has_cost(of(CALL)) && of(COST) != "usual" {
            let _ = write!(text, "\n    cost: {{ cpu: {} }}", of(COST));
        }
        let _ = writeln!(
            text,
            "\n    calls: [ {} ]",
            calls.iter().map(|call| format!("\"{call}\"")).collect::<Vec<_>>().join(", ")
        );
        text
    }
}

/// Calls whose cost the space varies: of others the objects decide.
fn has_cost(call: &str) -> bool {
    matches!(call, "get" | "list-namespace")
}

fn identity(who: &str) -> &'static str {
    match who {
        "agents" => "user: \"system:serviceaccount:logging:fluent-bit\", node: \"n{n}\"",
        "accounts" => "user: \"system:serviceaccount:shop:job-{n}\"",
        "daemonset" => "user: \"system:serviceaccount:shop:sync\", node: \"n{n}\"",
        "kube-system" => "user: \"system:serviceaccount:kube-system:sync\", node: \"n{n}\"",
        "nodes" => "user: \"system:node:n{n}\", groups: [ \"system:nodes\" ], userAgent: kubelet/v1.34.4",
        "admin" => "user: kubernetes-admin, groups: [ \"system:masters\" ]",
        "controller" => "user: 'system:kube-controller-manager'",
        _ => "user: \"jane-{n}\"",
    }
}

fn calls(call: &str) -> (&'static str, &'static [&'static str]) {
    match call {
        "list-all" => ("loop", &["GET /api/v1/pods?limit=500&resourceVersion=0"]),
        "list-quorum" => ("loop", &["GET /api/v1/pods"]),
        "list-nodes" => ("loop", &["GET /api/v1/nodes?resourceVersion=0"]),
        "list-own" => ("loop", &["GET /api/v1/pods?fieldSelector=spec.nodeName%3Dn{n}&resourceVersion=0"]),
        "list-namespace" => ("loop", &["GET /api/v1/namespaces/shop/pods"]),
        "list-label" => ("loop", &["GET /api/v1/pods?labelSelector=app%3Dx&resourceVersion=0"]),
        "patch" => ("loop", &["PATCH /api/v1/namespaces/shop/pods/p{n}/status"]),
        "watch-all" => {
            ("loop", &["GET /api/v1/pods?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"])
        }
        "informer" => (
            "informer",
            &["GET /api/v1/pods?limit=500&resourceVersion=0", "GET /api/v1/pods?watch=1&resourceVersion=100"],
        ),
        _ => ("loop", &["GET /api/v1/namespaces/shop/configmaps/c{n}"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::Scenario;

    #[test]
    fn every_choice_gives_a_scenario_that_can_be_read() {
        let mut chance = Chance::new(1, 0);
        let base = Genes::random(&mut chance);
        for gene in 0..GENES {
            for choice in 0..choices(gene).len() {
                let mut genes = base.0;
                genes[gene] = choice as u8;
                genes[CULPRITS] = 2;
                let text =
                    Genes(genes).yaml("found-any", &["Why.".to_owned()], Some("operator_ok: \">= 1\""));
                let scenario = Scenario::read(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
                assert_eq!(scenario.about, Genes(genes).about());
            }
        }
    }

    #[test]
    fn a_mutation_changes_little_and_draws_from_the_whole_space() {
        let mut chance = Chance::new(2, 0);
        let base = Genes::random(&mut chance);
        let mut touched = [false; GENES];
        for _ in 0..2_000 {
            let mutant = base.mutated(&mut chance);
            let changed: Vec<_> = (0..GENES).filter(|&gene| mutant.0[gene] != base.0[gene]).collect();
            assert!(changed.len() <= CHANGES_MAX as usize);
            changed.iter().for_each(|&gene| touched[gene] = true);
        }
        // Genes whose choices all mean the same cannot change; there are none.
        assert_eq!(touched, [true; GENES]);
    }
}

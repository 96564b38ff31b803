//! What does a call cost the modelled apiserver?
//!
//! CPU times of one core, measured on kube-apiserver 1.34 or taken from KEP-2340 and KEP-3157: GET 1 ms, lease PUT 2 ms,
//! other writes 4 ms, LIST of 5,000 pods as JSON (39 MB) 0.36 s; a LIST that goes to etcd 26 µs an object more and 13 µs in
//! etcd. Costs follow the objects that exist when the call runs, so pods that multiply make every LIST dearer.

use std::collections::BTreeMap;

use super::plan::{Breadth, Plan};
use crate::flow::Encoding;
use crate::request::{ResourceVersion, Selector};

/// What one call makes the apiserver and etcd do.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Work {
    /// Microseconds of one core.
    pub(super) cpu: f64,
    /// Microseconds of one etcd server; zero: etcd is not asked.
    pub(super) etcd: f64,
    /// Bytes of the answer.
    pub(super) bytes: u64,
    /// Times the call must be scheduled on a busy core before its work is done (see `apiserver`).
    pub(super) handovers: f64,
}

/// Objects of one resource.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Objects {
    pub(super) count: f64,
    /// JSON, each.
    pub(super) bytes: f64,
}

/// What the cluster holds.
#[derive(Clone, Debug)]
pub(super) struct Contents {
    table: BTreeMap<String, Objects>,
    pub(super) namespaces: f64,
}

/// Objects and bytes of resources that a scenario does not mention: a cluster of 500 nodes.
const USUAL: &[(&str, f64, f64)] = &[
    ("pods", 5_000.0, 7_800.0),
    ("nodes", 500.0, 16_000.0),
    ("leases", 500.0, 600.0),
    ("services", 300.0, 1_500.0),
    ("endpointslices", 350.0, 2_500.0),
    ("configmaps", 1_000.0, 2_000.0),
    ("secrets", 1_000.0, 4_000.0),
    ("events", 10_000.0, 1_000.0),
    ("daemonsets", 20.0, 5_000.0),
];
/// Any other resource.
const OTHER: Objects = Objects { count: 100.0, bytes: 2_000.0 };
const NAMESPACES: f64 = 50.0;

/// Health probes touch no storage.
const PROBE: f64 = 200.0;
/// Discovery and other documents that are ready to send.
const DOCUMENT: f64 = 500.0;
const GET: f64 = 1_000.0;
const LEASE_WRITE: f64 = 2_000.0;
const WRITE: f64 = 4_000.0;
const WATCH_START: f64 = 1_000.0;
/// Looking at one object in the watch cache (KEP-2340: 300,000 objects, 0.53 s).
const SCAN: f64 = 1.8;
/// Encoding one object: this and so much a byte. 5,000 pods of 7.8 kB come to 0.36 s.
const ENCODE: f64 = 8.2;
const ENCODE_BYTE: f64 = 0.008;
/// Reading one object from etcd and decoding it, and etcd's own part (KEP-2340).
const DECODE: f64 = 26.0;
const ETCD_RANGE: f64 = 13.0;
/// A write's time in etcd: eight at a time make 8,000 a second, as on good disks.
const ETCD_WRITE: f64 = 1_000.0;
/// A quorum read, or the progress check of a consistent LIST.
const ETCD_READ: f64 = 300.0;
/// Protobuf against JSON.
const PROTOBUF_CPU: f64 = 0.4;
const PROTOBUF_BYTES: f64 = 0.5;
/// A label selector is taken to fit this share.
const LABELLED: f64 = 0.1;
/// Hand-overs between goroutines of a write (two round trips to etcd), a read, and a probe.
const HANDOVERS_WRITE: f64 = 10.0;
const HANDOVERS_READ: f64 = 6.0;
const HANDOVERS_PROBE: f64 = 3.0;

impl Contents {
    pub(super) fn new() -> Self {
        let table =
            USUAL.iter().map(|&(name, count, bytes)| (name.to_owned(), Objects { count, bytes })).collect();
        Self { table, namespaces: NAMESPACES }
    }

    pub(super) fn of(&self, resource: &str) -> Objects {
        self.table.get(resource).copied().unwrap_or(OTHER)
    }

    pub(super) fn set(&mut self, resource: &str, count: Option<f64>, bytes: Option<f64>) {
        let old = self.of(resource);
        let new = Objects { count: count.unwrap_or(old.count), bytes: bytes.unwrap_or(old.bytes) };
        self.table.insert(resource.to_owned(), new);
    }

    /// Objects that a LIST looks at, and that it returns.
    fn breadth(&self, plan: &Plan) -> (f64, f64) {
        let all = self.of(&plan.resource).count;
        let nodes = self.of("nodes").count.max(1.0);
        let here = match plan.breadth {
            Breadth::One => 1.0,
            Breadth::Namespace => (all / self.namespaces).max(1.0),
            Breadth::Cluster => all,
        };
        let (scanned, returned) = match plan.selector {
            Selector::None => (here, here),
            Selector::Label => (here, here * LABELLED),
            // The watch cache has an index for pods by node.
            Selector::Field if plan.resource == "pods" => (here / nodes, here / nodes),
            Selector::Field => (here, (here / nodes).max(1.0)),
            Selector::Name => (1.0, 1.0),
        };
        match plan.limit {
            // The watch cache ignores a limit for resourceVersion=0.
            Some(limit) if plan.version != ResourceVersion::Any => {
                (scanned.min(limit as f64), returned.min(limit as f64))
            }
            _ => (scanned, returned),
        }
    }

    /// Objects that a LIST returns.
    pub(super) fn returned(&self, plan: &Plan) -> f64 {
        self.breadth(plan).1
    }

    /// The work of `plan` now. `from_etcd`: a LIST that the watch cache cannot serve.
    pub(super) fn work(&self, plan: &Plan, from_etcd: bool) -> Work {
        let mut work = self.usual_work(plan, from_etcd);
        if let Some(cpu) = plan.cost.cpu_micros {
            work.cpu = cpu;
        }
        if let Some(bytes) = plan.cost.bytes {
            work.bytes = bytes;
        }
        if let Some(etcd) = plan.cost.etcd_micros {
            work.etcd = etcd;
        }
        work
    }

    fn usual_work(&self, plan: &Plan, from_etcd: bool) -> Work {
        let size = self.of(&plan.resource).bytes;
        if plan.exempt {
            return Work { cpu: PROBE, etcd: 0.0, bytes: 100, handovers: HANDOVERS_PROBE };
        }
        if plan.resource.is_empty() {
            return Work { cpu: DOCUMENT, etcd: 0.0, bytes: 10_000, handovers: HANDOVERS_PROBE };
        }
        if plan.write {
            let cpu = if plan.resource == "leases" { LEASE_WRITE } else { WRITE };
            return Work { cpu, etcd: ETCD_WRITE, bytes: size as u64, handovers: HANDOVERS_WRITE };
        }
        let consistent = if plan.version == ResourceVersion::Unset { ETCD_READ } else { 0.0 };
        if plan.list {
            return self.list(plan, size, (from_etcd, consistent));
        }
        if plan.watch {
            return Work { cpu: WATCH_START, etcd: 0.0, bytes: 1_000, handovers: HANDOVERS_READ };
        }
        Work { cpu: GET, etcd: consistent, bytes: size as u64, handovers: HANDOVERS_READ }
    }

    fn list(&self, plan: &Plan, size: f64, (from_etcd, consistent): (bool, f64)) -> Work {
        let (scanned, returned) = self.breadth(plan);
        let (cheaper, smaller) = match plan.encoding {
            Encoding::Protobuf => (PROTOBUF_CPU, PROTOBUF_BYTES),
            _ => (1.0, 1.0),
        };
        let mut work = Work {
            cpu: GET + scanned * SCAN + returned * (ENCODE + ENCODE_BYTE * size) * cheaper,
            etcd: consistent,
            bytes: (returned * size * smaller) as u64,
            handovers: HANDOVERS_READ,
        };
        if from_etcd {
            work.cpu += scanned * DECODE;
            work.etcd += scanned * ETCD_RANGE;
        }
        work
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(line: &str) -> Plan {
        Plan::parse(line, Encoding::Json).unwrap()
    }

    #[test]
    fn costs_are_those_that_were_measured() {
        let contents = Contents::new();
        let all = contents.work(&plan("GET /api/v1/pods?limit=500&resourceVersion=0"), false);
        assert!((all.cpu / 1e6 - 0.36).abs() < 0.01, "{all:?}");
        assert_eq!((all.bytes, all.etcd), (39_000_000, 0.0));
        let own = "GET /api/v1/pods?fieldSelector=spec.nodeName%3Dn1&resourceVersion=0";
        let own = contents.work(&plan(own), false);
        assert!(own.cpu < 2_000.0 && own.bytes == 78_000, "{own:?}");
        let lease = plan("PUT /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1");
        assert_eq!(contents.work(&lease, false).cpu, 2_000.0);
        let paged = contents.work(&plan("GET /api/v1/pods?limit=500"), false);
        assert_eq!(paged.bytes, 3_900_000);
    }

    #[test]
    fn a_list_from_etcd_costs_more_and_more_pods_cost_more() {
        let mut contents = Contents::new();
        let list = plan("GET /api/v1/pods");
        let cached = contents.work(&list, false);
        let quorum = contents.work(&list, true);
        assert!(quorum.cpu > cached.cpu + 100_000.0 && quorum.etcd > 60_000.0);
        contents.set("pods", Some(20_000.0), None);
        assert!(contents.work(&list, false).cpu > 3.9 * cached.cpu);
    }
}

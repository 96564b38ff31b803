//! Does the address split hold on real hosts: is everybody behind spillway, and does the cluster outlive a host?
//!
//! Network namespaces are the hosts, on one machine without a container engine: etcd, two control planes, two nodes.
//! The programs are the real ones; pods, kubelets, controllers and people know nothing of spillway.

// Clippy's own exception for tests ends at the functions marked as tests; what they call are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod checked;
mod hosts;
mod service;
mod site;

use std::{net::SocketAddr, time::Duration};

use serde_json::Value;

use self::{
    service::SERVICE,
    site::{ControlPlane, PATIENCE, Site, Worker},
};
use crate::cluster::{tail, wait_for};

/// A dead host's leases: 15 s for its endpoint and for a leader, and a kubelet needs up to 45 s to give up a connection
/// that is silent. Three times that, because the machine may be busy.
const FAILOVER: Duration = Duration::from_secs(180);

#[test]
fn everybody_is_behind_spillway_and_the_cluster_outlives_a_control_plane_host() {
    let site = Site::start();
    let mut first = site.control_plane("cp-1", 11);
    first.start_apiserver(&site, "127.0.0.1");
    first.start_spillway(&site);
    first.start_controllers(&site);
    let workers = [("worker-1", 21), ("worker-2", 22)]
        .map(|(name, number)| site.worker(name, number, &[first.endpoint()]));
    nodes_are_ready(&site, &first, 2);

    the_service_is_spillway(&site, &first, &workers[0]);
    let mut second = site.control_plane("cp-2", 12);
    a_control_plane_in_the_wrong_order_is_named(&site, &first, &mut second, &workers[0]);
    second.start_apiserver(&site, "127.0.0.1");
    second.start_spillway(&site);
    second.start_controllers(&site);
    no_way_around(&second);
    publishes(&site, &second, &[first.endpoint(), second.endpoint()]);
    for worker in &workers {
        worker.service.set(vec![first.endpoint(), second.endpoint()]);
    }

    for leader in ["kube-controller-manager", "kube-scheduler"] {
        let leases = Leases::read(&site, &second);
        assert!(leases.of(leader).0.starts_with("cp-1_"), "{leader} is led by {:?}", leases.of(leader));
    }
    first.lose_power();
    // Read after the end: what is newer than this was written without the first host.
    let before = Leases::read(&site, &second);
    the_cluster_goes_on(&site, &second, &workers, &before);
}

/// Pods use the `kubernetes` Service. kube-apiserver itself publishes its endpoint, and spillway stands there.
fn the_service_is_spillway(site: &Site, first: &ControlPlane, worker: &Worker) {
    publishes(site, first, &[first.endpoint()]);
    no_way_around(first);
    let before = first.passed(site);
    let alice = &site.paths.alice;
    let service = format!("https://{SERVICE}");
    let who = site.ask(
        &worker.host,
        alice,
        &service,
        &["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"],
    );
    assert_eq!(who, "alice");
    assert!(
        first.passed(site) > before,
        "the Service's requests are not counted by spillway: {}",
        first.log()
    );

    // A pod: a bound token instead of a certificate.
    let token = site.ask(&first.host, &site.paths.admin, &first.url(), &["create", "token", "default"]);
    crate::cluster::canary::token(token.trim());
    let mut pod = worker.host.command(&crate::cluster::binaries().join("kubectl"));
    pod.args(["auth", "whoami", "--server", &service, "--token", token.trim(), "-o", "name"]);
    pod.arg("--certificate-authority").arg(&site.paths.server_ca.cert).env("HOME", &site.paths.dir);
    let said = pod.output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));

    let person =
        site.ask(&worker.host, &site.paths.break_glass, &first.break_glass_url(), &["auth", "whoami"]);
    assert!(person.contains("alice@corp"), "{person}");
}

/// Who forgets `--bind-address` has a kube-apiserver on the node's address: spillway says why it cannot start, and the
/// list of doors names the way around it.
fn a_control_plane_in_the_wrong_order_is_named(
    site: &Site,
    first: &ControlPlane,
    second: &mut ControlPlane,
    worker: &Worker,
) {
    second.start_apiserver(site, "0.0.0.0");
    let mut early = site.run("spillway-early", second.spillway_command(site));
    let status = wait_for("a spillway without an address to end", PATIENCE, || {
        early.ended().ok_or_else(|| tail(&early.log))
    });
    let said = tail(&early.log);
    assert_eq!(status.code(), Some(3), "{said}");
    assert!(said.contains("10.99.0.12:6443"), "{said}");

    assert_eq!(ways_around(second), ["*:6443 kube-apiserver"]);
    publishes(site, first, &[first.endpoint(), second.endpoint()]);
    // It is a way: whoever is sent there by the Service passes nobody.
    site.ask(&worker.host, &site.paths.alice, &second.url(), &["get", "--raw", "/version"]);
    second.apiserver = None;
}

fn ways_around(control_plane: &ControlPlane) -> Vec<String> {
    let doors = control_plane.host.doors();
    doors.into_iter().filter(|door| door.ends_with(" kube-apiserver")).collect()
}

fn no_way_around(control_plane: &ControlPlane) {
    let around = ways_around(control_plane);
    assert!(around.is_empty(), "kube-apiserver is open beside spillway at {around:?}");
    let address = control_plane.host.address;
    for port in [6443, 6444] {
        let door = format!("{address}:{port} spillway");
        let doors = control_plane.host.doors();
        assert!(doors.contains(&door), "{door} is not among {doors:?}");
    }
}

/// Waits until the endpoints of the `kubernetes` Service are these.
fn publishes(site: &Site, through: &ControlPlane, expected: &[SocketAddr]) {
    let mut expected: Vec<String> = expected.iter().map(SocketAddr::to_string).collect();
    expected.sort();
    wait_for("the endpoints of the kubernetes Service", FAILOVER, || {
        let slice = site.object(&through.host, &through.url(), &["endpointslice", "kubernetes"]);
        let port = slice["ports"][0]["port"].as_u64().unwrap_or_default();
        let endpoints = slice["endpoints"].as_array().into_iter().flatten();
        let mut found: Vec<String> = endpoints
            .flat_map(|endpoint| endpoint["addresses"].as_array().into_iter().flatten())
            .map(|address| format!("{}:{port}", address.as_str().unwrap_or_default()))
            .collect();
        found.sort();
        if found == expected { Ok(()) } else { Err(format!("{found:?} instead of {expected:?}")) }
    });
}

fn nodes_are_ready(site: &Site, through: &ControlPlane, count: usize) {
    wait_for("Ready nodes", FAILOVER, || {
        let nodes = site.object(&through.host, &through.url(), &["nodes"]);
        let ready = |node: &&Value| {
            let conditions = node["status"]["conditions"].as_array().into_iter().flatten();
            conditions.into_iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
        };
        let found = nodes["items"].as_array().into_iter().flatten().filter(ready).count();
        if found == count { Ok(()) } else { Err(format!("{found} are Ready; {}", through.log())) }
    });
}

/// Who leads, and when each lease was renewed last.
struct Leases(Vec<(String, String, String)>);

impl Leases {
    fn read(site: &Site, through: &ControlPlane) -> Self {
        let list = site.object(&through.host, &through.url(), &["leases", "-A"]);
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let of = |lease: &Value| {
            let spec = &lease["spec"];
            (word(&lease["metadata"]["name"]), word(&spec["holderIdentity"]), word(&spec["renewTime"]))
        };
        Self(list["items"].as_array().into_iter().flatten().map(of).collect())
    }

    fn of(&self, name: &str) -> (&str, &str) {
        let found = self.0.iter().find(|lease| lease.0 == name);
        found.map(|(_, holder, renewed)| (&**holder, &**renewed)).unwrap_or_default()
    }
}

fn the_cluster_goes_on(site: &Site, second: &ControlPlane, workers: &[Worker], before: &Leases) {
    // People first: at once, by name, without waiting for any lease.
    let alice = &site.paths.alice;
    site.ask(&workers[0].host, alice, &second.url(), &["auth", "whoami"]);
    let person =
        site.ask(&workers[1].host, &site.paths.break_glass, &second.break_glass_url(), &["auth", "whoami"]);
    assert!(person.contains("alice@corp"), "{person}");

    publishes(site, second, &[second.endpoint()]);
    for worker in workers {
        worker.service.set(vec![second.endpoint()]);
    }
    wait_for("leases to be renewed and the leaders to be on the host that is left", FAILOVER, || {
        let now = Leases::read(site, second);
        for leader in ["kube-controller-manager", "kube-scheduler"] {
            let (holder, renewed) = now.of(leader);
            if !holder.starts_with("cp-2_") || renewed <= before.of(leader).1 {
                return Err(format!("{leader} is led by {holder:?}, renewed {renewed:?}"));
            }
        }
        for worker in workers {
            let (was, is) = (before.of(&worker.host.name).1, now.of(&worker.host.name).1);
            // RFC 3339 in UTC sorts as text.
            if is <= was {
                return Err(format!("{} renewed its lease at {is:?} last", worker.host.name));
            }
        }
        Ok(())
    });
    nodes_are_ready(site, second, workers.len());

    // And there is work done: a Deployment needs controllers, scheduler and kubelets.
    let arguments = ["create", "deployment", "after", "--image=none", "--replicas=2"];
    site.ask(&workers[0].host, &site.paths.admin, &format!("https://{SERVICE}"), &arguments);
    wait_for("pods of a Deployment that was made afterwards", FAILOVER, || {
        let made = site.object(&second.host, &second.url(), &["deployment", "after"]);
        let ready = made["status"]["readyReplicas"].as_u64().unwrap_or_default();
        if ready == 2 { Ok(()) } else { Err(format!("{ready} are ready; {}", second.log())) }
    });
}

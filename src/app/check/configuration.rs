//! Is the configuration what an installation needs?

use std::fmt::Write as _;

use aws_lc_rs::digest;

use super::{Found, Situation, either};
use crate::breakglass::read_kubeconfig;
use crate::config::{Arming, Code, DocumentKind};
use crate::identity::{Credential, GROUP_AUTHENTICATED, Identity};
use crate::policy::{Hints, Lane, Policy};
use crate::request::{DecodedPath, RequestInfo};

/// Digits of a hash that are shown: enough to tell configurations apart on a call.
const HASH_DIGITS: usize = 12;

/// Findings that a check of their own tells.
pub(super) const ELSEWHERE: [Code; 3] =
    [Code::KeyExposed, Code::FrontProxyOfClientCa, Code::BreakGlassClientCa];

/// Can it be used?
pub(super) fn valid(situation: &Situation) -> Found {
    let files: Vec<String> = situation.files.iter().map(|file| file.display().to_string()).collect();
    let again = format!("spillway validate {}", files.join(" "));
    match &situation.loaded {
        Ok(loaded) if loaded.warnings.0.is_empty() => {
            let rules = loaded.policy.rules.len();
            let own =
                loaded.documents.iter().any(|one| matches!(one.kind, DocumentKind::TrafficPolicy { .. }));
            let policy = if own { "" } else { ", the embedded policy" };
            Found::ok(format!("{} documents{policy}, {rules} rules", loaded.documents.len()))
        }
        Ok(loaded) => {
            let first = &loaded.warnings.0[0];
            let more = loaded.warnings.0.len() - 1;
            let more = if more > 0 { format!(", and {more} more") } else { String::new() };
            Found::warn(format!("{}: {}{more}", first.code, first.message), again)
        }
        Err(_) if situation.is_unwritten() => Found::fail(
            format!("{}: there is no {}", Code::FileMissing, files.first().map_or("", String::as_str)),
            "on a node of kubeadm's: spillway config init --from-kubeadm; elsewhere: spillway manifest config; or name \
             yours: --config FILE",
        ),
        Err(found) => {
            let first = found.0.iter().find(|found| !ELSEWHERE.contains(&found.code)).or(found.0.first());
            let what = first.map_or_else(String::new, |first| format!("{}: {}", first.code, first.message));
            Found::fail(format!("{} errors, the first is {what}", found.errors()), again)
        }
    }
}

fn policy(situation: &Situation) -> Result<Policy, Found> {
    let Ok(loaded) = &situation.loaded else {
        return Err(situation.unusable());
    };
    Policy::new(loaded.policy.rules.clone(), loaded.policy.lanes, 0)
        .map_err(|error| Found::fail(error.to_string(), "spillway validate"))
}

/// Can a health check be shed? A kubelet would restart kube-apiserver, and a balancer take the node out.
pub(super) fn health_checks(situation: &Situation) -> Found {
    either((|| {
        let policy = policy(situation)?;
        let anonymous = Identity::anonymous();
        let mut shed = Vec::new();
        for target in ["/livez", "/readyz", "/healthz", "/livez/ping", "/version"] {
            let class = classify(&policy, &anonymous, "GET", target, Some("kube-probe/1.34"));
            if !class.is_some_and(|(_, exempt)| exempt) {
                shed.push(target);
            }
        }
        if shed.is_empty() {
            return Ok(Found::ok("/livez, /readyz, /healthz and /version are in no lane"));
        }
        Ok(Found::fail(
            format!("can be shed: {}", shed.join(", ")),
            "spillway explain --as system:anonymous --path /livez --policy …",
        ))
    })())
}

/// Do nodes, controllers, DNS and people have lanes that are shed last?
pub(super) fn vital_lanes(situation: &Situation) -> Found {
    const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces";
    either((|| {
        let policy = policy(situation)?;
        let mut low = Vec::new();
        let rows = [
            (
                "a node's lease",
                node(),
                "PUT",
                format!("{LEASES}/kube-node-lease/leases/n1"),
                Lane::NodeHealth,
            ),
            ("a node's status", node(), "PATCH", "/api/v1/nodes/n1/status".to_owned(), Lane::NodeHealth),
            (
                "the scheduler's leader election",
                certificate("system:kube-scheduler", &[]),
                "PUT",
                format!("{LEASES}/kube-system/leases/kube-scheduler"),
                Lane::ControlPlane,
            ),
            (
                "the controller manager",
                certificate("system:kube-controller-manager", &[]),
                "GET",
                "/api/v1/nodes?watch=1".to_owned(),
                Lane::ControlPlane,
            ),
            (
                "CoreDNS",
                coredns(),
                "GET",
                "/apis/discovery.k8s.io/v1/endpointslices?watch=1".to_owned(),
                Lane::Platform,
            ),
            (
                "cluster-admin",
                certificate("kubernetes-admin", &["system:masters"]),
                "GET",
                "/api/v1/nodes".to_owned(),
                Lane::Operators,
            ),
        ];
        for (what, who, method, target, least) in &rows {
            match classify(&policy, who, method, target, None) {
                Some((lane, _)) if lane <= *least => {}
                Some((lane, _)) => low.push(format!("{what}: {lane}, expected {least} or higher")),
                None => low.push(format!("{what}: unreadable")),
            }
        }
        if low.is_empty() {
            return Ok(Found::ok(
                "leases, controllers, CoreDNS and administrators have lanes that are shed last",
            ));
        }
        let advice = "keep the default rules (defaultRules: Append) or add one; spillway explain --as … shows the walk";
        Ok(Found::warn(low.join("; "), advice))
    })())
}

fn classify(
    policy: &Policy,
    who: &Identity,
    method: &str,
    target: &str,
    agent: Option<&str>,
) -> Option<(Lane, bool)> {
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let path = DecodedPath::new(path).ok()?;
    let info = RequestInfo::new(method, &path, query).ok()?;
    let hints = Hints { user_agent: agent, impersonates: false };
    let class = policy.classify(who, policy.subjects(who), &info, &hints);
    Some((class.lane, class.exempt))
}

fn certificate(user: &str, groups: &[&str]) -> Identity {
    let groups = groups.iter().chain(&[GROUP_AUTHENTICATED]).map(|group| (*group).to_owned()).collect();
    Identity {
        user: user.to_owned(),
        uid: None,
        groups,
        extra: Vec::new(),
        credential: Credential::Certificate,
    }
}

fn node() -> Identity {
    certificate("system:node:n1", &["system:nodes"])
}

fn coredns() -> Identity {
    let groups = ["system:serviceaccounts", "system:serviceaccounts:kube-system"];
    let credential = Credential::ServiceAccountToken;
    Identity { credential, ..certificate("system:serviceaccount:kube-system:coredns", &groups) }
}

/// The hash of all files of the configuration, in their order.
pub(super) fn hash(situation: &Situation) -> std::io::Result<String> {
    let mut whole = digest::Context::new(&digest::SHA256);
    for file in &situation.files {
        // The length first, so that two files cannot be read as one.
        let bytes = std::fs::read(file)?;
        whole.update(&(bytes.len() as u64).to_be_bytes());
        whole.update(&bytes);
    }
    let mut text = String::new();
    for byte in whole.finish().as_ref() {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}

/// Is it the same configuration as on the other instances?
pub(super) fn same_everywhere(situation: &Situation) -> Found {
    let hash = match hash(situation) {
        Ok(hash) => hash,
        Err(error) => return Found::skip(format!("a file cannot be read: {error}"), "see SPW-CFG-001"),
    };
    let short = &hash[..HASH_DIGITS];
    match &situation.expect_hash {
        None => Found::ok(format!("hash {short}; on the others: spillway check --expect-hash {short}")),
        Some(wanted) if wanted.len() >= HASH_DIGITS && hash.starts_with(wanted.to_lowercase().as_str()) => {
            Found::ok(format!("hash {short}, as expected"))
        }
        Some(wanted) => Found::fail(
            format!("hash {short}, expected {wanted}: this instance has another configuration"),
            "compare the files; addresses that differ by node belong into a file of their own, not into --config here",
        ),
    }
}

/// Is there a way in when everything else is full?
pub(super) fn break_glass(situation: &Situation) -> Found {
    either((|| {
        let proxy = situation.proxy()?;
        let Some(lane) = &proxy.break_glass else {
            return Ok(Found::warn("there is no break-glass lane", "spillway help break-glass-lane"));
        };
        if lane.arming != Arming::Open && proxy.state.is_none() {
            return Ok(Found::warn(
                format!("{}, and a restart disarms everybody: there is no state.dir", lane.address),
                "state: { dir: /var/lib/spillway }",
            ));
        }
        if lane.audit.dir.is_none() && proxy.state.is_none() {
            return Ok(Found::warn(
                format!("{}, and no folder for its audit log", lane.address),
                "breakGlass: { audit: { dir: /var/log/spillway } }",
            ));
        }
        Ok(Found::ok(format!("{}, a CA of its own, an audit log", lane.address)))
    })())
}

/// Does the credential for the lane work without kube-apiserver and without a provider?
pub(super) fn kubeconfig(situation: &Situation) -> Found {
    let Some(file) = &situation.break_glass else {
        return Found::skip("no kubeconfig of the lane was named", "--break-glass-kubeconfig FILE");
    };
    let shown = file.display();
    match read_kubeconfig(file) {
        Ok(_) => Found::ok(format!(
            "{shown} has a certificate and a key of its own; spillway break-glass test --kubeconfig {shown}"
        )),
        Err(error) => Found::fail(
            format!("{shown}: {error}"),
            "in an incident only a certificate and key in the file itself can be relied on: spillway break-glass issue",
        ),
    }
}

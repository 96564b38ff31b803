//! Whom would a lever hit, and who of them keeps the cluster alive?
//!
//! An operator who locks the nodes out turns an overload into an outage. So what keeps a cluster alive is refused at
//! first: by name, and by looking at who was here lately. What stays possible with force is the operator's decision;
//! break-glass is out of reach in any case.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::nearest;
use crate::flow::levers::Target;
use crate::gateway::{Client, Recent};
use crate::identity::{GROUP_AUTHENTICATED, GROUP_UNAUTHENTICATED, Identity, USER_ANONYMOUS};
use crate::policy::{ClientKey, Lane};

/// Users that a cluster cannot do without, and what they are.
const VITAL_USERS: [(&str, &str); 6] = [
    ("system:kube-controller-manager", "the controller manager"),
    ("system:kube-scheduler", "the scheduler"),
    ("system:cloud-controller-manager", "the cloud controller manager"),
    ("system:kube-proxy", "kube-proxy"),
    ("system:apiserver", "kube-apiserver itself"),
    ("kube-apiserver", "kube-apiserver itself"),
];
/// Groups that are as good as everybody, or whose members a cluster cannot do without.
const VITAL_GROUPS: [(&str, &str); 6] = [
    ("system:masters", "the cluster's administrators"),
    ("system:nodes", "every kubelet"),
    (GROUP_AUTHENTICATED, "everybody"),
    (GROUP_UNAUTHENTICATED, "everybody whom spillway cannot verify"),
    ("system:serviceaccounts", "every pod"),
    ("system:serviceaccounts:kube-system", "what runs the cluster itself"),
];
/// Service accounts of `kube-system` without which no pod finds another.
const VITAL_ACCOUNTS: [(&str, &str); 4] = [
    ("coredns", "the cluster's DNS"),
    ("kube-dns", "the cluster's DNS"),
    ("node-local-dns", "the cluster's DNS"),
    ("kube-proxy", "kube-proxy"),
];
/// A kubelet's user name begins with it.
const NODE_PREFIX: &str = "system:node:";
/// The namespace of what runs the cluster itself.
const SYSTEM_NAMESPACE: &str = "kube-system";

/// Clients that were here lately and that a target names.
pub(super) fn matching(target: &Target, recent: &Recent) -> Vec<(ClientKey, Arc<Client>)> {
    let names = |client: &Client| match target {
        // Addresses are known apart from the identity.
        Target::Cidr(cidr) => client.peers().into_iter().any(|peer| cidr.contains(peer)),
        _ => target.names(&client.identity, [0, 0, 0, 0].into()),
    };
    recent.all().into_iter().filter(|(_, client)| names(client)).collect()
}

/// Where nobody is named: the name of the same kind, of somebody who was here, that may have been meant.
pub(super) fn near(target: &Target, recent: &Recent) -> Option<String> {
    let mut names: Vec<String> = Vec::new();
    for (_, client) in recent.all() {
        let identity = &client.identity;
        match (target, identity.service_account()) {
            (Target::User(_), _) => names.push(identity.user.clone()),
            (Target::Group(_), _) => names.extend(identity.groups.iter().cloned()),
            (Target::ServiceAccount { .. }, Some((namespace, name))) => {
                names.push(format!("{namespace}/{name}"))
            }
            (Target::Namespace(_), Some((namespace, _))) => names.push(namespace.to_owned()),
            _ => {}
        }
    }
    // Of equally near ones the same is named each time.
    names.sort();
    nearest(&target.name(), names.iter().map(String::as_str)).map(str::to_owned)
}

/// Why a target must not be isolated without force; empty when it may be.
pub(super) fn protected(
    target: &Target,
    clients: &[(ClientKey, Arc<Client>)],
    break_glass: &[String],
) -> Vec<String> {
    let mut reasons: Vec<String> = by_name(target, break_glass).into_iter().collect();
    let mut found: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
    for (_, client) in clients {
        if let Some(what) = vital(&client.identity, &client.lanes()) {
            found.entry(what).or_insert((0, &client.identity.user)).0 += 1;
        }
    }
    for (what, (count, user)) in found {
        reasons.push(match count {
            1 => format!("{user} is among those here lately: {what}"),
            _ => format!("{user} and {} more are among those here lately: {what}", count - 1),
        });
    }
    reasons
}

fn by_name(target: &Target, break_glass: &[String]) -> Option<String> {
    let known = |list: &[(&str, &'static str)], name: &str| {
        list.iter().find(|(known, _)| *known == name).map(|(_, what)| *what)
    };
    let what = match target {
        Target::User(user) if user.starts_with(NODE_PREFIX) => Some("a kubelet"),
        Target::User(user) if user == USER_ANONYMOUS => Some("everybody whom spillway cannot verify"),
        Target::User(user) => known(&VITAL_USERS, user),
        Target::Group(group) if break_glass.contains(group) => Some("the people of the break-glass lane"),
        Target::Group(group) => known(&VITAL_GROUPS, group),
        Target::Namespace(namespace) if namespace == SYSTEM_NAMESPACE => Some("what runs the cluster itself"),
        Target::ServiceAccount { namespace, name } if namespace == SYSTEM_NAMESPACE => {
            known(&VITAL_ACCOUNTS, name)
        }
        Target::ServiceAccount { .. } | Target::Namespace(_) => None,
        Target::Cidr(cidr) if cidr.has_loopback() => Some("this machine, and whoever is proxied to it"),
        Target::Cidr(cidr) if cidr.is_vast() => Some("more addresses than one site has"),
        Target::Cidr(_) => None,
    };
    what.map(|what| format!("{target} is {what}"))
}

/// What makes a caller one that a cluster cannot do without.
fn vital(identity: &Identity, lanes: &[Lane]) -> Option<&'static str> {
    if identity.user.starts_with(NODE_PREFIX) {
        return Some("a kubelet");
    }
    if let Some((_, what)) = VITAL_USERS.iter().find(|(user, _)| *user == identity.user) {
        return Some(what);
    }
    if identity.groups.iter().any(|group| group == "system:masters") {
        return Some("a cluster administrator");
    }
    // Leases and reviews of anybody rank higher still; they are spared anyway.
    lanes.contains(&Lane::Platform).then_some("DNS, the network or storage (lane platform)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Credential;

    fn reason(kind: &str, name: &str) -> Option<String> {
        protected(&Target::parse(kind, name).unwrap(), &[], &["spillway:break-glass".into()]).pop()
    }

    #[test]
    fn what_keeps_a_cluster_alive_is_protected_by_name() {
        for (kind, name) in [
            ("group", "system:masters"),
            ("group", "system:nodes"),
            ("group", "system:authenticated"),
            ("group", "spillway:break-glass"),
            ("user", "system:node:worker-1"),
            ("user", "system:kube-scheduler"),
            ("user", "system:anonymous"),
            ("namespace", "kube-system"),
            ("serviceaccount", "kube-system/coredns"),
            ("cidr", "0.0.0.0/0"),
            ("cidr", "127.0.0.1"),
            ("cidr", "::/0"),
            ("cidr", "8.0.0.0/7"),
        ] {
            assert!(reason(kind, name).is_some(), "{kind} {name}");
        }
        for (kind, name) in [
            ("group", "developers"),
            ("user", "alice"),
            ("namespace", "obs"),
            ("serviceaccount", "obs/agent"),
            ("serviceaccount", "obs/coredns"),
            ("serviceaccount", "kube-system/node-agent"),
            ("cidr", "10.1.2.0/24"),
        ] {
            assert_eq!(reason(kind, name), None, "{kind} {name}");
        }
        assert_eq!(reason("group", "system:nodes").unwrap(), "group system:nodes is every kubelet");
    }

    #[test]
    fn who_was_here_lately_protects_the_address_it_came_from() {
        let mut identity = (*Identity::anonymous()).clone();
        identity.credential = Credential::Certificate;
        for (user, group, lanes, is_vital) in [
            ("system:node:a", "system:nodes", vec![], true),
            ("kubernetes-admin", "system:masters", vec![], true),
            ("system:serviceaccount:net:cni", "", vec![Lane::Platform], true),
            ("system:serviceaccount:obs:agent", "", vec![Lane::NodeHealth, Lane::Telemetry], false),
        ] {
            (identity.user, identity.groups) = (user.into(), vec![group.into()]);
            assert_eq!(vital(&identity, &lanes).is_some(), is_vital, "{user}");
        }
    }
}

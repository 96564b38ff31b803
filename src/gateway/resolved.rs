//! What follows from who the caller is?
//!
//! Which rules can ever match an identity, and the headers that assert it, cost more to work out than a decision.
//! Both stay beside the caller for as long as the policy stays the same: for a certificate that is the life of its
//! connection, for a token the life of its cache entry.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use super::headers::{Assertion, Unassertable};
use super::names::Names;
use super::recent::{Client, Recent};
use crate::authn::{Assert, Caller};
use crate::identity::Identity;
use crate::policy::{ClientKey, Policy, RuleSet};
use crate::upstream::Via;

/// What was derived from a caller.
pub(super) struct Resolved {
    /// Rules whose subject part matches.
    pub(super) subjects: RuleSet,
    /// Which connections its requests take.
    pub(super) via: Via,
    /// The front-proxy headers, for [`Via::FrontProxy`] only.
    pub(super) assertion: Option<Assertion>,
    /// The policy that `subjects` belongs to.
    policy: u64,
    /// Its name was handed on; once is enough.
    named: AtomicBool,
    /// Its entry among those who were here lately.
    client: OnceLock<Arc<Client>>,
}

impl Resolved {
    /// Tells what the client is called, if it proved that.
    pub(super) fn name(&self, names: &Names, client: ClientKey, identity: &Identity) {
        if identity.credential.is_verified() && !self.named.swap(true, Ordering::Relaxed) {
            names.learn(client, &identity.user);
        }
    }

    /// Its entry among those who were here lately.
    pub(super) fn client(
        &self,
        recent: &Recent,
        key: ClientKey,
        identity: &Identity,
        peer: IpAddr,
    ) -> Arc<Client> {
        let client = self.client.get_or_init(|| recent.learn(key, identity, peer));
        // A token may come from several places, and all strangers are one client.
        client.came_from(peer);
        Arc::clone(client)
    }
}

/// What follows from `caller` under `policy`, worked out at most once.
pub(super) fn of(caller: &Caller, policy: &Policy) -> Result<Arc<Resolved>, Unassertable> {
    let kept = caller.memo.look(|kept: &Arc<Resolved>| Arc::clone(kept));
    if let Some(kept) = kept.filter(|kept| kept.policy == policy.id()) {
        return Ok(kept);
    }
    let (via, assertion) = match caller.via {
        Assert::FrontProxy => (Via::FrontProxy, Some(Assertion::of(&caller.identity)?)),
        Assert::Bearer => (Via::Bearer, None),
        Assert::Unverified => (Via::Unverified, None),
    };
    let subjects = policy.subjects(&caller.identity);
    let resolved = Arc::new(Resolved {
        subjects,
        via,
        assertion,
        policy: policy.id(),
        named: AtomicBool::new(false),
        client: OnceLock::new(),
    });
    caller.memo.keep(Arc::clone(&resolved));
    Ok(resolved)
}

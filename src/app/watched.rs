//! Which files does a running proxy follow, and what does each change?
//!
//! One entry for each thing that is swapped as a whole. The files of break-glass are followed by a thread of the lane itself,
//! the policy by `change`. What is nowhere needs a restart: the apiserver's CA and the ProxyConfiguration.

use std::sync::Arc;

use super::expiry::Expiries;
use super::reload::Watch;
use super::{StartError, settings};
use crate::authn::{Authenticator, Material};
use crate::config::{JwtKeys, ProxyConfiguration};
use crate::dashboard::Door;
use crate::server::Tls;
use crate::telemetry::Metrics;
use crate::upstream::Rotation;

/// Everything there is to follow. `serving` are the listeners' TLS sides, in the order of the configuration,
/// `door` is the operators' address.
pub(super) fn all(
    proxy: &ProxyConfiguration,
    authenticator: &Arc<Authenticator>,
    (serving, door): (Vec<Arc<Tls>>, Option<&Arc<Door>>),
    rotation: Option<Rotation>,
    metrics: &Arc<Metrics>,
) -> Watch {
    let mut watch = Watch::new(expiries(proxy), Arc::clone(metrics));
    let listeners: Vec<_> =
        proxy.listeners.iter().map(|listener| settings::tls(&listener.tls)).zip(serving).collect();
    if let Some(certificates) = &proxy.authentication.client_certificate {
        let (authority, listeners) = (authenticator.authority(), listeners.clone());
        let bundle = Material::File(certificates.ca_file.clone());
        watch.add("client_ca", [certificates.ca_file.clone()], move || {
            authority.reload(&bundle)?;
            // For the names of the CAs in the handshake, and for new ticket keys: no session of the old CA is resumed. A
            // serving certificate that cannot be read is another entry's finding and does not hold up this one.
            for (settings, tls) in &listeners {
                if let Err(error) = tls.reload(settings, Arc::clone(&authority)) {
                    tracing::warn!(%error, "the handshake still names the client CAs of before");
                }
            }
            Ok::<_, crate::authn::certificate::AuthorityError>(())
        });
        if let Some(file) = &certificates.deny_file {
            let (authority, list) = (authenticator.authority(), Material::File(file.clone()));
            watch.add("deny_list", [file.clone()], move || authority.deny(&list));
        }
    }
    for (listener, (settings, tls)) in proxy.listeners.iter().zip(listeners) {
        let authority = authenticator.authority();
        let files = [listener.tls.cert_file.clone(), listener.tls.key_file.clone()];
        watch.add("serving", files, move || tls.reload(&settings, Arc::clone(&authority)));
    }
    if let (Some(https), Some(door)) = (&proxy.admin.https, door) {
        let (files, door) = ([https.tls.cert_file.clone(), https.tls.key_file.clone()], Arc::clone(door));
        watch.add("admin", files, move || door.load());
    }
    if let (Some(files), Some(rotation)) = (&proxy.upstreams.forward_identity.front_proxy, rotation) {
        let (watched, files) = ([files.cert_file.clone(), files.key_file.clone()], files.clone());
        watch.add("front_proxy", watched, move || {
            Ok::<_, StartError>(rotation.replace(&settings::front_proxy(&files)?)?)
        });
    }
    let authenticator = Arc::clone(authenticator);
    let keys = token_keys(proxy);
    if !keys.is_empty() {
        watch.add("token_keys", keys, move || authenticator.reload_keys());
    }
    watch
}

fn token_keys(proxy: &ProxyConfiguration) -> Vec<std::path::PathBuf> {
    let authentication = &proxy.authentication;
    let accounts = authentication.service_account_token.iter();
    let accounts = accounts.flat_map(|tokens| tokens.public_key_files.iter().chain(&tokens.jwks_file));
    let providers = authentication.jwt.iter().filter_map(|provider| match &provider.issuer.keys {
        JwtKeys::File(file) => Some(file),
        JwtKeys::Url { .. } => None,
    });
    accounts.chain(providers).cloned().collect()
}

fn expiries(proxy: &ProxyConfiguration) -> Expiries {
    let mut expiries = Expiries::default();
    for listener in &proxy.listeners {
        let label = format!("serving_{}", listener.name);
        expiries.add(label, Material::File(listener.tls.cert_file.clone()));
    }
    if let Some(lane) = &proxy.break_glass {
        expiries.add("break_glass", Material::File(lane.tls.cert_file.clone()));
        expiries.add("break_glass_ca", Material::File(lane.client_ca_file.clone()));
    }
    if let Some(front_proxy) = &proxy.upstreams.forward_identity.front_proxy {
        expiries.add("front_proxy", Material::File(front_proxy.cert_file.clone()));
    }
    if let Some(https) = &proxy.admin.https {
        expiries.add("admin", Material::File(https.tls.cert_file.clone()));
    }
    if let Some(certificates) = &proxy.authentication.client_certificate {
        expiries.add("client_ca", Material::File(certificates.ca_file.clone()));
    }
    expiries.add("upstream_ca", Material::File(proxy.upstreams.tls.ca_file.clone()));
    expiries
}

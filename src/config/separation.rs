//! Is whoever signs one kind of certificate apart from whoever signs another?
//!
//! Three circles of trust must not touch: clients, the front proxy (which may say who somebody else is) and break-glass.
//! If the CA that signs clients has signed the front-proxy certificate, kube-apiserver believes `X-Remote-User` of any
//! client whose name it lets through, and a kubelet is an administrator. Asked by signature and by content, because file
//! names prove nothing. What a CA will sign later, nobody can see here.

use std::time::Duration;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::diagnostic::{Code, Diagnostic};
use super::files::{FileUse, read_bounded};

const CLIENTS: &str = "authentication.clientCertificate.caFile";
const FRONT_PROXY: &str = "upstreams.forwardIdentity.frontProxy.certFile";
const BREAK_GLASS: &str = "breakGlass.clientCAFile";

/// What is wrong between the files. Files that cannot be read are another finding.
pub(super) fn check(uses: &[FileUse]) -> Vec<Diagnostic> {
    let named = |key: &str| uses.iter().find(|wanted| wanted.key == key);
    let mut found = Vec::new();
    let bundles = [
        (CLIENTS, "the cluster's client CA", "any client's certificate could"),
        (BREAK_GLASS, "the break-glass CA", "any break-glass certificate could"),
    ];
    if let Some(front_proxy) = named(FRONT_PROXY) {
        let chain = certificates(front_proxy);
        for (key, name, danger) in bundles {
            let Some(bundle) = named(key) else { continue };
            if has_signed(&certificates(bundle), &chain) {
                found.push(
                    Diagnostic::new(
                        Code::FrontProxyOfClientCa,
                        format!("the front-proxy certificate is signed by {name}"),
                    )
                    .at(front_proxy.place.clone())
                    .label(format!("{danger} say who somebody else is"))
                    .help(
                        "sign it with a CA of its own, and name that one in kube-apiserver's \
                         --requestheader-client-ca-file (kubeadm: front-proxy-ca.crt)",
                    ),
                );
            }
        }
    }
    if let (Some(clients), Some(break_glass)) = (named(CLIENTS), named(BREAK_GLASS))
        && clients.path != break_glass.path
    {
        let theirs = certificates(clients);
        if certificates(break_glass).iter().any(|ca| theirs.contains(ca)) {
            let message =
                "the break-glass lane trusts a CA of the cluster's clients: every kubelet could enter";
            found.push(
                Diagnostic::new(Code::BreakGlassClientCa, message)
                    .at(break_glass.place.clone())
                    .label("needs a CA of its own"),
            );
        }
    }
    found
}

fn certificates(wanted: &FileUse) -> Vec<CertificateDer<'static>> {
    let pem = read_bounded(&wanted.path).unwrap_or_default();
    let found = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok);
    found.filter(|certificate| X509Certificate::from_der(certificate).is_ok()).collect()
}

/// Whether the chain leads to one of `authorities`, judged at a moment when its leaf was valid: what has expired since
/// was signed all the same.
fn has_signed(authorities: &[CertificateDer<'_>], chain: &[CertificateDer<'_>]) -> bool {
    let Some((leaf, intermediates)) = chain.split_first() else { return false };
    let Ok((_, facts)) = X509Certificate::from_der(leaf) else { return false };
    let begun = u64::try_from(facts.validity().not_before.timestamp()).unwrap_or(0);
    let at = UnixTime::since_unix_epoch(Duration::from_secs(begun));
    let anchors: Vec<TrustAnchor<'_>> =
        authorities.iter().filter_map(|ca| webpki::anchor_from_trusted_cert(ca).ok()).collect();
    let Ok(leaf) = webpki::EndEntityCert::try_from(leaf) else { return false };
    let (algorithms, usage) = (webpki::ALL_VERIFICATION_ALGS, webpki::KeyUsage::client_auth());
    leaf.verify_for_usage(algorithms, &anchors, intermediates, at, usage, None, None).is_ok()
}

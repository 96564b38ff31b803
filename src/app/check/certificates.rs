//! Are certificates for the right names, in time, and signed by whom they should be?

use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{Found, Situation, either};
use crate::authn::{Material, certificate};
use crate::config::{Code, ProxyConfiguration};

/// A certificate that ends within this time is told: kubeadm's last a year, and an upgrade renews them.
const SOON: Duration = Duration::from_secs(30 * 24 * 3_600);
/// Names by which pods reach kube-apiserver.
const SERVICE_NAMES: [&str; 3] = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"];

/// The certificates of a PEM file.
pub(super) fn read(file: &Path) -> Vec<CertificateDer<'static>> {
    let pem = std::fs::read(file).unwrap_or_default();
    CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok).collect()
}

/// DNS names and addresses of a certificate.
fn names(certificate: &CertificateDer<'_>) -> Option<(Vec<String>, Vec<IpAddr>)> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let extension = certificate.subject_alternative_name().ok()??;
    let (mut dns, mut ips) = (Vec::new(), Vec::new());
    for name in &extension.value.general_names {
        match name {
            GeneralName::DNSName(name) => dns.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => match **bytes {
                [a, b, c, d] => ips.push(IpAddr::from([a, b, c, d])),
                ref bytes => ips.extend(<[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)),
            },
            _ => {}
        }
    }
    Some((dns, ips))
}

/// Do the serving certificates have the names that clients use?
pub(super) fn serving_names(situation: &Situation) -> Found {
    either((|| {
        let proxy = situation.proxy()?;
        let (mut missing, mut odd) = (Vec::new(), Vec::new());
        for listener in &proxy.listeners {
            let file = listener.tls.cert_file.display();
            let Some((dns, ips)) = read(&listener.tls.cert_file).first().and_then(names) else {
                missing.push(format!("{file} has no names at all, or cannot be read"));
                continue;
            };
            let ip = listener.address.ip();
            if !ip.is_unspecified() && !ips.contains(&ip) {
                missing.push(format!("{file} is not for {ip}, where listener {} is", listener.name));
            }
            let service: Vec<&str> =
                SERVICE_NAMES.into_iter().filter(|name| !dns.iter().any(|known| known == name)).collect();
            if !service.is_empty() {
                odd.push(format!("{file} is not for {}", service.join(", ")));
            }
        }
        let advice = "kubeadm: add the name to apiServer.certSANs, then kubeadm init phase certs apiserver";
        if !missing.is_empty() {
            return Ok(Found::fail(missing.join("; "), advice));
        }
        if !odd.is_empty() {
            return Ok(Found::warn(
                format!("{}: pods that use the Service would turn away", odd.join("; ")),
                advice,
            ));
        }
        Ok(Found::ok(
            "every listener's address and the names of the kubernetes Service are in its certificate",
        ))
    })())
}

fn dated(proxy: &ProxyConfiguration) -> Vec<(String, &Path)> {
    let mut files: Vec<(String, &Path)> = proxy
        .listeners
        .iter()
        .map(|listener| (format!("listener {}", listener.name), listener.tls.cert_file.as_path()))
        .collect();
    if let Some(lane) = &proxy.break_glass {
        files.push(("break-glass".to_owned(), &lane.tls.cert_file));
        files.push(("break-glass CA".to_owned(), &lane.client_ca_file));
    }
    if let Some(front_proxy) = &proxy.upstreams.forward_identity.front_proxy {
        files.push(("front proxy".to_owned(), &front_proxy.cert_file));
    }
    if let Some(clients) = &proxy.authentication.client_certificate {
        files.push(("client CA".to_owned(), &clients.ca_file));
    }
    files.push(("upstream CA".to_owned(), &proxy.upstreams.tls.ca_file));
    files
}

/// Does one of them end soon?
pub(super) fn expiring(situation: &Situation) -> Found {
    either((|| {
        let files = dated(situation.proxy()?);
        let ends = files.iter().filter_map(|(name, file)| {
            certificate::end(&Material::File(file.to_path_buf())).map(|end| (end, name, file))
        });
        let Some((end, name, file)) = ends.min_by_key(|(end, _, _)| *end) else {
            return Ok(Found::skip("no certificate can be read", "see SPW-CFG-001"));
        };
        Ok(judge_end(end, situation.now, name, file))
    })())
}

fn judge_end(end: SystemTime, now: SystemTime, name: &str, file: &Path) -> Found {
    let file = file.display();
    let days = |time: Duration| time.as_secs() / 86_400;
    let advice =
        "kubeadm certs renew all, or renew it where it comes from; spillway reads it again by itself";
    match end.duration_since(now) {
        Ok(left) if left > SOON => {
            Found::ok(format!("the first to end is that of {name}, in {} days", days(left)))
        }
        Ok(left) => Found::warn(format!("{name}: {file} ends in {} days", days(left)), advice),
        Err(over) => Found::fail(format!("{name}: {file} ended {} days ago", days(over.duration())), advice),
    }
}

/// What the configuration's own checks found of this kind.
fn found_of(situation: &Situation, codes: &[Code]) -> Option<Found> {
    let found = match &situation.loaded {
        Ok(loaded) => &loaded.warnings,
        Err(found) => found,
    };
    let mut of_them = found.0.iter().filter(|found| codes.contains(&found.code));
    let first = of_them.next()?;
    let more = of_them.count();
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    let advice = first.help.clone().unwrap_or_else(|| format!("spillway help {}", first.code));
    Some(Found::fail(format!("{}: {}{more}", first.code, first.message), advice))
}

/// May others read a private key?
pub(super) fn keys(situation: &Situation) -> Found {
    found_of(situation, &[Code::KeyExposed]).unwrap_or_else(|| match &situation.loaded {
        Ok(_) => Found::ok("no private key may be read or changed by others"),
        Err(_) => situation.unusable(),
    })
}

/// Could one CA be taken for another?
pub(super) fn apart(situation: &Situation) -> Found {
    found_of(situation, &[Code::FrontProxyOfClientCa, Code::BreakGlassClientCa]).unwrap_or_else(|| {
        match &situation.loaded {
            Ok(_) => Found::ok("clients, front proxy and break-glass have CAs of their own"),
            Err(_) => situation.unusable(),
        }
    })
}

/// Will clients that trust kube-apiserver trust spillway?
pub(super) fn trusted(situation: &Situation) -> Found {
    either((|| {
        let proxy = situation.proxy()?;
        let roots = read(&proxy.upstreams.tls.ca_file);
        let strange: Vec<String> = proxy
            .listeners
            .iter()
            .filter(|listener| !has_signed(&roots, &read(&listener.tls.cert_file)))
            .map(|listener| listener.tls.cert_file.display().to_string())
            .collect();
        if strange.is_empty() {
            return Ok(Found::ok("the CA that signed kube-apiserver's certificate signed spillway's"));
        }
        Ok(Found::warn(
            format!("{} is not signed by {}", strange.join(", "), proxy.upstreams.tls.ca_file.display()),
            "every kubeconfig and every pod must trust its CA; simplest is kube-apiserver's own certificate",
        ))
    })())
}

/// Whether the chain leads to one of `authorities`, judged when its leaf was valid: time is another question.
fn has_signed(authorities: &[CertificateDer<'_>], chain: &[CertificateDer<'_>]) -> bool {
    let Some((leaf, intermediates)) = chain.split_first() else { return false };
    let Ok((_, facts)) = X509Certificate::from_der(leaf) else { return false };
    let begun = u64::try_from(facts.validity().not_before.timestamp()).unwrap_or(0);
    let at = UnixTime::since_unix_epoch(Duration::from_secs(begun));
    let anchors: Vec<TrustAnchor<'_>> =
        authorities.iter().filter_map(|ca| webpki::anchor_from_trusted_cert(ca).ok()).collect();
    let Ok(leaf) = webpki::EndEntityCert::try_from(leaf) else { return false };
    let (algorithms, usage) = (webpki::ALL_VERIFICATION_ALGS, webpki::KeyUsage::server_auth());
    leaf.verify_for_usage(algorithms, &anchors, intermediates, at, usage, None, None).is_ok()
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::app::check::Verdict;

    #[test]
    fn an_end_is_told_before_it_comes_and_fails_after() {
        let day = Duration::from_secs(86_400);
        let (now, file) = (UNIX_EPOCH + 1_000 * day, Path::new("a.crt"));
        for (end, verdict, words) in [
            (now + 31 * day, Verdict::Ok, "in 31 days"),
            (now + 30 * day, Verdict::Warning, "ends in 30 days"),
            (now - 2 * day, Verdict::Failed, "ended 2 days ago"),
        ] {
            let found = judge_end(end, now, "listener main", file);
            assert_eq!(found.verdict, verdict);
            assert!(found.what.contains(words), "{}", found.what);
        }
    }
}

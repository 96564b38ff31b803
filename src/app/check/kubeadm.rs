//! Does kube-apiserver's static pod still look as the installation needs it?
//!
//! An upgrade without `--patches` silently writes the manifest anew, and then kube-apiserver has the node's address back.
//! Only files are read.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use serde_json::Value;

use super::apiserver::minor_of;
use super::{Found, Situation, either};

/// The oldest minor version of kube-apiserver that is tried with the generated manifest.
const MINOR_MIN: u32 = 29;

/// What is read of a manifest.
struct Manifest {
    shown: String,
    container: Value,
}

impl Manifest {
    fn read(situation: &Situation) -> Result<Self, Found> {
        let Some(file) = &situation.manifest else {
            let advice = "on a kubeadm node: --manifest /etc/kubernetes/manifests/kube-apiserver.yaml";
            return Err(Found::skip("there is no static pod of kube-apiserver here", advice));
        };
        let shown = file.display().to_string();
        let text = std::fs::read_to_string(file)
            .map_err(|error| Found::skip(format!("{shown}: {error}"), "try with sudo"))?;
        let pod: Value = serde_saphyr::from_str(&text).map_err(|error| {
            Found::fail(format!("{shown} is not YAML: {error}"), "restore it from its backup")
        })?;
        let containers = pod["spec"]["containers"].as_array().cloned().unwrap_or_default();
        let container = containers.into_iter().find(|container| container["name"] == "kube-apiserver");
        let container = container.ok_or_else(|| {
            Found::fail(
                format!("{shown} has no container kube-apiserver"),
                "name the right file with --manifest",
            )
        })?;
        Ok(Self { shown, container })
    }

    /// The value of a flag; the last one counts.
    fn flag(&self, name: &str) -> Option<&str> {
        let words = ["command", "args"].iter().filter_map(|key| self.container[*key].as_array()).flatten();
        let prefix = format!("--{name}=");
        words.filter_map(Value::as_str).filter_map(|word| word.strip_prefix(&prefix)).next_back()
    }
}

/// Is kube-apiserver on loopback, and spillway where it is advertised?
pub(super) fn address_split(situation: &Situation) -> Found {
    either((|| {
        let manifest = Manifest::read(situation)?;
        let proxy = situation.proxy()?;
        let upstream = proxy.upstreams.server.address;
        let shown = &manifest.shown;
        let again = "spillway manifest kubeadm-patch, then kubeadm upgrade node --patches DIR; see spillway help install";
        let port = manifest.flag("secure-port").unwrap_or("6443");
        if port != upstream.port().to_string() {
            return Ok(Found::fail(
                format!("{shown}: --secure-port={port}, but upstreams names port {}", upstream.port()),
                "correct upstreams.servers",
            ));
        }
        if !upstream.ip().is_loopback() {
            return Ok(Found::ok("side port: kube-apiserver keeps its address"));
        }
        let bound = manifest.flag("bind-address").unwrap_or("0.0.0.0 (the default)");
        if !bound.parse::<IpAddr>().is_ok_and(|bound| bound.is_loopback()) {
            return Ok(Found::fail(
                format!("{shown}: --bind-address is {bound}, expected {}", upstream.ip()),
                again,
            ));
        }
        let Some(advertised) =
            manifest.flag("advertise-address").and_then(|text| text.parse::<IpAddr>().ok())
        else {
            let advice =
                "kubeadm sets --advertise-address; without it the kubernetes Service has a wrong endpoint";
            return Ok(Found::fail(format!("{shown} has no --advertise-address"), advice));
        };
        let is_here = |listener: &crate::config::Listener| {
            let ip = listener.address.ip();
            listener.address.port() == upstream.port() && (ip == advertised || ip.is_unspecified())
        };
        if !proxy.listeners.iter().any(is_here) {
            return Ok(Found::fail(
                format!(
                    "pods are sent to {}, and no listener is there",
                    SocketAddr::new(advertised, upstream.port())
                ),
                "a listener needs the advertised address and kube-apiserver's port",
            ));
        }
        Ok(Found::ok(format!("kube-apiserver on {bound}, spillway on {advertised}, the advertised address")))
    })())
}

/// Do its probes ask kube-apiserver itself?
pub(super) fn probes(situation: &Situation) -> Found {
    either((|| {
        let manifest = Manifest::read(situation)?;
        if !situation.proxy()?.upstreams.server.address.ip().is_loopback() {
            return Ok(Found::ok("side port: the probes stay as they are"));
        }
        let probes = ["livenessProbe", "readinessProbe", "startupProbe"];
        let is_elsewhere = |probe: &&str| {
            let get = &manifest.container[*probe]["httpGet"];
            let host = get["host"].as_str().and_then(|host| host.parse::<IpAddr>().ok());
            get.is_object() && !host.is_some_and(|host| host.is_loopback())
        };
        let elsewhere: Vec<&str> = probes.into_iter().filter(is_elsewhere).collect();
        if elsewhere.is_empty() {
            return Ok(Found::ok("liveness, readiness and startup ask kube-apiserver on loopback"));
        }
        Ok(Found::fail(
            format!(
                "{}: {} do not ask 127.0.0.1: a kubelet would restart kube-apiserver for spillway",
                manifest.shown,
                elsewhere.join(", ")
            ),
            "spillway manifest kubeadm-patch has the right probes",
        ))
    })())
}

/// Are the files that both use the same?
pub(super) fn same_files(situation: &Situation) -> Found {
    either((|| {
        let manifest = Manifest::read(situation)?;
        let proxy = situation.proxy()?;
        let clients =
            proxy.authentication.client_certificate.as_ref().map(|clients| clients.ca_file.as_path());
        let tokens = proxy.authentication.service_account_token.as_ref();
        let mut differ = Vec::new();
        if let (Some(theirs), Some(ours)) = (manifest.flag("client-ca-file"), clients)
            && differs(Path::new(theirs), ours)
        {
            differ.push(format!(
                "--client-ca-file={theirs}, and clientCertificate.caFile is {}",
                ours.display()
            ));
        }
        if let (Some(theirs), Some(ours)) = (manifest.flag("service-account-issuer"), tokens)
            && !ours.issuers.iter().any(|issuer| issuer == theirs)
        {
            differ.push(format!("--service-account-issuer={theirs} is none of serviceAccountToken.issuers"));
        }
        if let (Some(theirs), Some(ours)) = (manifest.flag("service-account-key-file"), tokens)
            && !ours.public_key_files.is_empty()
            && ours.public_key_files.iter().all(|file| differs(Path::new(theirs), file))
        {
            differ.push(format!("--service-account-key-file={theirs} is none of publicKeyFiles"));
        }
        let ca = manifest.flag("requestheader-client-ca-file");
        if proxy.upstreams.forward_identity.front_proxy.is_some() && ca.is_none() {
            differ.push(
                "there is no --requestheader-client-ca-file: whom spillway names is not believed".to_owned(),
            );
        }
        if differ.is_empty() {
            return Ok(Found::ok("client CA, token keys and issuer are kube-apiserver's own"));
        }
        Ok(Found::fail(
            format!("{}: {}", manifest.shown, differ.join("; ")),
            "both must judge credentials alike: name the same files in the configuration",
        ))
    })())
}

/// Whether two files hold something else; one that is not here (another mount) is not judged.
fn differs(one: &Path, other: &Path) -> bool {
    if one == other {
        return false;
    }
    match (std::fs::read(one), std::fs::read(other)) {
        (Ok(one), Ok(other)) => one != other,
        _ => one.file_name() != other.file_name(),
    }
}

/// Is it a version whose manifest is known?
pub(super) fn version(situation: &Situation) -> Found {
    either((|| {
        let manifest = Manifest::read(situation)?;
        let image = manifest.container["image"].as_str().unwrap_or_default();
        let Some(minor) = image.rsplit_once(':').and_then(|(_, tag)| minor_of(tag)) else {
            return Ok(Found::skip(format!("{image:?} does not say its version"), "kubectl version"));
        };
        if minor < MINOR_MIN {
            return Ok(Found::warn(
                format!("{image}: the patches were never tried with anything before 1.{MINOR_MIN}"),
                "compare the manifest with the patches by hand, and begin with --mode side-port",
            ));
        }
        let families =
            manifest.flag("service-cluster-ip-range").map_or(0, |ranges| ranges.split(',').count());
        let dual = if families > 1 {
            "; dual stack: the kubernetes Service has the advertised family only"
        } else {
            ""
        };
        Ok(Found::ok(format!("{image}{dual}")))
    })())
}

//! What does the demo need from the proxy, and the proxy from the demo?
//!
//! The demo does not know how spillway is started, only that something can be: `app` brings it, tests bring something
//! smaller. Files are how spillway gets its keys in production, so the demo writes files.

use std::any::Any;
use std::error::Error;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;

use super::DemoError;
use super::pki::{ISSUER, Leaf, Pki};

/// What a proxy in front of the modelled apiserver is configured with.
#[derive(Clone, Debug)]
pub struct ProxyInputs {
    /// Directory for files of the proxy's own; removed after the demo.
    pub directory: PathBuf,
    /// The modelled apiserver, TLS on the loopback address.
    pub upstream: SocketAddr,
    /// The name in the apiserver's certificate.
    pub upstream_name: &'static str,
    /// The CA of the apiserver's certificate, PEM.
    pub upstream_ca_file: PathBuf,
    /// The serving certificate for the proxy, PEM: clients expect the apiserver's names.
    pub serving_certificate_file: PathBuf,
    /// The serving certificate's key, PEM.
    pub serving_key_file: PathBuf,
    /// The CA of client certificates, PEM.
    pub client_ca_file: PathBuf,
    /// The certificate with which the proxy may assert identities, PEM.
    pub front_proxy_certificate_file: PathBuf,
    /// Its key, PEM.
    pub front_proxy_key_file: PathBuf,
    /// The public key of service-account tokens (`sa.pub`), PEM.
    pub service_account_key_file: PathBuf,
    /// Issuer and audience of service-account tokens.
    pub service_account_issuer: &'static str,
    /// The CA of break-glass certificates, PEM.
    pub break_glass_ca_file: PathBuf,
}

/// A proxy that runs. Dropping it must stop it.
pub struct RunningProxy {
    /// Where clients connect to.
    pub address: SocketAddr,
    /// Where Prometheus metrics are, if anywhere.
    pub metrics_address: Option<SocketAddr>,
    /// The break-glass listener, if there is one.
    pub break_glass_address: Option<SocketAddr>,
    /// Where `spillway status` and the levers ask, if anywhere.
    pub admin_socket: Option<PathBuf>,
    /// Whatever keeps it running.
    pub running: Box<dyn Any + Send>,
}

/// How the demo gets its proxy for the second half.
pub trait Stage {
    /// Starts a proxy; it must accept connections when this returns. Called outside any asynchronous runtime.
    ///
    /// # Errors
    /// Whatever kept it from starting; the demo shows it and ends.
    fn start(&self, inputs: &ProxyInputs) -> Result<RunningProxy, Box<dyn Error + Send + Sync>>;
}

impl<F> Stage for F
where
    F: Fn(&ProxyInputs) -> Result<RunningProxy, Box<dyn Error + Send + Sync>>,
{
    fn start(&self, inputs: &ProxyInputs) -> Result<RunningProxy, Box<dyn Error + Send + Sync>> {
        self(inputs)
    }
}

/// The demo's directory of keys; readable by its owner only, removed on drop.
pub(crate) struct Files {
    directory: TempDir,
}

impl Files {
    pub(crate) fn new() -> Result<Self, DemoError> {
        let failed = |source| DemoError::Io { what: "make a temporary directory", source };
        // `tempfile` makes directories with mode 0700: private keys go in.
        let directory = tempfile::Builder::new().prefix("spillway-demo-").tempdir().map_err(failed)?;
        Ok(Self { directory })
    }

    /// Writes what a proxy needs.
    pub(crate) fn proxy_inputs(&self, pki: &Pki, upstream: SocketAddr) -> Result<ProxyInputs, DemoError> {
        let write = |name: &str, text: &str| self.write(name, text);
        Ok(ProxyInputs {
            directory: self.directory.path().to_owned(),
            upstream,
            upstream_name: "kubernetes",
            upstream_ca_file: write("serving-ca.crt", &pki.serving_ca.pem())?,
            serving_certificate_file: write("apiserver.crt", &pki.serving.certificate_pem)?,
            serving_key_file: write("apiserver.key", &pki.serving.key_pem)?,
            client_ca_file: write("ca.crt", &pki.client_ca.pem())?,
            front_proxy_certificate_file: write("front-proxy-client.crt", &pki.front_proxy.certificate_pem)?,
            front_proxy_key_file: write("front-proxy-client.key", &pki.front_proxy.key_pem)?,
            service_account_key_file: write("sa.pub", pki.tokens.public_pem())?,
            service_account_issuer: ISSUER,
            break_glass_ca_file: write("break-glass-ca.crt", &pki.break_glass_ca.pem())?,
        })
    }

    /// Writes a kubeconfig with which a real kubectl calls `address` as the owner of `leaf`.
    pub(crate) fn kubeconfig(
        &self,
        name: &str,
        pki: &Pki,
        address: SocketAddr,
        leaf: &Leaf,
    ) -> Result<PathBuf, DemoError> {
        let encode = |pem: &str| STANDARD.encode(pem);
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: demo\n\
             clusters:\n- name: demo\n  cluster:\n    server: https://{address}\n    certificate-authority-data: {ca}\n\
             users:\n- name: person\n  user:\n    client-certificate-data: {certificate}\n    client-key-data: {key}\n\
             contexts:\n- name: demo\n  context:\n    cluster: demo\n    user: person\n",
            ca = encode(&pki.serving_ca.pem()),
            certificate = encode(&leaf.certificate_pem),
            key = encode(&leaf.key_pem),
        );
        self.write(name, &text)
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf, DemoError> {
        let path = self.directory.path().join(name);
        write_private(&path, text).map_err(|source| DemoError::Io { what: "write its keys", source })?;
        Ok(path)
    }
}

/// The directory is private already; the file is too, for tools that check key files.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
}

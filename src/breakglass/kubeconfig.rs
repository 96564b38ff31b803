//! How does a person's kubectl find the lane?
//!
//! By one file that holds everything: address, the cluster's CA, certificate and key. Nothing in it points to another
//! file, so it can lie in a safe and be used on a strange laptop. Reading one back takes the fields that
//! `spillway break-glass test` and `arm` need, of whatever else kubectl may have put there.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::ledger;

/// Bytes of a kubeconfig that are read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where the lane is, and with what to go there.
#[derive(Clone, Debug)]
pub struct Access {
    /// `https://HOST:PORT`.
    pub server: String,
    /// PEM of the CAs that may have signed the lane's serving certificate.
    pub cluster_ca_pem: String,
    /// PEM of the person's certificate.
    pub certificate_pem: String,
    /// PEM of its key.
    pub key_pem: String,
    /// The name expected in the serving certificate, where it is not the host of `server`.
    pub server_name: Option<String>,
}

/// A kubeconfig that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path} cannot be used as a kubeconfig: {why}")]
pub struct KubeconfigError {
    path: String,
    why: String,
}

/// Whether `server` is an address that a kubeconfig can name: `https://HOST[:PORT]`.
#[must_use]
pub fn is_server(server: &str) -> bool {
    server.strip_prefix("https://").is_some_and(|rest| {
        !rest.is_empty() && rest.trim_end_matches('/').parse::<http::uri::Authority>().is_ok()
    })
}

/// The text of a kubeconfig for `user`.
#[must_use]
pub fn write(access: &Access, user: &str) -> String {
    let encode = |pem: &str| STANDARD.encode(pem);
    let quote = |text: &str| serde_json::Value::from(text).to_string();
    let name = quote(&format!("{user} (break-glass)"));
    format!(
        "# spillway break-glass: {user}. Whoever has this file is {user}: keep it sealed, mode 0600.\n\
         apiVersion: v1\nkind: Config\ncurrent-context: break-glass\n\
         contexts:\n- name: break-glass\n  context: {{ cluster: break-glass, user: {name} }}\n\
         clusters:\n- name: break-glass\n  cluster:\n    server: {}\n    certificate-authority-data: {}\n\
         users:\n- name: {name}\n  user:\n    client-certificate-data: {}\n    client-key-data: {}\n",
        quote(&access.server),
        encode(&access.cluster_ca_pem),
        encode(&access.certificate_pem),
        encode(&access.key_pem),
    )
}

/// Reads a kubeconfig by its current context.
///
/// # Errors
/// When it is none, or has no client certificate.
pub fn read(path: &Path) -> Result<Access, KubeconfigError> {
    let fail = |why: String| KubeconfigError { path: path.display().to_string(), why };
    let text = ledger::read_text(path, FILE_BYTES_MAX).map_err(|error| fail(error.to_string()))?;
    let file: File =
        serde_saphyr::from_str(&text).map_err(|error| fail(format!("it is no kubeconfig ({error})")))?;
    let wanted = file.current_context.as_deref().unwrap_or_default();
    let context = file
        .contexts
        .iter()
        .find(|context| context.name == wanted)
        .ok_or_else(|| fail(format!("its current-context {wanted:?} is not in it")))?;
    let cluster = file
        .clusters
        .iter()
        .find(|cluster| cluster.name == context.context.cluster)
        .ok_or_else(|| fail(format!("it has no cluster {:?}", context.context.cluster)))?;
    let user = file
        .users
        .iter()
        .find(|user| user.name == context.context.user)
        .ok_or_else(|| fail(format!("it has no user {:?}", context.context.user)))?;
    if !is_server(&cluster.cluster.server) {
        return Err(fail(format!("its server {:?} is not https://HOST:PORT", cluster.cluster.server)));
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    let part = |what: &str, encoded: &Option<String>, file: &Option<PathBuf>| {
        pem(folder, encoded.as_deref(), file.as_deref()).map_err(|why| fail(format!("{what}: {why}")))
    };
    let ClusterEntry { certificate_authority_data, certificate_authority, .. } = &cluster.cluster;
    let UserEntry { client_certificate_data, client_certificate, client_key_data, client_key } = &user.user;
    Ok(Access {
        server: cluster.cluster.server.clone(),
        server_name: cluster.cluster.tls_server_name.clone(),
        cluster_ca_pem: part("certificate-authority", certificate_authority_data, certificate_authority)?,
        certificate_pem: part("client-certificate", client_certificate_data, client_certificate)?,
        key_pem: part("client-key", client_key_data, client_key)?,
    })
}

fn pem(folder: &Path, encoded: Option<&str>, file: Option<&Path>) -> Result<String, String> {
    match (encoded, file) {
        (Some(encoded), _) => {
            let bytes = STANDARD.decode(encoded).map_err(|_| "not base64".to_owned())?;
            String::from_utf8(bytes).map_err(|_| "not PEM".to_owned())
        }
        (None, Some(file)) => {
            ledger::read_text(&folder.join(file), FILE_BYTES_MAX).map_err(|error| error.to_string())
        }
        (None, None) => Err("it is missing, and the lane knows people by certificates alone".to_owned()),
    }
}

#[derive(Deserialize)]
struct File {
    #[serde(rename = "current-context")]
    current_context: Option<String>,
    #[serde(default)]
    contexts: Vec<NamedContext>,
    #[serde(default)]
    clusters: Vec<NamedCluster>,
    #[serde(default)]
    users: Vec<NamedUser>,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: ContextEntry,
}

#[derive(Deserialize)]
struct ContextEntry {
    cluster: String,
    user: String,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: ClusterEntry,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct ClusterEntry {
    server: String,
    tls_server_name: Option<String>,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    user: UserEntry,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct UserEntry {
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("kubeconfig");
        let access = Access {
            server: "https://10.0.0.11:6444".into(),
            cluster_ca_pem: "ca\n".into(),
            certificate_pem: "certificate\n".into(),
            key_pem: "key\n".into(),
            server_name: None,
        };
        std::fs::write(&file, write(&access, "alice@corp")).unwrap();
        let read = read(&file).unwrap();
        assert_eq!((read.server, read.cluster_ca_pem), (access.server, access.cluster_ca_pem));
        assert_eq!((read.certificate_pem, read.key_pem), (access.certificate_pem, access.key_pem));
    }

    #[test]
    fn what_is_missing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("kubeconfig");
        for (text, expected) in [
            ("{}", "current-context"),
            ("[1, 2]", "no kubeconfig"),
            ("current-context: a\ncontexts: [{name: a, context: {cluster: c, user: u}}]", "no cluster \"c\""),
            (
                "current-context: a\ncontexts: [{name: a, context: {cluster: c, user: u}}]\n\
                 clusters: [{name: c, cluster: {server: 'https://1.2.3.4:6444', certificate-authority-data: YQ==}}]\n\
                 users: [{name: u, user: {token: t}}]",
                "client-certificate: it is missing",
            ),
        ] {
            std::fs::write(&file, text).unwrap();
            let error = read(&file).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert!(is_server("https://lane:6444") && !is_server("http://lane:6444") && !is_server("https://"));
    }
}

//! Talking to the cluster as somebody: credentials, kubeconfigs, the real kubectl.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
};

use serde_json::{Value, json};

use super::{Cluster, Pair};

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) enum Credential {
    /// A client certificate.
    Certificate(Pair),
    /// A bearer token.
    Token(String),
    /// Nothing: anonymous.
    None,
}

impl Cluster {
    /// `CN=admin, O=system:masters`.
    pub(crate) fn admin(&self) -> Credential {
        Credential::Certificate(self.paths.admin.clone())
    }

    /// The operator: `CN=alice, O=platform-oncall, O=platform-viewers`.
    pub(crate) fn alice(&self) -> Credential {
        Credential::Certificate(self.paths.alice.clone())
    }

    /// The person with the certificate of the break-glass CA. kube-apiserver itself does not trust that CA.
    pub(crate) fn break_glass(&self) -> Credential {
        Credential::Certificate(self.paths.break_glass.clone())
    }

    /// A kubeconfig file for `credential` at `server_url`, whose certificate is checked against the PEM file `ca`.
    pub(crate) fn kubeconfig_for(&self, credential: &Credential, server_url: &str, ca: &Path) -> PathBuf {
        static WRITTEN: AtomicUsize = AtomicUsize::new(0);
        let user = match credential {
            Credential::Certificate(pair) => json!({"client-certificate": pair.cert, "client-key": pair.key}),
            Credential::Token(token) => json!({"token": token}),
            Credential::None => json!({}),
        };
        // JSON is YAML, and spares us its surprises (a user called `n` would be the boolean false).
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "clusters": [{"name": "test", "cluster": {"server": server_url, "certificate-authority": ca}}],
            "users": [{"name": "test", "user": user}],
        });
        let directory = self.paths.dir.join("kubeconfigs");
        fs::create_dir_all(&directory).expect("kubeconfig directory is created");
        let path = directory.join(format!("{}.yaml", WRITTEN.fetch_add(1, Ordering::Relaxed)));
        fs::write(&path, config.to_string()).expect("kubeconfig is written");
        path
    }

    /// The administrator's kubeconfig, straight to kube-apiserver.
    pub(crate) fn admin_kubeconfig(&self) -> PathBuf {
        self.kubeconfig_for(&self.admin(), &self.url(), &self.paths.server_ca.cert)
    }

    /// kubectl, ready for arguments: for whoever wants to feed its stdin or read its output as it comes.
    pub(crate) fn kubectl_command(&self, kubeconfig: &Path) -> Command {
        let mut command = self.program("kubectl");
        command.arg("--kubeconfig").arg(kubeconfig).stdin(Stdio::null());
        command
    }

    /// Runs kubectl to its end, whatever that is.
    pub(crate) fn kubectl(&self, kubeconfig: &Path, args: &[&str]) -> Output {
        self.kubectl_command(kubeconfig).args(args).output().expect("kubectl starts")
    }

    /// Runs kubectl, expects success, returns its stdout.
    pub(crate) fn kubectl_ok(&self, kubeconfig: &Path, args: &[&str]) -> String {
        succeeded(args, &self.kubectl(kubeconfig, args))
    }

    /// Runs kubectl with `input` on its stdin, expects success, returns its stdout.
    pub(crate) fn kubectl_with_input(&self, kubeconfig: &Path, args: &[&str], input: &str) -> String {
        let mut command = self.kubectl_command(kubeconfig);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("kubectl starts");
        let mut pipe = child.stdin.take().expect("stdin is piped");
        // A kubectl that ends without reading has said why on stderr.
        let _ = pipe.write_all(input.as_bytes());
        drop(pipe);
        succeeded(args, &child.wait_with_output().expect("kubectl is waited for"))
    }

    /// Applies one or more YAML documents as the administrator, straight at kube-apiserver. Text that begins with a
    /// brace is taken for JSON.
    pub(crate) fn apply(&self, yaml: &str) {
        // Without client-side validation kubectl need not fetch the whole OpenAPI document.
        self.kubectl_with_input(&self.admin_kubeconfig(), &["apply", "--validate=false", "-f", "-"], yaml);
    }

    /// A bound token of the service account, which is created together with its namespace if need be.
    /// `duration` is what kubectl understands, from `10m` up.
    pub(crate) fn token(&self, namespace: &str, service_account: &str, duration: &str) -> String {
        self.apply(&format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: '{namespace}'}}\n---\n\
             apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: '{service_account}', namespace: '{namespace}'}}"
        ));
        let args = ["create", "token", service_account, "--namespace", namespace, "--duration", duration];
        let token = self.kubectl_ok(&self.admin_kubeconfig(), &args).trim().to_owned();
        super::canary::token(&token);
        token
    }

    /// The user and groups kube-apiserver sees behind `kubeconfig`; Err with kubectl's words when it refuses.
    pub(crate) fn whoami(&self, kubeconfig: &Path) -> Result<(String, Vec<String>), String> {
        let output = self.kubectl(kubeconfig, &["auth", "whoami", "-o", "json"]);
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().into());
        }
        let review: Value = serde_json::from_slice(&output.stdout).expect("kubectl prints JSON");
        let user = &review["status"]["userInfo"];
        let groups = user["groups"].as_array().into_iter().flatten().filter_map(Value::as_str);
        Ok((user["username"].as_str().unwrap_or_default().into(), groups.map(Into::into).collect()))
    }
}

fn succeeded(args: &[&str], output: &Output) -> String {
    assert!(
        output.status.success(),
        "expected kubectl {args:?} to succeed, but {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

//! `spillway manifest FORM`: what does an installation need? Printed, never written.
//!
//! The texts are the files below `deploy/` and `config/`, with what differs from place to place filled in.

use std::fmt::Write as _;
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args as ClapArgs, Subcommand};

use super::Ending;

const STATIC_POD: &str = include_str!("../../deploy/static-pod/spillway.yaml");
const KUBEADM_PATCH: &str = include_str!("../../deploy/static-pod/kube-apiserver0+strategic.yaml");
const SIDECAR_PATCH: &str = include_str!("../../deploy/sidecar/kube-apiserver1+strategic.yaml");
const SYSTEMD: &str = include_str!("../../deploy/systemd/spillway.service");
const CONFIG: &str = include_str!("../../config/spillway.yaml");
const POLICY: &str = include_str!("../../config/first-policy.yaml");

/// What the files in `deploy/` say where an image belongs.
const IMAGE: &str = "spillway:0.1.0";
const BINARY: &str = "/usr/local/bin/spillway";
/// What `config/spillway.yaml` says where the node's address belongs.
const NODE_ADDRESS: &str = "10.0.0.11";
/// Where spillway listens beside a kube-apiserver that keeps its address.
const SIDE_PORT: u16 = 7443;

/// Prints what an installation needs; nothing is written.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples, on a kubeadm control-plane node, in this order:
  spillway manifest config --node-address 10.0.0.11 > /etc/spillway/spillway.yaml
  spillway manifest policy > /etc/spillway/policy.yaml
  spillway manifest kubeadm-patch > /etc/kubernetes/patches/kube-apiserver0+strategic.yaml
  spillway manifest static-pod > /etc/kubernetes/manifests/spillway.yaml

Lower risk, for a trial: kube-apiserver stays where it is, and only who is pointed there passes spillway:
  spillway manifest config --node-address 10.0.0.11 --mode side-port")]
pub struct Args {
    #[command(subcommand)]
    form: Form,
}

#[derive(Debug, Subcommand)]
enum Form {
    /// A static pod beside kube-apiserver
    StaticPod {
        /// Container image
        #[arg(long, default_value = IMAGE)]
        image: String,
    },
    /// The kubeadm patch that moves kube-apiserver to loopback
    KubeadmPatch,
    /// A container in kube-apiserver's own pod, as a kubeadm patch
    SidecarPatch {
        /// Container image
        #[arg(long, default_value = IMAGE)]
        image: String,
    },
    /// A service of the host
    Systemd {
        /// Where the program is
        #[arg(long, default_value = BINARY)]
        binary: String,
    },
    /// The configuration for this node
    Config {
        /// The address that kube-apiserver advertises
        #[arg(long, value_name = "IP")]
        node_address: IpAddr,
        /// Where spillway stands
        #[arg(long, value_enum, default_value_t = Mode::AddressSplit)]
        mode: Mode,
    },
    /// The policy to begin with: it decides and counts, and refuses nothing
    Policy,
    /// A kubeconfig that points at spillway
    Kubeconfig {
        /// For example <https://10.0.0.11:6443>
        #[arg(long, value_name = "URL")]
        server: String,
        /// The cluster's CA
        #[arg(long, value_name = "FILE")]
        ca_file: PathBuf,
        /// Client certificate; its path is written into the kubeconfig
        #[arg(long, value_name = "FILE", requires = "client_key")]
        client_certificate: Option<PathBuf>,
        /// Its key
        #[arg(long, value_name = "FILE", requires = "client_certificate")]
        client_key: Option<PathBuf>,
        /// A token's file, instead
        #[arg(long, value_name = "FILE", conflicts_with = "client_certificate")]
        token_file: Option<PathBuf>,
    },
}

/// Where spillway stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Mode {
    /// On the node's address, kube-apiserver on loopback: everybody passes, pods included
    AddressSplit,
    /// On another port of the node: only who is pointed there passes
    SidePort,
}

/// Prints it.
pub fn run(args: &Args, out: &mut dyn Write, err: &mut dyn Write) -> Ending {
    match text(&args.form) {
        Ok(text) if out.write_all(text.as_bytes()).is_ok() => Ending::Fine,
        Ok(_) => Ending::Failed,
        Err(message) => {
            let _ = writeln!(err, "error: {message}");
            Ending::Usage
        }
    }
}

fn text(form: &Form) -> Result<String, String> {
    match form {
        Form::StaticPod { image } => with_image(STATIC_POD, image),
        Form::Policy => Ok(POLICY.to_owned()),
        Form::KubeadmPatch => Ok(KUBEADM_PATCH.to_owned()),
        Form::SidecarPatch { image } => with_image(SIDECAR_PATCH, image),
        Form::Systemd { binary } => {
            let usable = binary.starts_with('/')
                && !binary.contains(|c: char| c.is_whitespace() || c.is_control() || c == '%');
            let expected = format!("--binary: expected an absolute path without blanks or %, not {binary:?}");
            usable.then(|| SYSTEMD.replace(BINARY, binary)).ok_or(expected)
        }
        Form::Config { node_address, mode } => Ok(config(*node_address, *mode)),
        Form::Kubeconfig { server, ca_file, client_certificate, client_key, token_file } => {
            let user = match (client_certificate, client_key, token_file) {
                (Some(certificate), Some(key), _) => format!(
                    "{{ client-certificate: {}, client-key: {} }}",
                    quoted(&certificate.display().to_string()),
                    quoted(&key.display().to_string())
                ),
                (_, _, Some(token)) => format!("{{ tokenFile: {} }}", quoted(&token.display().to_string())),
                _ => "{}".to_owned(),
            };
            kubeconfig(server, ca_file, &user)
        }
    }
}

/// References as registries take them; anything else could end a line of YAML.
fn with_image(template: &str, image: &str) -> Result<String, String> {
    let may = |c: char| c.is_ascii_alphanumeric() || "._-/:@".contains(c);
    if image.is_empty() || !image.chars().all(may) {
        return Err(format!(
            "--image: expected a reference such as registry.example/spillway:0.1.0, not {image:?}"
        ));
    }
    Ok(template.replace(&format!("image: {IMAGE}"), &format!("image: {image}")))
}

/// The configuration for a node whose kube-apiserver moves to loopback.
pub(super) fn node_config(node: IpAddr) -> String {
    config(node, Mode::AddressSplit)
}

fn config(node: IpAddr, mode: Mode) -> String {
    let (address, loopback) = match node {
        IpAddr::V4(node) => (node.to_string(), "127.0.0.1"),
        IpAddr::V6(node) => (format!("[{node}]"), "[::1]"),
    };
    let text = CONFIG.replace("https://127.0.0.1:6443", &format!("https://{loopback}:6443"));
    let text = match mode {
        Mode::AddressSplit => text,
        Mode::SidePort => text
            .replace(
                &format!("address: {NODE_ADDRESS}:6443"),
                &format!("address: {NODE_ADDRESS}:{SIDE_PORT}"),
            )
            .replace(&format!("url: https://{loopback}:6443"), &format!("url: https://{NODE_ADDRESS}:6443")),
    };
    let first = match mode {
        Mode::AddressSplit => format!(
            "# spillway on {address}:6443, kube-apiserver on {loopback}:6443 (--bind-address, --advertise-address unchanged).\n"
        ),
        Mode::SidePort => format!(
            "# A trial: spillway on {address}:{SIDE_PORT}, kube-apiserver stays on {address}:6443. Only who is pointed at port\n\
             # {SIDE_PORT} passes spillway; pods, kubelets and controllers do not, and their storms are not seen here.\n"
        ),
    };
    // An installation with this file alone has the embedded policy, which enforces: not what anybody wants to begin with.
    let policy = "# Start it with a policy, too; the one to begin with counts and refuses nothing:\n\
                  #   spillway manifest policy > /etc/spillway/policy.yaml\n";
    // The example's own first lines say which address to replace.
    let rest = text.split_once("#\n").map_or(text.as_str(), |(_, rest)| rest);
    // Brackets begin a list in YAML, unless they are quoted.
    let listens = |port: u16| {
        let plain = format!("address: {NODE_ADDRESS}:{port}");
        let quoted = if node.is_ipv6() {
            format!("address: \"{address}:{port}\"")
        } else {
            format!("address: {address}:{port}")
        };
        (plain, quoted)
    };
    let rest = [6443, 6444, SIDE_PORT]
        .map(listens)
        .iter()
        .fold(rest.to_owned(), |text, (plain, quoted)| text.replace(plain, quoted));
    format!("{first}{policy}#\n{}", rest.replace(NODE_ADDRESS, &address))
}

fn kubeconfig(server: &str, ca_file: &Path, user: &str) -> Result<String, String> {
    if !server.starts_with("https://") || server.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(format!("--server: expected a URL such as https://10.0.0.11:6443, not {server:?}"));
    }
    let ca = std::fs::read(ca_file).map_err(|error| format!("--ca-file {}: {error}", ca_file.display()))?;
    if !ca.windows(11).any(|part| part == b"CERTIFICATE") {
        return Err(format!("--ca-file {}: expected certificates in PEM", ca_file.display()));
    }
    let mut text = "apiVersion: v1\nkind: Config\ncurrent-context: spillway\n".to_owned();
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "clusters:\n  - name: spillway\n    cluster:\n      server: {}\n      certificate-authority-data: {}\n\
         contexts:\n  - name: spillway\n    context: {{ cluster: spillway, user: me }}\nusers:\n  - name: me\n    user: {user}\n",
        quoted(server),
        STANDARD.encode(ca),
    );
    Ok(text)
}

/// JSON strings are YAML strings.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

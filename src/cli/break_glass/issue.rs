//! `spillway break-glass issue` and `kubeconfig`: a certificate for one person, and the file that kubectl needs.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args as ClapArgs;
use serde_json::{Map, Value, json};

use super::{CaFolder, Ending, Failure, Output, passphrase, print, time};
use crate::breakglass::{
    Access, Authority, Bearer, Entry, Folder, Issued, Order, is_server, read_certificate, read_text,
    show_duration, show_time, write_kubeconfig, write_private, write_public,
};
use crate::clock;

/// Bytes of a PEM file that is read.
const PEM_BYTES_MAX: u64 = 1 << 20;

/// Signs a certificate for exactly one named person.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  spillway break-glass issue --ca bg-ca --user alice@corp --ttl 24h
  spillway break-glass issue --ca bg-ca --user alice@corp --ttl 24h --kubeconfig alice.kubeconfig \\
      --server https://10.0.0.11:6444 --cluster-ca /etc/kubernetes/pki/ca.crt
  spillway break-glass issue --ca bg-ca --user drill-cp-1 --drill --ttl 365d --out /etc/spillway/drill

The certificate is good for at most 30 days (--drill: a year; it opens health checks only). It is written down in the
CA's folder; `list` shows it, `revoke` ends it. With --kubeconfig the key is written there alone.")]
pub(super) struct Args {
    #[command(flatten)]
    folder: CaFolder,
    /// The person: one name, such as alice@corp
    #[arg(long, value_name = "NAME")]
    user: String,
    /// From now to its end, 5m to 30d
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = time)]
    ttl: Duration,
    /// The group that kube-apiserver is told; one of breakGlass.groups
    #[arg(long, value_name = "NAME", default_value = "spillway:break-glass", conflicts_with = "drill")]
    group: String,
    /// For the self-probe of a node (breakGlass.drill) instead of a person
    #[arg(long)]
    drill: bool,
    /// Write FILE.crt and FILE.key [default: ./NAME, unless --kubeconfig is given]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write a ready kubeconfig
    #[arg(long, value_name = "FILE", requires_all = ["server", "cluster_ca"])]
    kubeconfig: Option<PathBuf>,
    #[command(flatten)]
    lane: Lane,
    #[command(flatten)]
    passphrase: passphrase::Source,
    /// How the result is printed
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Where the lane is.
#[derive(Debug, ClapArgs)]
struct Lane {
    /// The lane's address, https://HOST:PORT
    #[arg(long, value_name = "URL", value_parser = server)]
    server: Option<String>,
    /// PEM file of the CA that signed the lane's serving certificate: /etc/kubernetes/pki/ca.crt
    #[arg(long, value_name = "FILE")]
    cluster_ca: Option<PathBuf>,
}

/// Makes a kubeconfig that holds everything: it points to no other file.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  spillway break-glass kubeconfig --server https://10.0.0.11:6444 --cluster-ca /etc/kubernetes/pki/ca.crt \\
      --cert alice@corp.crt --key alice@corp.key --out alice.kubeconfig
  spillway break-glass test --kubeconfig alice.kubeconfig")]
pub(super) struct KubeconfigArgs {
    /// The lane's address, https://HOST:PORT
    #[arg(long, value_name = "URL", value_parser = server)]
    server: String,
    /// PEM file of the CA that signed the lane's serving certificate: /etc/kubernetes/pki/ca.crt
    #[arg(long, value_name = "FILE")]
    cluster_ca: PathBuf,
    /// PEM file of the person's certificate
    #[arg(long, value_name = "FILE")]
    cert: PathBuf,
    /// PEM file of its key
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Where to write it; standard output when it is missing
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// How the result is printed
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

fn server(text: &str) -> Result<String, String> {
    let expected = || "expected https://HOST:PORT, such as https://10.0.0.11:6444".to_owned();
    is_server(text).then(|| text.trim_end_matches('/').to_owned()).ok_or_else(expected)
}

pub(super) fn issue(args: &Args, out: &mut dyn Write) -> Result<Ending, Failure> {
    let folder = Folder::new(args.folder.ca.clone());
    let (certificate, key) = folder.open()?;
    let files = args.files();
    for file in files.iter().flatten() {
        // Found out before the ledger says that there is a certificate.
        if file.exists() {
            return Err(Failure::new(format!("{} exists already; name another file", file.display())));
        }
    }
    let cluster_ca =
        args.lane.cluster_ca.as_deref().map(|file| read_text(file, PEM_BYTES_MAX)).transpose()?;
    let authority = Authority::open(&certificate, &key, &args.passphrase.ask()?)?;
    let bearer = if args.drill { Bearer::Drill } else { Bearer::Person };
    let order = Order { user: &args.user, group: &args.group, bearer, ttl: args.ttl };
    let issued = authority.issue(&order, clock::wall())?;
    let entry = Entry::of(&issued.shown, args.drill);
    // First the ledger: a certificate that nobody knows of cannot be revoked.
    folder.add(&entry)?;
    write_files(args, &files, &issued, cluster_ca)?;
    let [certificate, key, kubeconfig] = files.map(|file| file.map(|file| file.display().to_string()));
    let json = json!({
        "user": entry.user, "group": entry.group, "drill": entry.drill, "serial": entry.serial,
        "fingerprint": entry.fingerprint, "notBefore": entry.not_before, "notAfter": entry.not_after,
        "certificate": certificate, "key": key, "kubeconfig": kubeconfig,
    });
    let mut text = format!(
        "issued to {} until {} ({})\n  serial       {}\n  group        {}\n",
        entry.user,
        show_time(issued.shown.not_after),
        show_duration(args.ttl),
        entry.serial,
        entry.group,
    );
    for (what, file) in [("certificate", &certificate), ("key", &key), ("kubeconfig", &kubeconfig)] {
        if let Some(file) = file {
            text.push_str(&format!("  {what:<11}  {file}\n"));
        }
    }
    text.push_str(&next(args, kubeconfig.as_deref()));
    print(out, args.output, &json, &text)
}

fn next(args: &Args, kubeconfig: Option<&str>) -> String {
    match (args.drill, kubeconfig) {
        (true, _) => "next:\n  name both files in breakGlass.drill on the node\n".to_owned(),
        (false, Some(file)) => format!("next:\n  spillway break-glass test --kubeconfig {file}\n"),
        (false, None) => {
            let stem = args.stem();
            format!(
                "next:\n  spillway break-glass kubeconfig --server https://NODE:6444 --cluster-ca FILE --cert {0}.crt \
                 --key {0}.key\n",
                stem.display()
            )
        }
    }
}

impl Args {
    fn stem(&self) -> PathBuf {
        self.out.clone().unwrap_or_else(|| PathBuf::from(&self.user))
    }

    /// Certificate, key and kubeconfig, as far as they are wanted.
    fn files(&self) -> [Option<PathBuf>; 3] {
        let apart = self.out.is_some() || self.kubeconfig.is_none();
        let with = |ending: &str| {
            let mut name = self.stem().into_os_string();
            name.push(ending);
            apart.then(|| PathBuf::from(name))
        };
        [with(".crt"), with(".key"), self.kubeconfig.clone()]
    }
}

fn write_files(
    args: &Args,
    files: &[Option<PathBuf>; 3],
    issued: &Issued,
    cluster_ca: Option<String>,
) -> Result<(), Failure> {
    let [certificate, key, kubeconfig] = files;
    if let (Some(certificate), Some(key)) = (certificate, key) {
        write_private(key, &issued.key_pem)?;
        write_public(certificate, &issued.certificate_pem)?;
    }
    if let (Some(file), Some(server), Some(cluster_ca_pem)) = (kubeconfig, &args.lane.server, cluster_ca) {
        let access = Access {
            server: server.clone(),
            cluster_ca_pem,
            certificate_pem: issued.certificate_pem.clone(),
            key_pem: issued.key_pem.clone(),
            server_name: None,
        };
        write_private(file, &write_kubeconfig(&access, &args.user))?;
    }
    Ok(())
}

pub(super) fn kubeconfig(args: &KubeconfigArgs, out: &mut dyn Write) -> Result<Ending, Failure> {
    let read = |file: &Path| read_text(file, PEM_BYTES_MAX);
    let access = Access {
        server: args.server.clone(),
        cluster_ca_pem: read(&args.cluster_ca)?,
        certificate_pem: read(&args.cert)?,
        key_pem: read(&args.key)?,
        server_name: None,
    };
    for (what, pem, file) in [
        ("--cluster-ca", &access.cluster_ca_pem, &args.cluster_ca),
        ("--cert", &access.certificate_pem, &args.cert),
    ] {
        if !pem.contains("-----BEGIN CERTIFICATE-----") {
            return Err(Failure::new(format!(
                "there is no PEM certificate in {}, named by {what}",
                file.display()
            )));
        }
    }
    if !access.key_pem.contains("PRIVATE KEY-----") || access.key_pem.contains("ENCRYPTED") {
        let file = args.key.display();
        return Err(Failure::new(format!(
            "there is no unencrypted PEM private key in {file}, named by --key"
        )));
    }
    let shown = read_certificate(access.certificate_pem.as_bytes()).map_err(Failure::new)?;
    let user = shown.user.unwrap_or_default();
    let text = write_kubeconfig(&access, &user);
    let Some(file) = &args.out else {
        // Asked for by pipe or redirection: the file itself is the result.
        write!(out, "{text}")?;
        return Ok(Ending::Fine);
    };
    write_private(file, &text)?;
    let end = show_time(shown.not_after);
    let json: Map<String, Value> = [
        ("kubeconfig", file.display().to_string()),
        ("user", user.clone()),
        ("server", args.server.clone()),
        ("notAfter", end.clone()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.into()))
    .collect();
    let text = format!(
        "wrote {0} for {user}, good until {end}\nnext:\n  spillway break-glass test --kubeconfig {0}\n",
        file.display()
    );
    print(out, args.output, &Value::Object(json), &text)
}

//! `spillway sysdump`: everything that somebody else needs to find out what is wrong, in one file and without secrets.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args as ClapArgs;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::Ending;
use super::redact::redacted;
use super::socket::Where;
use crate::app::check::{CHECKS, Situation, own_page};
use crate::clock;
use crate::config::{self, FileChecks, Metrics};

/// Bytes of a log that are taken, from its end.
const LOG_BYTES_MAX: u64 = 4 << 20;
/// Bytes of any other file: configurations have some thousand.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// A tar file is made of blocks of this size.
const BLOCK: usize = 512;
/// Refusals that are explained.
const EXPLAINED: usize = 10;

/// Collects a support bundle.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  spillway sysdump
  journalctl -u spillway --since -1h | spillway sysdump --log -
  crictl logs $(crictl ps -q --name spillway) 2>&1 | spillway sysdump --log - --file /root/spillway.tar

In it: version, status, clients, events, refusals, metrics, all checks, configuration, the dates of certificates, the end of
the log. Names of users, namespaces and nodes are in it; keys, tokens and passwords are not: they are searched for and
removed. Look before you send it: tar -xOf FILE | less. What cannot be had is noted in it, and no reason to fail.")]
pub struct Args {
    /// Where it is written; mode 0600, never over another file
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// A log file, or - for standard input
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// The configuration; again for more files
    #[arg(long, value_name = "FILE", default_values = ["/etc/spillway/spillway.yaml", "/etc/spillway/policy.yaml"])]
    config: Vec<PathBuf>,
    #[command(flatten)]
    at: Where,
}

/// Collects and writes.
pub fn run(args: &Args, out: &mut dyn Write, err: &mut dyn Write) -> Ending {
    let now = clock::wall();
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let path = args.file.clone().unwrap_or_else(|| format!("spillway-sysdump-{seconds}.tar").into());
    let written = File::options().write(true).create_new(true).mode(0o600).open(&path).and_then(|file| {
        let mut tar = Tar { out: file, seconds, missing: Vec::new() };
        collect(args, now, &mut tar)?;
        tar.end()
    });
    match written {
        Ok(missing) => {
            // A closed terminal cannot be told anything.
            for what in &missing {
                let _ = writeln!(err, "not in it: {what}");
            }
            let shown = path.display();
            let printed = writeln!(out, "{shown}\n  → look before you send it: tar -xOf {shown} | less");
            super::isolate::ended(printed)
        }
        Err(error) => {
            let _ = writeln!(
                err,
                "error: {} cannot be written: {error}\nhelp: name another with --file",
                path.display()
            );
            Ending::Failed
        }
    }
}

fn collect(args: &Args, now: SystemTime, tar: &mut Tar) -> io::Result<()> {
    let version = json!({ "version": env!("CARGO_PKG_VERSION"), "collectedAt": tar.seconds, "os": std::env::consts::OS });
    tar.add("version.json", &pretty(&version))?;
    for (name, path) in [
        ("status.json", "/v1/status"),
        ("clients-asked.json", "/v1/clients?by=asked"),
        ("clients-refused.json", "/v1/clients?by=refused"),
        ("events.json", "/v1/events"),
        ("decisions.json", "/v1/decisions"),
    ] {
        let answer: Result<Value, _> = args.at.get(path);
        match answer {
            Ok(answer) => {
                tar.add(name, &pretty(&answer))?;
                if name == "decisions.json" {
                    explain(args, &answer, tar)?;
                }
            }
            Err(failure) => tar.miss(name, &failure.problem.message),
        }
    }
    for (number, file) in args.config.iter().enumerate() {
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        match read(file, FILE_BYTES_MAX) {
            Ok(text) => tar.add(&format!("config/{number}-{name}"), &text)?,
            Err(error) => tar.miss(&file.display().to_string(), &error.to_string()),
        }
    }
    inside(args, now, tar)?;
    match &args.log {
        None => {
            tar.miss("log.txt", "no log was named: --log FILE, or --log - behind journalctl or crictl logs")
        }
        Some(file) => match read(file, LOG_BYTES_MAX) {
            Ok(text) => tar.add("log.txt", &text)?,
            Err(error) => tar.miss("log.txt", &format!("{}: {error}", file.display())),
        },
    }
    Ok(())
}

/// The latest refusals, each with its walk.
fn explain(args: &Args, decisions: &Value, tar: &mut Tar) -> io::Result<()> {
    let ids = decisions["decisions"].as_array().into_iter().flatten().filter_map(|line| line["id"].as_str());
    let explained: Vec<Value> =
        ids.take(EXPLAINED).filter_map(|id| args.at.get(&format!("/v1/decisions/{id}")).ok()).collect();
    tar.add("explained.json", &pretty(&Value::Array(explained)))
}

/// What follows from the configuration: metrics, certificates, checks.
fn inside(args: &Args, now: SystemTime, tar: &mut Tar) -> io::Result<()> {
    let files: Vec<PathBuf> = args.config.iter().filter(|file| file.exists()).cloned().collect();
    let loaded = config::load_with(&files, FileChecks::On);
    let proxy = loaded.as_ref().ok().and_then(|loaded| loaded.proxy.as_ref());
    let metrics = proxy.map_or(Metrics::default().address, |proxy| proxy.metrics.address);
    match own_page(metrics, "/metrics") {
        Ok(page) => tar.add("metrics.txt", page.split_once("\r\n\r\n").map_or("", |(_, body)| body))?,
        Err(why) => tar.miss("metrics.txt", &why),
    }
    tar.add("certificates.json", &pretty(&certificates(&args.config)))?;
    let status = args.at.get("/v1/status").map_err(|failure| failure.problem.message);
    let situation = Situation {
        loaded,
        manifest: None,
        status: Some(status),
        socket: args.at.socket.clone(),
        break_glass: None,
        expect_hash: None,
        files,
        now,
        window: std::time::Duration::from_secs(1),
    };
    let checked = CHECKS.iter().filter(|check| check.is_asked(false)).map(|check| {
        let found = check.look(&situation);
        json!({ "id": check.id, "result": found.verdict, "what": found.what, "advice": found.advice })
    });
    tar.add("check.json", &pretty(&checked.collect()))
}

/// Names and dates of every certificate that a configuration names; never a key.
fn certificates(configs: &[PathBuf]) -> Value {
    let mut files: Vec<PathBuf> = Vec::new();
    for config in configs {
        let folder = config.parent().unwrap_or(Path::new(""));
        let text = read(config, FILE_BYTES_MAX).unwrap_or_default();
        let words = text.split(|c: char| c.is_whitespace() || "\"',{}[]".contains(c));
        files.extend(
            words
                .filter(|word| word.ends_with(".crt") || word.ends_with(".pem"))
                .map(|word| folder.join(word)),
        );
    }
    files.sort();
    files.dedup();
    let of_file = |file: &PathBuf| {
        let pem = std::fs::read(file).unwrap_or_default();
        let certificates = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok);
        let certificates: Vec<Value> = certificates.filter_map(|one| facts(&one)).collect();
        json!({ "file": file, "certificates": certificates })
    };
    files.iter().map(of_file).collect()
}

fn facts(certificate: &CertificateDer<'_>) -> Option<Value> {
    let (_, facts) = X509Certificate::from_der(certificate).ok()?;
    let names = facts.subject_alternative_name().ok().flatten();
    let names: Vec<String> =
        names.iter().flat_map(|names| &names.value.general_names).map(ToString::to_string).collect();
    Some(json!({
        "subject": facts.subject().to_string(),
        "issuer": facts.issuer().to_string(),
        "serial": facts.raw_serial_as_string(),
        "notBefore": facts.validity().not_before.timestamp(),
        "notAfter": facts.validity().not_after.timestamp(),
        "names": names,
    }))
}

/// The end of a file, at most so much of it.
fn read(file: &Path, most: u64) -> io::Result<String> {
    let mut bytes = Vec::new();
    if file == Path::new("-") {
        // The end is what counts, and a pipe has to be read to it.
        io::stdin().lock().read_to_end(&mut bytes)?;
        let begin = bytes.len().saturating_sub(usize::try_from(most).unwrap_or(usize::MAX));
        bytes.drain(..begin);
    } else {
        let mut opened = File::open(file)?;
        let length = opened.metadata()?.len();
        opened.seek(SeekFrom::Start(length.saturating_sub(most)))?;
        opened.take(most).read_to_end(&mut bytes)?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// A tar file as it grows: the old format that every tar reads.
struct Tar {
    out: File,
    seconds: u64,
    missing: Vec<String>,
}

impl Tar {
    /// Adds a text, without secrets.
    fn add(&mut self, name: &str, text: &str) -> io::Result<()> {
        let text = redacted(text);
        let header = header(name, text.len() as u64, self.seconds);
        self.out.write_all(&header)?;
        self.out.write_all(text.as_bytes())?;
        let padding = text.len().next_multiple_of(BLOCK) - text.len();
        self.out.write_all(&[0; BLOCK][..padding])
    }

    /// Notes what could not be had.
    fn miss(&mut self, name: &str, why: &str) {
        self.missing.push(format!("{name}: {why}"));
    }

    /// The end; what is missing.
    fn end(mut self) -> io::Result<Vec<String>> {
        let missing = std::mem::take(&mut self.missing);
        self.add("missing.txt", &missing.join("\n"))?;
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.sync_all()?;
        Ok(missing)
    }
}

/// The header of a file in a tar file.
fn header(name: &str, size: u64, seconds: u64) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    let mut put = |at: usize, text: &str, most: usize| {
        let bytes = &text.as_bytes()[..text.len().min(most)];
        header[at..at + bytes.len()].copy_from_slice(bytes);
    };
    put(0, &format!("spillway/{name}"), 99);
    put(100, "0000600", 7);
    put(108, "0000000", 7);
    put(116, "0000000", 7);
    put(124, &format!("{size:011o}"), 11);
    put(136, &format!("{seconds:011o}"), 11);
    // The sum is taken as if its own field were blank.
    put(148, "        ", 8);
    put(156, "0", 1);
    put(257, "ustar\u{0}00", 8);
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    /// Stands in every place where a secret could.
    const CANARY: &str = "c4n4ry-7f3a";

    #[test]
    fn every_tar_reads_it_and_no_secret_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let key = format!("-----BEGIN PRIVATE KEY-----\n{CANARY}\n-----END PRIVATE KEY-----\n");
        let log =
            format!("refused user=alice token={CANARY}\nAuthorization: Bearer {CANARY}\n{key}the end\n");
        std::fs::write(path("log"), log).unwrap();
        let config = format!("password: {CANARY}\nonUse: {{ command: [/bin/page, {CANARY}] }}\nname: kept\n");
        std::fs::write(path("config.yaml"), config).unwrap();
        let file = path("dump.tar");
        let line = [
            "sysdump",
            "--file",
            &file,
            "--log",
            &path("log"),
            "--config",
            &path("config.yaml"),
            "--socket",
            &path("none"),
        ];
        let args = Line::try_parse_from(line).unwrap().args;
        let (mut out, mut err) = (Vec::new(), Vec::new());
        assert_eq!(run(&args, &mut out, &mut err), Ending::Fine, "{}", String::from_utf8_lossy(&err));
        let err = String::from_utf8(err).unwrap();
        assert!(err.contains("not in it: status.json: nobody answers"), "{err}");
        let bytes = String::from_utf8_lossy(&std::fs::read(&file).unwrap()).into_owned();
        assert!(!bytes.contains(CANARY));
        for kept in ["user=alice", "the end", "name: kept", "SPW-RUN-001"] {
            assert!(bytes.contains(kept), "{kept} is missing");
        }
        let listed = std::process::Command::new("tar").args(["-tf", &file]).output().unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        for name in [
            "version.json",
            "config/0-config.yaml",
            "check.json",
            "certificates.json",
            "log.txt",
            "missing.txt",
        ] {
            assert!(listed.contains(&format!("spillway/{name}\n")), "{name} is not in\n{listed}");
        }
        assert_eq!(run(&args, &mut out, &mut Vec::new()), Ending::Failed, "never over another file");
    }
}

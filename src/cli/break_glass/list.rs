//! `spillway break-glass list`: which certificates are there, and which still open the lane?

use std::io::Write;
use std::path::PathBuf;
use std::time::SystemTime;

use clap::Args as ClapArgs;
use serde_json::json;

use super::{CaFolder, Ending, Failure, Output, print};
use crate::breakglass::{DenyList, Entry, Folder, parse_time, read_deny_list, show_duration};
use crate::clock;

/// Shows what the CA's folder says was issued; no key and no passphrase is needed.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  spillway break-glass list --ca bg-ca
  spillway break-glass list --ca bg-ca --deny-file /etc/spillway/break-glass-revoked.txt -o json")]
pub(super) struct Args {
    #[command(flatten)]
    folder: CaFolder,
    /// The deny list that the lane reads [default: revoked.txt in the CA's folder]
    #[arg(long, value_name = "FILE")]
    deny_file: Option<PathBuf>,
    /// How the result is printed
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn list(args: &Args, out: &mut dyn Write) -> Result<Ending, Failure> {
    let folder = Folder::new(args.folder.ca.clone());
    let entries = folder.entries()?;
    let denied = read_deny_list(&args.deny_file.clone().unwrap_or_else(|| folder.deny_file()))?;
    let now = clock::wall();
    let certificates: Vec<_> = entries
        .iter()
        .map(|entry| {
            json!({
                "serial": entry.serial, "user": entry.user, "group": entry.group, "drill": entry.drill,
                "notBefore": entry.not_before, "notAfter": entry.not_after, "fingerprint": entry.fingerprint,
                "state": state(entry, &denied, now),
            })
        })
        .collect();
    print(out, args.output, &json!({ "certificates": certificates }), &table(&entries, &denied, now))
}

fn state(entry: &Entry, denied: &DenyList, now: SystemTime) -> &'static str {
    if denied.denies(&entry.serial, &entry.fingerprint) {
        "revoked"
    } else if entry.is_expired(now) {
        "expired"
    } else {
        "valid"
    }
}

fn table(entries: &[Entry], denied: &DenyList, now: SystemTime) -> String {
    if entries.is_empty() {
        return "no certificate was issued from this folder\nnext:\n  spillway break-glass issue --user you@corp --ttl 24h\n"
            .to_owned();
    }
    let mut text = format!("{:<32}  {:<24}  {:<20}  {}\n", "SERIAL", "PERSON", "NOT AFTER", "STATE");
    for entry in entries {
        let user = if entry.drill { format!("{} (drill)", entry.user) } else { entry.user.clone() };
        let state = match state(entry, denied, now) {
            "valid" => format!("valid, {} left", left(entry, now)),
            other => other.to_owned(),
        };
        text.push_str(&format!("{:<32}  {user:<24}  {:<20}  {state}\n", entry.serial, entry.not_after));
    }
    text
}

fn left(entry: &Entry, now: SystemTime) -> String {
    let left = parse_time(&entry.not_after).and_then(|end| end.duration_since(now).ok()).unwrap_or_default();
    show_duration(left)
}

//! `spillway break-glass revoke`: end a certificate before its time.

use std::io::Write;
use std::path::PathBuf;

use clap::Args as ClapArgs;
use serde_json::json;

use super::{CaFolder, Ending, Failure, Output, print};
use crate::breakglass::{Entry, Folder, deny, read_deny_list};
use crate::clock;
use crate::config::nearest;

/// Puts a certificate, or all of a person's, on the deny list. The lane reads the list again when it changes.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  spillway break-glass revoke alice@corp --ca bg-ca --reason 'laptop stolen, INC-481'
  spillway break-glass revoke 4f01ab --ca bg-ca --deny-file /etc/spillway/break-glass-revoked.txt

The list must reach every control-plane node (breakGlass.denyFile): within seconds of that, the certificate opens the
lane no more, on open connections either.")]
pub(super) struct Args {
    /// A person's name, or a serial number as `list` shows it
    #[arg(value_name = "SERIAL|USER")]
    who: String,
    #[command(flatten)]
    folder: CaFolder,
    /// The deny list to write [default: revoked.txt in the CA's folder]
    #[arg(long, value_name = "FILE")]
    deny_file: Option<PathBuf>,
    /// Why: it is written beside the entry
    #[arg(long, value_name = "TEXT", default_value = "no reason given")]
    reason: String,
    /// How the result is printed
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn revoke(args: &Args, out: &mut dyn Write) -> Result<Ending, Failure> {
    let folder = Folder::new(args.folder.ca.clone());
    let file = args.deny_file.clone().unwrap_or_else(|| folder.deny_file());
    let (entries, denied, now) = (folder.entries()?, read_deny_list(&file)?, clock::wall());
    let meant = meant(&entries, &args.who)?;
    // What has ended by itself needs no line, and the list stays short.
    let new: Vec<&Entry> = meant
        .iter()
        .copied()
        .filter(|entry| !entry.is_expired(now) && !denied.denies(&entry.serial, &entry.fingerprint))
        .collect();
    if !new.is_empty() {
        deny(&file, &new, &args.reason, now)?;
    }
    let serials: Vec<&str> = new.iter().map(|entry| entry.serial.as_str()).collect();
    let json = json!({ "revoked": serials, "denyFile": file.display().to_string() });
    let text = if new.is_empty() {
        format!("nothing to do: every certificate of {} has expired or is revoked already\n", args.who)
    } else {
        let lines: String =
            new.iter().map(|entry| format!("revoked {} of {}\n", entry.serial, entry.user)).collect();
        format!(
            "{lines}next:\n  copy {} to every control-plane node, to where breakGlass.denyFile points\n",
            file.display()
        )
    };
    print(out, args.output, &json, &text)
}

fn meant<'a>(entries: &'a [Entry], who: &str) -> Result<Vec<&'a Entry>, Failure> {
    let serial = who.replace(':', "").to_ascii_lowercase();
    let serial = serial.trim_start_matches('0');
    let meant: Vec<_> = entries.iter().filter(|entry| entry.user == who || entry.serial == serial).collect();
    if !meant.is_empty() {
        return Ok(meant);
    }
    let known = entries.iter().flat_map(|entry| [entry.user.as_str(), entry.serial.as_str()]);
    let hint = nearest(who, known).map_or_else(
        || "`spillway break-glass list` shows what was issued from this folder".to_owned(),
        |near| format!("did you mean {near}?"),
    );
    Err(Failure::usage(format!("no certificate of {who:?} was issued from this folder; {hint}")))
}

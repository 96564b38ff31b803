//! `spillway break-glass grant-key` and `grant`: sign, offline, that somebody may use the lane for a while.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Args as ClapArgs;
use serde_json::json;

use super::{CaFolder, Ending, Failure, Output, passphrase, print, time};
use crate::breakglass::{
    Entry, Folder, GrantKey, GrantOrder, LedgerError, SignedGrant, parse_time, read_certificate, read_text,
    show_duration, show_time, write_private, write_public,
};
use crate::clock;
use crate::config::nearest;

/// Bytes of a PEM file that is read.
const PEM_BYTES_MAX: u64 = 1 << 20;

/// Makes the key that signs grants, encrypted with a passphrase. Keep it offline, like the CA's key, and with other people.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  spillway break-glass grant-key --out bg-grants
  spillway break-glass grant-key --out bg-grants --passphrase-file /media/key/passphrase

grant.pub goes to every control-plane node (breakGlass.grants.publicKeyFiles). grant.key never does. Nothing that exists is
overwritten.")]
pub(super) struct KeyArgs {
    /// Folder for grant.key and grant.pub; it is made when it is missing
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    passphrase: passphrase::Source,
    /// How the result is printed
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Signs that one certificate may use the lane of one cluster for a while. Nothing is asked over a network.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  spillway break-glass grant alice@corp --ca bg-ca --key bg-grants/grant.key --by bob@corp \\
      --for 1h --reason 'delete the DaemonSet that floods the apiserver' --ticket INC-481 --out alice.grant
  spillway break-glass grant --cert alice.crt --cluster prod-1 --key bg-grants/grant.key --by bob@corp …
  spillway break-glass arm --grant alice.grant --kubeconfig alice.kubeconfig      # then, by alice

The grant counts for that certificate alone: no secret is in it, and it may be sent by chat. Without --cluster it counts where
the CA of --ca is the lane's; name the cluster (breakGlass.grants.cluster) when several share a CA. Clocks may be an hour apart.")]
pub(super) struct Args {
    /// Whose: a person of the CA's ledger, by the certificate that was issued last
    #[arg(value_name = "USER", required_unless_present = "cert", conflicts_with = "cert")]
    user: Option<String>,
    /// PEM file of the certificate, instead of a name
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
    #[command(flatten)]
    folder: CaFolder,
    /// The cluster's name, as breakGlass.grants.cluster says it [default: the fingerprint of the CA in --ca]
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// The grant key, as `grant-key` made it
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Who grants it: you, by name. Where the lane wants two people, you are the second
    #[arg(long, value_name = "NAME")]
    by: String,
    /// For how long, 1m to 4h
    #[arg(long = "for", value_name = "TIME", default_value = "1h", value_parser = time)]
    length: Duration,
    /// When it begins, as 2026-11-25T14:00:00Z [default: now]
    #[arg(long, value_name = "TIME", value_parser = begin)]
    starts: Option<SystemTime>,
    /// Why the lane is needed
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Under which ticket
    #[arg(long, value_name = "ID")]
    ticket: String,
    /// Where to write it; standard output when it is missing
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    passphrase: passphrase::Source,
    /// How the result is printed
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

fn begin(text: &str) -> Result<SystemTime, String> {
    parse_time(text).ok_or_else(|| "expected a time such as 2026-11-25T14:00:00Z".to_owned())
}

pub(super) fn make_key(args: &KeyArgs, out: &mut dyn Write) -> Result<Ending, Failure> {
    let (key, public) = (args.out.join("grant.key"), args.out.join("grant.pub"));
    // Before anybody is asked to invent a passphrase.
    if let Some(taken) = [&key, &public].into_iter().find(|file| file.exists()) {
        return Err(LedgerError::Exists(taken.display().to_string()).into());
    }
    let passphrase = args.passphrase.choose()?;
    let (made, sealed, public_pem) = GrantKey::found(&passphrase).map_err(Failure::new)?;
    std::fs::create_dir_all(&args.out)
        .map_err(|error| Failure::new(format!("cannot make the folder {}: {error}", args.out.display())))?;
    write_private(&key, &sealed)?;
    write_public(&public, &public_pem)?;
    let (id, key, public) = (made.id(), key.display().to_string(), public.display().to_string());
    let json = json!({ "key": key, "publicKey": public, "id": id });
    let text = format!(
        "made grant key {id}\n\
         \x20 key         {key}  (encrypted, mode 0600)\n\
         \x20 public key  {public}\n\
         next:\n\
         \x20 copy {public} to every control-plane node and name it in breakGlass.grants.publicKeyFiles\n\
         \x20 spillway break-glass grant you@corp --ca DIR --key {key} --by me@corp --for 1h --reason WHY --ticket ID\n"
    );
    print(out, args.output, &json, &text)
}

pub(super) fn grant(args: &Args, out: &mut dyn Write) -> Result<Ending, Failure> {
    let now = clock::wall();
    let (user, fingerprint, ends) = whose(args, now)?;
    let cluster = match &args.cluster {
        Some(name) => name.clone(),
        None => authority(&args.folder.ca)?,
    };
    let starts = args.starts.unwrap_or(now);
    let order = GrantOrder {
        user: &user,
        fingerprint: &fingerprint,
        cluster: &cluster,
        by: &args.by,
        reason: &args.reason,
        ticket: &args.ticket,
        starts,
        length: args.length,
    };
    if ends <= starts {
        return Err(Failure::new(format!(
            "the certificate of {user} ends at {}, before the grant begins; issue a new one first",
            show_time(ends)
        )));
    }
    let sealed = read_text(&args.key, PEM_BYTES_MAX)?;
    let key = GrantKey::open(&sealed, &args.passphrase.ask()?).map_err(Failure::new)?;
    let signed = key.sign(&order, now).map_err(Failure::usage)?;
    told(args, &order, &signed, out)
}

fn told(
    args: &Args,
    order: &GrantOrder<'_>,
    signed: &SignedGrant,
    out: &mut dyn Write,
) -> Result<Ending, Failure> {
    let end = show_time(order.starts + order.length);
    let Some(file) = &args.out else {
        let json = json!({ "grant": signed.id, "token": signed.token, "notAfter": end });
        // Asked for by pipe or redirection: the token itself is the result.
        return print(out, args.output, &json, &format!("{}\n", signed.token));
    };
    write_private(file, &format!("{}\n", signed.token))?;
    let file = file.display();
    let json = json!({
        "grant": signed.id, "file": file.to_string(), "user": order.user, "certificate": order.fingerprint,
        "cluster": order.cluster, "by": order.by, "reason": order.reason, "ticket": order.ticket,
        "notBefore": show_time(order.starts), "notAfter": end, "key": signed.key_id,
    });
    let text = format!(
        "granted to {} for {}, until {end} ({}: {})\n\
         \x20 grant        {}\n\
         \x20 certificate  {}\n\
         \x20 cluster      {}\n\
         \x20 by           {}, with key {}\n\
         \x20 file         {file}\n\
         next:\n\
         \x20 spillway break-glass arm --grant {file} --kubeconfig FILE      # by {}\n",
        order.user,
        show_duration(order.length),
        order.ticket,
        order.reason,
        signed.id,
        order.fingerprint,
        order.cluster,
        order.by,
        signed.key_id,
        order.user,
    );
    print(out, args.output, &json, &text)
}

/// The person, the certificate's fingerprint, and its end.
fn whose(args: &Args, now: SystemTime) -> Result<(String, String, SystemTime), Failure> {
    if let Some(file) = &args.cert {
        let shown = read_certificate(read_text(file, PEM_BYTES_MAX)?.as_bytes())
            .map_err(|why| Failure::new(format!("{}: {why}", file.display())))?;
        let user = shown.user.ok_or_else(|| {
            Failure::new(format!("the certificate in {} names nobody, or several people", file.display()))
        })?;
        return Ok((user, shown.fingerprint, shown.not_after));
    }
    let user = args.user.as_deref().unwrap_or_default();
    let entries = Folder::new(args.folder.ca.clone()).entries()?;
    let people: Vec<&Entry> = entries.iter().filter(|entry| !entry.drill).collect();
    let last = people.iter().rev().find(|entry| entry.user == user && !entry.is_expired(now));
    let Some(last) = last else {
        let hint = nearest(user, people.iter().map(|entry| entry.user.as_str()).filter(|name| *name != user))
            .map_or_else(
                || "`spillway break-glass list --ca DIR` shows what there is; `issue` makes one".to_owned(),
                |near| format!("did you mean {near}?"),
            );
        return Err(Failure::usage(format!(
            "no certificate of {user:?} in that folder is valid now; {hint}"
        )));
    };
    Ok((user.to_owned(), last.fingerprint.clone(), parse_time(&last.not_after).unwrap_or(now)))
}

/// The name of a cluster that has none: the fingerprint of its break-glass CA.
fn authority(folder: &Path) -> Result<String, Failure> {
    let file = Folder::new(folder.to_path_buf()).certificate();
    let text = read_text(&file, PEM_BYTES_MAX).map_err(|error| {
        Failure::new(format!("{error}; name the CA's folder with --ca, or the cluster with --cluster"))
    })?;
    let shown = read_certificate(text.as_bytes())
        .map_err(|why| Failure::new(format!("{}: {why}", file.display())))?;
    Ok(shown.fingerprint)
}

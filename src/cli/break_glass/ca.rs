//! `spillway break-glass ca init`: make the CA, once.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args as ClapArgs;
use serde_json::json;

use super::{Ending, Failure, Output, passphrase, print, time};
use crate::breakglass::{Folder, found, show_time};
use crate::clock;

/// Makes a CA whose key is encrypted with a passphrase. Run it on a machine that is offline, and keep the key there.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  spillway break-glass ca init --out bg-ca
  spillway break-glass ca init --out bg-ca --passphrase-file /media/key/passphrase --valid 365d

ca.crt goes to every control-plane node (breakGlass.clientCAFile). ca.key never does: it is needed for `issue` alone.
Nothing that exists is overwritten.")]
pub(super) struct Args {
    /// Folder for ca.crt and ca.key; it is made when it is missing
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The CA's name, as certificates show their issuer
    #[arg(long, value_name = "NAME", default_value = "spillway break-glass CA", value_parser = ca_name)]
    name: String,
    /// From now to its end, at most ten years
    #[arg(long, value_name = "TIME", default_value = "730d", value_parser = time)]
    valid: Duration,
    #[command(flatten)]
    passphrase: passphrase::Source,
    /// How the result is printed
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

fn ca_name(text: &str) -> Result<String, String> {
    let fits = (1..=64).contains(&text.len()) && text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if fits { Ok(text.to_owned()) } else { Err("expected 1 to 64 printable ASCII characters".to_owned()) }
}

pub(super) fn init(args: &Args, out: &mut dyn Write) -> Result<Ending, Failure> {
    let folder = Folder::new(args.out.clone());
    // Before anybody is asked to invent a passphrase.
    folder.check_free()?;
    let passphrase = args.passphrase.choose()?;
    let founded = found(&args.name, args.valid, &passphrase, clock::wall())?;
    folder.create(&founded.certificate_pem, &founded.sealed_key_pem)?;
    let (certificate, key) = (folder.certificate(), folder.key());
    let (certificate, key, dir) = (certificate.display(), key.display(), args.out.display());
    let (fingerprint, end) = (&founded.shown.fingerprint, show_time(founded.shown.not_after));
    let json = json!({
        "certificate": certificate.to_string(), "key": key.to_string(), "name": args.name,
        "fingerprint": fingerprint, "notAfter": end,
    });
    let text = format!(
        "made {}, valid until {end}\n\
         \x20 certificate  {certificate}\n\
         \x20 key          {key}  (encrypted, mode 0600)\n\
         \x20 fingerprint  {fingerprint}\n\
         next:\n\
         \x20 copy {certificate} to every control-plane node and name it in breakGlass.clientCAFile\n\
         \x20 spillway break-glass issue --ca {dir} --user you@corp --ttl 24h\n\
         \x20 write the fingerprint on the envelope; keep key and passphrase in two different places\n",
        args.name
    );
    print(out, args.output, &json, &text)
}

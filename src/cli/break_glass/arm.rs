//! `spillway break-glass arm`, `confirm` and `disarm`: say why the lane is needed.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args as ClapArgs;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Ending, Failure, Output, print, time};
use crate::breakglass::{Answer, Target, read_kubeconfig, read_text, show_duration};

/// Bytes of a grant's file that are read.
const GRANT_BYTES_MAX: u64 = 64 << 10;

/// Opens the lane for yourself for a time, by a reason and a ticket or by a signed grant.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  spillway break-glass arm --reason 'delete the DaemonSet that floods the apiserver' --ticket INC-481 --for 1h \\
      --kubeconfig alice.kubeconfig
  spillway break-glass arm --grant alice.grant --kubeconfig alice.kubeconfig
  spillway break-glass arm --alone --for 15m …      # TwoPerson, and there is nobody else: shorter, and louder

It is a request to the lane itself, with your certificate: it needs nothing that the lane does not need.")]
pub(super) struct Args {
    /// Why the lane is needed
    #[arg(long, value_name = "TEXT", required_unless_present = "grant")]
    reason: Option<String>,
    /// Under which ticket
    #[arg(long, value_name = "ID", required_unless_present = "grant")]
    ticket: Option<String>,
    /// File of a grant, as `spillway break-glass grant` wrote it: it says all of that by itself
    #[arg(long, value_name = "FILE", conflicts_with_all = ["reason", "ticket", "length", "alone"])]
    grant: Option<PathBuf>,
    /// For how long, 1m to 4h (with --alone at most 15m)
    #[arg(long = "for", value_name = "TIME", default_value = "1h", value_parser = time)]
    length: Duration,
    /// Without a second person, where the lane wants two
    #[arg(long)]
    alone: bool,
    #[command(flatten)]
    access: AccessFile,
}

/// Confirms that somebody else may use the lane. You need a certificate of your own.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  spillway break-glass confirm alice@corp --kubeconfig bob.kubeconfig")]
pub(super) struct ConfirmArgs {
    /// Who asked for it
    #[arg(value_name = "USER")]
    user: String,
    #[command(flatten)]
    access: AccessFile,
}

/// Closes the lane for yourself before the time is over.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  spillway break-glass disarm --kubeconfig alice.kubeconfig")]
pub(super) struct DisarmArgs {
    #[command(flatten)]
    access: AccessFile,
}

/// Where the lane is, and who you are.
#[derive(Debug, ClapArgs)]
pub(super) struct AccessFile {
    /// Your kubeconfig for the lane
    #[arg(long, value_name = "FILE")]
    kubeconfig: PathBuf,
    /// How the result is printed
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn arm(args: &Args, out: &mut dyn Write) -> Result<Ending, Failure> {
    if let Some(file) = &args.grant {
        let token = read_text(file, GRANT_BYTES_MAX)?;
        let answer = ask(&args.access.kubeconfig, "/spillway/grant", &json!({ "token": token.trim() }))?;
        return armed(&answer, args.access.output, out);
    }
    let wish = json!({
        "reason": args.reason, "ticket": args.ticket, "seconds": args.length.as_secs(), "alone": args.alone,
    });
    let answer = ask(&args.access.kubeconfig, "/spillway/arm", &wish)?;
    if answer.status == StatusCode::ACCEPTED {
        let json = said(&answer);
        let text = format!("not armed yet: {}\n", json["message"].as_str().unwrap_or_default());
        return print(out, args.access.output, &json, &text);
    }
    armed(&answer, args.access.output, out)
}

pub(super) fn confirm(args: &ConfirmArgs, out: &mut dyn Write) -> Result<Ending, Failure> {
    let answer = ask(&args.access.kubeconfig, "/spillway/confirm", &json!({ "user": args.user }))?;
    armed(&answer, args.access.output, out)
}

pub(super) fn disarm(args: &DisarmArgs, out: &mut dyn Write) -> Result<Ending, Failure> {
    let answer = ask(&args.access.kubeconfig, "/spillway/disarm", &Value::Null)?;
    let json = expect_ok(&answer)?;
    let text = if json["disarmed"] == true {
        "disarmed\n"
    } else {
        "nothing to do: the lane was not armed for you\n"
    };
    print(out, args.access.output, &json, text)
}

fn armed(answer: &Answer, output: Output, out: &mut dyn Write) -> Result<Ending, Failure> {
    let json = expect_ok(answer)?;
    let grant = &json["armed"];
    let text = |key: &str| grant[key].as_str().unwrap_or_default().to_owned();
    let left = Duration::from_secs(grant["secondsLeft"].as_u64().unwrap_or(0));
    let left = show_duration(left);
    let second = match (grant["second"].as_str().or(grant["grantedBy"].as_str()), grant["alone"] == true) {
        (Some(by), _) if grant["grantedBy"].is_string() => format!(", granted by {by}"),
        (Some(second), _) => format!(", confirmed by {second}"),
        (None, true) => ", alone".to_owned(),
        (None, false) => String::new(),
    };
    let line =
        format!("armed for {} for {left} ({}: {}{second})\n", text("user"), text("ticket"), text("reason"));
    print(out, output, &json, &line)
}

fn expect_ok(answer: &Answer) -> Result<Value, Failure> {
    let json = said(answer);
    if answer.status.is_success() {
        return Ok(json);
    }
    Err(Failure::new(json["message"].as_str().map_or_else(|| answer.status.to_string(), str::to_owned)))
}

fn said(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_default()
}

fn ask(kubeconfig: &Path, path: &str, body: &Value) -> Result<Answer, Failure> {
    let access = read_kubeconfig(kubeconfig).map_err(Failure::new)?;
    let target = Target::of(&access).map_err(Failure::new)?;
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(target.ask(Method::POST, path, &body)).map_err(|error| {
        Failure::new(format!(
            "{} does not answer: {error}; `spillway break-glass test` says more",
            target.address()
        ))
    })
}

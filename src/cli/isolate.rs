//! `spillway isolate`, `release`, `isolations`: contain one client now, see what is contained, let go.

use std::io::{self, BufRead as _, IsTerminal, Write};
use std::time::Duration;

use clap::{Args as ClapArgs, ValueEnum};
use serde_json::json;

use super::Ending;
use super::effect::{Told, Watch};
use super::several;
use super::shown::{self, Output, fit, quoted, span, whole_seconds};
use super::socket::{Failure, Where, parse_time};
use crate::admin::wire::{
    Isolate, Isolated, IsolationView, Isolations, Preview, Problem, Release, Status, code,
};

/// Contains one client now, until an end that comes by itself.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  spillway isolate serviceaccount obs/node-agent --to penalty --for 30m --reason \"1.9 lists all pods\"
  spillway isolate user alice --to deny --for 10m --reason INC-481 --yes
  spillway isolate cidr 10.8.4.0/24 --to deny --for 5m --reason \"scanner\" --dry-run

penalty: one request at a time and one a second, ranked as telemetry, all that the name covers together.
deny:    429 with a Retry-After that keeps clients away; running watches and exec sessions are ended.
Never touched: the break-glass listener and health probes; leases and controllers, unless --force-protected.
Shows who is affected and asks first; --yes for scripts. It survives a restart of spillway (state.dir).
Exit codes: 0 in force, 1 refused, 2 usage, 4 nobody answers, 5 not allowed, 6 no answer in time.")]
pub struct Args {
    /// What the name is
    #[arg(value_enum)]
    kind: Kind,
    /// Whom: a user, a group, NAMESPACE/NAME of a service account, a namespace, an address or network
    name: String,
    /// What happens to them
    #[arg(long, value_enum)]
    to: To,
    /// When it ends by itself, 1s to 24h
    #[arg(long = "for", value_name = "TIME", value_parser = parse_time)]
    ttl: Duration,
    /// Why; told to the client, at most 200 bytes
    #[arg(long)]
    reason: String,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Although the cluster may not do without them
    #[arg(long)]
    force_protected: bool,
    /// Only show who would be affected
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    watch: Watch,
    #[command(flatten)]
    at: Where,
    /// How it is printed
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Kinds of names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lower")]
enum Kind {
    User,
    Group,
    ServiceAccount,
    Namespace,
    Cidr,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Group => "group",
            Self::ServiceAccount => "serviceaccount",
            Self::Namespace => "namespace",
            Self::Cidr => "cidr",
        }
    }
}

/// What happens to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum To {
    Penalty,
    Deny,
}

/// Ends an isolation.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  spillway release iso-3f2a
  spillway release obs/node-agent")]
pub struct ReleaseArgs {
    /// Its id, or the name that was isolated
    which: String,
    #[command(flatten)]
    watch: Watch,
    #[command(flatten)]
    at: Where,
    /// How it is printed
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Shows what is isolated.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  spillway isolations
  spillway isolations -o json")]
pub struct ListArgs {
    #[command(flatten)]
    at: Where,
    /// How it is printed
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Previews, asks, isolates, shows the effect.
pub fn run(args: &Args, out: &mut dyn Write, err: &mut dyn Write) -> Ending {
    isolate(args, out, err).unwrap_or_else(|failure| failure.tell(err))
}

fn isolate(args: &Args, out: &mut dyn Write, err: &mut dyn Write) -> Result<Ending, Failure> {
    let mut request = Isolate {
        kind: args.kind.as_str().to_owned(),
        name: args.name.clone(),
        to: match args.to {
            To::Penalty => "penalty",
            To::Deny => "deny",
        }
        .to_owned(),
        for_seconds: whole_seconds(args.ttl),
        reason: args.reason.clone(),
        force_protected: args.force_protected,
        dry_run: true,
    };
    if args.at.is_several() {
        let choice = several::Choice { is_sure: args.yes, dry_run: args.dry_run, output: args.output };
        return several::isolate(&args.at, request, &choice, out, err);
    }
    let before: Status = args.at.get("/v1/status")?;
    let preview: Isolated = args.at.post("/v1/isolations", &request)?;
    if args.dry_run {
        let printed = shown::for_programs(args.output, &preview, out);
        let printed = printed.and_then(|done| if done { Ok(()) } else { show_preview(&preview, out) });
        return Ok(ended(printed));
    }
    let is_protected = !preview.preview.protected.is_empty() && !args.force_protected;
    // What is protected is refused by the proxy itself, with what to do.
    if !args.yes && !is_protected {
        // A closed terminal cannot be asked; then the answer is no.
        let _ = show_preview(&preview, err);
        confirmed("Isolate them?", err)?;
    }
    request.dry_run = false;
    let isolated: Isolated = args.at.post("/v1/isolations", &request)?;
    let view = &isolated.isolation;
    let left = span(view.remaining_seconds);
    let told = Told {
        before: &before,
        kept: &isolated.kept,
        object: json!({ "isolated": isolated }),
        text: format!("isolated {} ({}) as {}, for {left}", shown_name(view), view.action, view.id),
        let_go: Some(format!("spillway release {}", view.id)),
    };
    told.tell(args.watch, &args.at, args.output, out, err)
}

/// Releases and shows the effect.
pub fn release(args: &ReleaseArgs, out: &mut dyn Write, err: &mut dyn Write) -> Ending {
    release_it(args, out, err).unwrap_or_else(|failure| failure.tell(err))
}

fn release_it(args: &ReleaseArgs, out: &mut dyn Write, err: &mut dyn Write) -> Result<Ending, Failure> {
    if args.at.is_several() {
        return several::release(&args.at, &args.which, args.output, out, err);
    }
    let before: Status = args.at.get("/v1/status")?;
    let request = Release { which: args.which.clone() };
    let released: Isolated = args.at.post("/v1/isolations/release", &request)?;
    let view = &released.isolation;
    let told = Told {
        before: &before,
        kept: &released.kept,
        object: json!({ "released": view }),
        text: format!("released {} ({}), {} refused", shown_name(view), view.id, view.refused),
        let_go: None,
    };
    told.tell(args.watch, &args.at, args.output, out, err)
}

/// Lists.
pub fn list(args: &ListArgs, out: &mut dyn Write, err: &mut dyn Write) -> Ending {
    if args.at.is_several() {
        let shown = several::isolations(&args.at, args.output, out, err);
        return shown.unwrap_or_else(|failure| failure.tell(err));
    }
    let isolations: Isolations = match args.at.get("/v1/isolations") {
        Ok(isolations) => isolations,
        Err(failure) => return failure.tell(err),
    };
    let printed = shown::for_programs(args.output, &isolations, out);
    ended(printed.and_then(|done| if done { Ok(()) } else { table(&isolations.isolations, out) }))
}

fn table(isolations: &[IsolationView], out: &mut dyn Write) -> io::Result<()> {
    if isolations.is_empty() {
        return writeln!(out, "nobody is isolated");
    }
    writeln!(out, "ID        ACTION   LEFT     REFUSED    PASSED  BY        WHO, AND WHY")?;
    for view in isolations {
        writeln!(
            out,
            "{:<8}  {:<7}  {:<6} {:>9} {:>9}  {:<8}",
            fit(&view.id, 8),
            fit(&view.action, 7),
            span(view.remaining_seconds),
            view.refused,
            view.passed,
            fit(&view.by, 8),
        )?;
        let forced = if view.forced { " (forced)" } else { "" };
        let who = format!("{}{forced}: {}", shown_name(view), view.reason);
        writeln!(out, "  {}", shown::wrapped(&who, "    "))?;
    }
    Ok(())
}

pub(super) fn show_preview(isolated: &Isolated, out: &mut dyn Write) -> io::Result<()> {
    let Isolated { isolation, preview, .. } = isolated;
    let Preview { clients, matching, near, protected } = preview;
    let left = span(isolation.remaining_seconds);
    let what = format!("{} → {} for {left}: {}", shown_name(isolation), isolation.action, isolation.reason);
    writeln!(out, "{}", shown::wrapped(&what, "  "))?;
    if *matching == 0 {
        let near = near.as_ref().map(|near| format!(" did you mean {near:?}?")).unwrap_or_default();
        let text = format!("! nobody of this name was here lately: is it spelt right?{near}");
        writeln!(out, "{}", shown::wrapped(&text, "  "))?;
    } else {
        writeln!(out, "{:<50} {:>8} {:>9}  LANES", "WAS HERE LATELY", "SERVED/s", "REFUSED/s")?;
    }
    for client in clients {
        let lanes = fit(client.lanes.last().map_or("", String::as_str), 9);
        let (served, shed) = (client.served_per_second, client.shed_per_second);
        writeln!(out, "{:<50} {served:>8.1} {shed:>9.1}  {lanes}", fit(&client.user, 50))?;
    }
    if *matching > clients.len() {
        writeln!(out, "and {} more", matching - clients.len())?;
    }
    for reason in protected {
        writeln!(out, "{}", shown::wrapped(&format!("! protected: {reason}"), "  "))?;
    }
    Ok(())
}

/// Asks, where somebody can be asked.
pub(super) fn confirmed(question: &str, err: &mut dyn Write) -> Result<(), Failure> {
    let not_asked = |message: &str, help: &str| {
        Err(Failure::new(Ending::Usage, Problem::new(code::CONFIRM, message, help)))
    };
    if !io::stdin().is_terminal() {
        return not_asked(
            "nobody can be asked here: standard input is no terminal",
            "add --yes, or --dry-run to look first",
        );
    }
    let _ = write!(err, "{question} [y/N] ");
    let _ = err.flush();
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" if read.is_ok() => Ok(()),
        _ => not_asked("nothing was changed", "answer y, or add --yes"),
    }
}

fn shown_name(view: &IsolationView) -> String {
    format!("{} {}", view.kind, quoted(&view.name))
}

pub(super) fn ended(printed: io::Result<()>) -> Ending {
    // Its reader has closed the pipe: nobody is left to tell.
    if printed.is_ok() { Ending::Fine } else { Ending::Failed }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::wire::ClientView;
    use crate::flow::levers::Target;

    fn text(print: impl Fn(&mut Vec<u8>) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        print(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.lines().all(|line| line.chars().count() <= shown::COLUMNS), "{text}");
        text
    }

    fn view() -> IsolationView {
        IsolationView {
            id: "iso-3f2a".into(),
            kind: "serviceaccount".into(),
            name: "observability/opentelemetry-node-agent".into(),
            action: "penalty".into(),
            remaining_seconds: 86_399,
            reason: "node-agent 1.9 lists all pods of the cluster every ten seconds, from every node".into(),
            by: "uid 1000".into(),
            refused: 12_345_678,
            passed: 1_798,
            ..IsolationView::default()
        }
    }

    #[test]
    fn the_table_is_its_golden_text() {
        let second = IsolationView { forced: true, action: "deny".into(), remaining_seconds: 9, ..view() };
        let table = text(|out| table(&[view(), second.clone()], out));
        super::super::golden::compare("isolations", &table);
        assert_eq!(text(|out| super::table(&[], out)), "nobody is isolated\n");
    }

    #[test]
    fn the_preview_is_its_golden_text() {
        let client = |number: usize| ClientView {
            user: format!("system:serviceaccount:observability:opentelemetry-node-agent-{number}"),
            lanes: vec!["node-health".into(), "telemetry".into()],
            served_per_second: 12.0,
            shed_per_second: 1_790.4,
            ..ClientView::default()
        };
        let preview = Preview {
            clients: (0..2).map(client).collect(),
            matching: 14,
            near: None,
            protected: vec!["group system:nodes is every kubelet".into()],
        };
        let isolated = Isolated { isolation: view(), preview, ..Isolated::default() };
        super::super::golden::compare("preview", &text(|out| show_preview(&isolated, out)));
        let preview = Preview { near: Some("obs/node-agent".into()), ..Preview::default() };
        let nobody = Isolated { preview, ..isolated };
        let said = text(|out| show_preview(&nobody, out)).replace("\n  ", " ");
        assert!(said.contains("is it spelt right? did you mean \"obs/node-agent\"?"), "{said}");
    }

    #[test]
    fn the_command_line_knows_every_kind_that_there_is() {
        let kinds: Vec<&str> = Kind::value_variants().iter().map(|kind| kind.as_str()).collect();
        assert_eq!(kinds, Target::KINDS);
        for kind in Kind::value_variants() {
            let typed = kind.to_possible_value().unwrap();
            assert_eq!(typed.get_name(), kind.as_str());
        }
    }
}

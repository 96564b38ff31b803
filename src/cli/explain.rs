//! `spillway explain`: why was this request refused, and what would become of that one?

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use time::OffsetDateTime;
use time::macros::format_description;

use super::Ending;
use super::isolate::ended;
use super::several;
use super::shown::{COLUMNS, Output, fit, for_programs, wrapped};
use super::socket::{Failure, Where};
use crate::admin::explained::{DecisionLines, Explain, Explained, GateStep, RuleStep};
use crate::admin::wire::{Problem, code};
use crate::app::{explain, flow_settings};
use crate::clock;
use crate::config::{self, FileChecks};
use crate::flow::Scheduler;

/// Explains a refusal by its id, or what would become of a request.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  spillway explain                              the latest refusals and their ids
  spillway explain 5e0c11d2                     the id that the client was told, or its Audit-ID
  spillway explain --user system:serviceaccount:obs:node-agent
  spillway explain --as system:serviceaccount:obs:node-agent --verb list --path /api/v1/pods
  spillway explain --as alice --as-group platform-oncall --path /api/v1/nodes --policy new.yaml

With --policy nothing has to run: rules and lanes of the file, on an idle kube-apiserver. Without it the running
spillway is asked, and its numbers of this moment count. Nothing is sent to kube-apiserver, nothing is used up.
Kept are the last 4,096 refusals, and the last one of each of 1,024 clients, since the start of the process.
Exit codes: 0 explained, 1 not kept any more, 2 usage, 3 the policy is invalid, 4 nobody answers, 5 not allowed.")]
pub struct Args {
    /// The decision's id, as the refusal says it, or the request's audit id
    #[arg(conflicts_with_all = ["user", "caller"])]
    id: Option<String>,
    /// List the last refusals of this user
    #[arg(long, value_name = "NAME", conflicts_with = "caller")]
    user: Option<String>,
    /// Ask what would become of a request of this user
    #[arg(long = "as", value_name = "USER", requires = "path")]
    caller: Option<String>,
    /// A group of that user; again for more
    #[arg(long = "as-group", value_name = "GROUP", requires = "caller")]
    groups: Vec<String>,
    /// How that user proves who it is; a token for service accounts, else a certificate
    #[arg(long, value_enum, requires = "caller")]
    credential: Option<Proof>,
    /// The address it comes from, for isolations of networks
    #[arg(long, value_name = "ADDRESS", requires = "caller")]
    from: Option<String>,
    /// What it wants to do
    #[arg(long, value_enum, default_value_t, requires = "caller")]
    verb: Wanted,
    /// With what: path and query
    #[arg(long, requires = "caller")]
    path: Option<String>,
    /// What the client says it is
    #[arg(long, requires = "caller")]
    user_agent: Option<String>,
    /// It acts as somebody else (Impersonate-User)
    #[arg(long, requires = "caller")]
    impersonates: bool,
    /// Offline: these files instead of a running spillway
    #[arg(long, value_name = "FILE", requires = "caller")]
    policy: Vec<PathBuf>,
    /// Show every rule, also those that do not fit
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    at: Where,
    /// How it is printed
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// How a caller proves who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Proof {
    Certificate,
    ServiceAccountToken,
    OidcToken,
    ReviewedToken,
    UnverifiedToken,
    Anonymous,
    BreakGlass,
}

impl Proof {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::ServiceAccountToken => "service_account_token",
            Self::OidcToken => "oidc_token",
            Self::ReviewedToken => "reviewed_token",
            Self::UnverifiedToken => "unverified_token",
            Self::Anonymous => "anonymous",
            Self::BreakGlass => "break_glass",
        }
    }
}

/// Verbs, as people say them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lower")]
enum Wanted {
    #[default]
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
}

impl Wanted {
    const fn method(self) -> &'static str {
        match self {
            Self::Get | Self::List | Self::Watch => "GET",
            Self::Create => "POST",
            Self::Update => "PUT",
            Self::Patch => "PATCH",
            Self::Delete | Self::DeleteCollection => "DELETE",
        }
    }
}

/// Asks and prints.
pub fn run(args: &Args, out: &mut dyn Write, err: &mut dyn Write) -> Ending {
    if args.at.is_several() && args.policy.is_empty() {
        return of_several(args, out, err).unwrap_or_else(|failure| failure.tell(err));
    }
    if let Some(asked) = question(args) {
        let explained = if args.policy.is_empty() {
            args.at.post("/v1/explain", &asked)
        } else {
            match offline(args, &asked, err) {
                Ok(explained) => explained,
                Err(ending) => return ending,
            }
        };
        return tell(args, explained, out, err);
    }
    if let Some(id) = &args.id {
        let id = utf8_percent_encode(id, NON_ALPHANUMERIC);
        return tell(args, args.at.get(&format!("/v1/decisions/{id}")), out, err);
    }
    let lines: Result<DecisionLines, Failure> = args.at.get(&format!("/v1/decisions{}", query(args)));
    match lines {
        Ok(lines) => ended(list(&lines, args.user.as_deref().unwrap_or_default(), args.output, out)),
        Err(failure) => failure.tell(err),
    }
}

/// Whose refusals.
fn query(args: &Args) -> String {
    let user = args.user.as_deref().filter(|user| !user.is_empty());
    user.map_or_else(String::new, |user| format!("?user={}", utf8_percent_encode(user, NON_ALPHANUMERIC)))
}

fn of_several(args: &Args, out: &mut dyn Write, err: &mut dyn Write) -> Result<Ending, Failure> {
    let shown = |explained: &Explained, out: &mut dyn Write| print(explained, args, out);
    if let Some(asked) = question(args) {
        let ask = |at: &Where| at.post("/v1/explain", &asked);
        return several::explained(&args.at, ask, args.output, &shown, (out, err));
    }
    let Some(id) = &args.id else {
        return several::decisions(&args.at, &query(args), args.output, out, err);
    };
    let path = format!("/v1/decisions/{}", utf8_percent_encode(id, NON_ALPHANUMERIC));
    several::explained(&args.at, |at| at.get(&path), args.output, &shown, (out, err))
}

fn tell(
    args: &Args,
    explained: Result<Explained, Failure>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Ending {
    match explained {
        Ok(explained) => ended(print(&explained, args, out)),
        Err(failure) => failure.tell(err),
    }
}

/// The question that the arguments ask, if it is one about a request.
fn question(args: &Args) -> Option<Explain> {
    let (user, path) = (args.caller.as_ref()?, args.path.as_ref()?);
    let proof = args.credential.unwrap_or(match user.as_str() {
        "system:anonymous" => Proof::Anonymous,
        user if user.starts_with("system:serviceaccount:") => Proof::ServiceAccountToken,
        _ => Proof::Certificate,
    });
    let watches = path.split(['?', '&']).any(|part| part.starts_with("watch="));
    let target = match (args.verb, watches) {
        (Wanted::Watch, false) => format!("{path}{}watch=1", if path.contains('?') { '&' } else { '?' }),
        _ => path.clone(),
    };
    Some(Explain {
        user: user.clone(),
        groups: args.groups.clone(),
        credential: proof.as_str().to_owned(),
        from: args.from.clone(),
        method: args.verb.method().to_owned(),
        target,
        user_agent: args.user_agent.clone(),
        impersonates: args.impersonates,
    })
}

/// The same from files, with a scheduler of its own that has nothing to do.
fn offline(args: &Args, asked: &Explain, err: &mut dyn Write) -> Result<Result<Explained, Failure>, Ending> {
    let loaded = config::load_with(&args.policy, FileChecks::Off).map_err(|found| {
        // A closed terminal cannot be told anything; the exit code still says it.
        let _ = writeln!(err, "{found}");
        Ending::Config
    })?;
    let policy = loaded.policy.compile(0).map_err(|error| {
        let _ = writeln!(err, "error: {error}");
        Ending::Config
    })?;
    let now = clock::now();
    let scheduler = Scheduler::new(flow_settings(&loaded.policy), 0, now);
    let explained = explain::what_if(asked, &policy, |_| None, |arrival| scheduler.walk(now, arrival));
    Ok(explained.map(|explained| Explained { live: false, ..explained }).map_err(|error| {
        Failure::new(
            Ending::Usage,
            Problem::new(code::NO_REQUEST, error.to_string(), "spillway explain --help"),
        )
    }))
}

fn list(lines: &DecisionLines, user: &str, output: Output, out: &mut dyn Write) -> io::Result<()> {
    if for_programs(output, lines, out)? {
        return Ok(());
    }
    if lines.decisions.is_empty() {
        return match user {
            "" => writeln!(out, "nothing was refused since the start of this spillway"),
            user => writeln!(
                out,
                "no refusal of {user:?} is kept\n  → spillway explain --as {} --path …   says what would become of a request",
                super::shown::quoted(user)
            ),
        };
    }
    writeln!(out, "{:<9} {:<13} {:<14} REASON", "ID", "AT", "LANE")?;
    for line in &lines.decisions {
        writeln!(out, "{:<9} {:<13} {:<14} {}", line.id, clock_time(line.at_ms), line.lane, line.reason)?;
        let text = format!("{} {}", line.user, line.request);
        writeln!(out, "{:<9} {}", "", fit(&text, COLUMNS - 12))?;
    }
    writeln!(
        out,
        "{} of {} that are kept, {} since the start; times are UTC",
        lines.decisions.len(),
        lines.kept,
        lines.ever
    )?;
    match lines.decisions.first() {
        Some(first) => writeln!(out, "  → spillway explain {}", first.id),
        None => Ok(()),
    }
}

fn print(explained: &Explained, args: &Args, out: &mut dyn Write) -> io::Result<()> {
    if for_programs(args.output, explained, out)? {
        return Ok(());
    }
    writeln!(out, "{}", headline(explained))?;
    let proof = if explained.verified { "" } else { ", not verified: no rule that promotes fits" };
    let mut who = format!("{} ({}{proof})", explained.user, explained.credential);
    if let Some(peer) = &explained.peer {
        who += &format!(" from {peer}");
    }
    row(out, "who", &who)?;
    if !explained.groups.is_empty() {
        row(out, "groups", &explained.groups.join(", "))?;
    }
    row(out, "what", &explained.request)?;
    if !explained.reads_as.is_empty() {
        row(out, "", &explained.reads_as)?;
    }
    if let Some(agent) = &explained.user_agent {
        row(out, "agent", agent)?;
    }
    print_rules(explained, args.verbose, out)?;
    match explained.mode.as_str() {
        "Shadow" => row(out, "mode", "Shadow: it is counted, and goes on whatever the gates say")?,
        "Disabled" => {
            row(out, "mode", "Disabled: it goes on whatever the gates say, and nothing is counted")?
        }
        _ => {}
    }
    for (at, gate) in explained.gates.iter().filter(|gate| gate.answer != "not-asked").enumerate() {
        row(out, if at == 0 { "gates" } else { "" }, &gate_text(gate))?;
    }
    if let Some(numbers) = &explained.numbers
        && !explained.gates.iter().any(|gate| gate.detail.contains(numbers.as_str()))
    {
        row(out, "numbers", numbers)?;
    }
    for (name, text) in
        [("told", &explained.told), ("client", &explained.client_can), ("operator", &explained.operator_can)]
    {
        if let Some(text) = text {
            row(out, name, text)?;
        }
    }
    if !explained.live {
        row(
            out,
            "note",
            "offline: the numbers are those of an idle kube-apiserver that nobody has asked yet",
        )?;
    }
    explained.next.iter().try_for_each(|next| writeln!(out, "  → {next}"))
}

fn print_rules(explained: &Explained, verbose: bool, out: &mut dyn Write) -> io::Result<()> {
    row(out, "rule", &format!("{} → lane {}", explained.rule, explained.lane))?;
    let told = |step: &&RuleStep| verbose || ["decides", "lowers", "fits"].contains(&step.verdict.as_str());
    for step in explained.rules.iter().filter(told) {
        row(out, "", &rule_text(step))?;
    }
    let missed = explained.rules.iter().filter(|step| !told(step)).count();
    if missed > 0 {
        row(out, "", &format!("{missed} others do not fit or were not reached: --verbose says why"))?;
    }
    Ok(())
}

fn rule_text(step: &RuleStep) -> String {
    let RuleStep { number, name, lane, verdict, misses } = step;
    let verdict = match (verdict.as_str(), misses) {
        ("decides", _) => format!("decides: {lane}"),
        ("lowers", _) => format!("lowers to {lane}"),
        ("fits", _) => format!("fits, and changes nothing ({lane})"),
        ("not-reached", _) => "not reached".to_owned(),
        (_, Some(part)) => format!("does not fit: {part}"),
        (_, None) => "does not fit".to_owned(),
    };
    format!("#{number} {name}: {verdict}")
}

fn gate_text(gate: &GateStep) -> String {
    let GateStep { name, answer, reason, detail } = gate;
    let mut text = format!("{name}: {answer}");
    if let Some(reason) = reason {
        text += &format!(" ({reason})");
    }
    if !detail.is_empty() {
        text += &format!("; {detail}");
    }
    text
}

fn headline(explained: &Explained) -> String {
    let word = explained.outcome.to_uppercase();
    let reason = explained.reason.as_ref().map_or_else(String::new, |reason| format!(" {reason}"));
    match (&explained.id, explained.at_ms) {
        (Some(id), Some(at)) => format!("{id}  {}  {word}{reason}", date_time(at)),
        _ if ["Shadow", "Disabled"].contains(&explained.mode.as_str()) && explained.outcome != "admit" => {
            format!("would: ADMIT ({}; enforced it would {word}{reason})", explained.mode)
        }
        _ => format!("would: {word}{reason}"),
    }
}

fn row(out: &mut dyn Write, name: &str, text: &str) -> io::Result<()> {
    // Wrapping takes words apart, so a word of the same width stands for the name until then.
    const WORD: &str = "nnnnnnnnn";
    let text = wrapped(&format!("{WORD} {text}"), "          ");
    writeln!(out, "{}", text.replacen(WORD, &format!(" {name:<8}"), 1).trim_end())
}

fn at(milliseconds: u64) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(milliseconds) * 1_000_000).ok()
}

/// `14:05:02.118`.
pub(super) fn clock_time(milliseconds: u64) -> String {
    let format = format_description!("[hour]:[minute]:[second].[subsecond digits:3]");
    at(milliseconds).and_then(|at| at.format(format).ok()).unwrap_or_else(|| "-".to_owned())
}

fn date_time(milliseconds: u64) -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    at(milliseconds).and_then(|at| at.format(format).ok()).unwrap_or_else(|| "-".to_owned())
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

    fn args(line: &[&str]) -> Args {
        Line::try_parse_from([&["explain"], line].concat()).unwrap().args
    }

    fn printed(explained: &Explained, line: &[&str]) -> String {
        let mut out = Vec::new();
        print(explained, &args(line), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn asked_offline(line: &[&str]) -> Explained {
        let args = args(line);
        let mut err = Vec::new();
        let told = offline(&args, &question(&args).unwrap(), &mut err);
        told.unwrap_or_else(|ending| panic!("{ending:?}: {}", String::from_utf8_lossy(&err))).unwrap()
    }

    const AGENT: &str = "system:serviceaccount:obs:node-agent";

    #[test]
    fn a_policy_in_shadow_says_so() {
        let args = [
            "--as",
            AGENT,
            "--verb",
            "list",
            "--path",
            "/api/v1/pods",
            "--policy",
            "config/first-policy.yaml",
        ];
        let text = printed(&asked_offline(&args), &args);
        assert!(text.contains("mode     Shadow: it is counted, and goes on"), "{text}");
    }

    #[test]
    fn a_question_offline_is_its_golden_text() {
        let line =
            ["--as", AGENT, "--verb", "list", "--path", "/api/v1/pods", "--policy", "config/policy.yaml"];
        super::super::golden::compare("explain-offline", &printed(&asked_offline(&line), &line));
        let line = [
            "--as",
            "system:node:n1",
            "--as-group",
            "system:nodes",
            "--verb",
            "update",
            "--path",
            "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1",
            "--policy",
            "config/policy.yaml",
            "-v",
        ];
        super::super::golden::compare("explain-offline-verbose", &printed(&asked_offline(&line), &line));
    }

    #[test]
    fn a_refusal_is_its_golden_text() {
        let step = |number, name: &str, lane: &str, verdict: &str, misses: Option<&str>| RuleStep {
            number,
            name: name.into(),
            lane: lane.into(),
            verdict: verdict.into(),
            misses: misses.map(str::to_owned),
        };
        let gate = |name: &str, answer: &str, reason: Option<&str>, detail: &str| GateStep {
            name: name.into(),
            answer: answer.into(),
            reason: reason.map(str::to_owned),
            detail: detail.into(),
        };
        let numbers =
            "state brown, pressure 3.20; L 40, used 39; the lane: 6 used, let in up to 24, always 2; 0 wait";
        let explained = Explained {
            mode: "Enforce".to_owned(),
            id: Some("5e0c11d2".into()),
            audit_id: Some("5e0c11d2-0000-4000-8000-000000000000".into()),
            at_ms: Some(1_790_000_000_118),
            live: true,
            outcome: "shed".into(),
            reason: Some("overload_level".into()),
            user: AGENT.into(),
            groups: vec!["system:serviceaccounts".into(), "system:authenticated".into()],
            credential: "service_account_token".into(),
            verified: true,
            peer: Some("10.8.4.17".into()),
            entrance: "main".into(),
            user_agent: Some("node-agent/1.9\u{1b}[2J".into()),
            request: "GET /api/v1/pods".into(),
            reads_as: "list pods, scope cluster, the whole collection at once".into(),
            lane: "telemetry".into(),
            rule: "telemetry".into(),
            rules: vec![
                step(1, "nodes", "platform", "misses", Some("groups")),
                step(2, "telemetry", "telemetry", "decides", None),
                step(3, "rest", "workload", "not-reached", None),
            ],
            gates: vec![
                gate("levers", "pass", None, ""),
                gate("seats", "stop", Some("overload_level"), numbers),
                gate("queue", "not-asked", None, ""),
            ],
            numbers: Some(numbers.into()),
            told: Some("429, Retry-After 17 s".into()),
            client_can: Some("watch instead of listing again, or page (limit=500)".into()),
            operator_can: Some("look who causes the pressure, and contain the culprit".into()),
            next: vec!["spillway status".into()],
        };
        super::super::golden::compare("explain", &printed(&explained, &[]));
        super::super::golden::compare("explain-verbose", &printed(&explained, &["-v"]));
    }

    #[test]
    fn a_list_is_its_golden_text() {
        let line = |id: &str, reason: &str| crate::admin::explained::DecisionLine {
            id: id.into(),
            at_ms: 1_790_000_000_118,
            user: AGENT.into(),
            lane: "telemetry".into(),
            reason: reason.into(),
            request: "GET /api/v1/pods?limit=500&continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEi".into(),
        };
        let lines = DecisionLines {
            decisions: vec![line("5e0c11d2", "overload_level"), line("0badcafe", "identity_rate")],
            kept: 4_608,
            ever: 812_355,
        };
        let mut out = Vec::new();
        list(&lines, "", Output::Table, &mut out).unwrap();
        list(&DecisionLines::default(), "", Output::Table, &mut out).unwrap();
        list(&DecisionLines::default(), "alice", Output::Table, &mut out).unwrap();
        super::super::golden::compare("explain-list", &String::from_utf8(out).unwrap());
    }

    #[test]
    fn a_mistake_in_the_question_ends_as_usage_or_config() {
        let path = ["--as", "alice", "--path", "api/v1", "--policy", "config/policy.yaml"];
        let (mut out, mut err) = (Vec::new(), Vec::new());
        assert_eq!(run(&args(&path), &mut out, &mut err), Ending::Usage);
        let text = String::from_utf8(err).unwrap();
        assert!(text.contains("error[SPW0781]") && text.contains("slash"), "{text}");
        let mut err = Vec::new();
        let broken = ["--as", "alice", "--path", "/api", "--policy", "tests/golden/config/unknown-lane.yaml"];
        assert_eq!(run(&args(&broken), &mut out, &mut err), Ending::Config);
        assert!(out.is_empty() && String::from_utf8(err).unwrap().contains("SPW0204"));
    }

    #[test]
    fn a_watch_is_asked_as_one() {
        let asked = |line: &[&str]| question(&args(line)).unwrap().target;
        assert_eq!(
            asked(&["--as", "a", "--verb", "watch", "--path", "/api/v1/pods"]),
            "/api/v1/pods?watch=1"
        );
        assert_eq!(
            asked(&["--as", "a", "--verb", "watch", "--path", "/api/v1/pods?limit=1"]),
            "/api/v1/pods?limit=1&watch=1"
        );
        assert_eq!(
            asked(&["--as", "a", "--verb", "watch", "--path", "/api/v1/pods?watch=true"]),
            "/api/v1/pods?watch=true"
        );
    }
}

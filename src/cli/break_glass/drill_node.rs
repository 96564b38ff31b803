//! The drill at the node: do the levers move, and did everything that was done leave its traces?
//!
//! What needs root on a control-plane node: the admin socket, the audit log's files, the metrics. Nothing of it goes
//! through the lane, as in an incident in which the lane is what does not work.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::super::lockdown;
use super::super::shown::whole_seconds;
use super::super::socket::Failure;
use super::drill::{Args, SHORT};
use super::drill_report::{Found, Report, bad, good, untried};
use crate::admin::wire::{Events, Isolate, Isolated, Isolations, Release, Status};
use crate::breakglass::audit::{Head, Question, Verdict, parse_public_key, verify};
use crate::breakglass::show_duration;
use crate::clock;

/// How long the metrics listener may take.
const PAGE_WITHIN: Duration = Duration::from_secs(10);
const PAGE_BYTES_MAX: u64 = 8 << 20;
/// The onUse command may run for ten seconds.
const ALERT_WITHIN: Duration = Duration::from_secs(12);
/// A record is on the disk before its answer leaves; a slow disk gets some time.
const RECORD_WITHIN: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_millis(250);
/// A self-probe comes every 60 s, and once more 15 s after one that failed.
const PROBE_AGE_MAX: Duration = Duration::from_secs(150);
/// Days that the lane's certificates must have left.
const DAYS_MIN: f64 = 7.0;
/// Bytes of one audit file, as verification reads it; more than any is.
const LOG: &str = "break-glass-audit";

/// The admin socket, a lever that names nobody, and what the big ones would do.
pub(super) fn levers(args: &Args, report: &mut Report) {
    let socket = report.wants("socket");
    let status: Result<Status, Failure> = args.at.get("/v1/status");
    if socket {
        let found = match &status {
            Ok(status) if status.ready => {
                let same = status.version == env!("CARGO_PKG_VERSION");
                let other = if same { "" } else { "; this program is of another version" };
                good(format!("spillway {} is ready, state {}{other}", status.version, status.state))
            }
            Ok(_) => bad("spillway says that it is not ready", "spillway status"),
            Err(failure) => missing(failure),
        };
        report.found("socket", found);
    }
    if report.wants("lever") {
        let found = match &status {
            Ok(_) => round_trip(args),
            Err(failure) => missing(failure),
        };
        report.found("lever", found);
    }
    if report.wants("preview") {
        let found = match &status {
            Ok(status) => preview(status),
            Err(failure) => missing(failure),
        };
        report.found("preview", found);
    }
}

fn missing(failure: &Failure) -> Found {
    let next = format!("{}; or from elsewhere --skip socket,lever,preview", failure.problem.help);
    untried(failure.problem.message.clone(), next)
}

/// Isolates a user that nobody is, sees it in force, lets go, sees it gone.
fn round_trip(args: &Args) -> Found {
    let name = format!("spillway-drill-{}", uuid::Uuid::new_v4().simple());
    let wrong = |failure: &Failure| bad(failure.problem.message.clone(), failure.problem.help.clone());
    let request = Isolate {
        kind: "user".to_owned(),
        name: name.clone(),
        to: "deny".to_owned(),
        for_seconds: whole_seconds(SHORT),
        reason: "drill".to_owned(),
        force_protected: false,
        dry_run: false,
    };
    let isolated: Isolated = match args.at.post("/v1/isolations", &request) {
        Ok(isolated) => isolated,
        Err(failure) => return wrong(&failure),
    };
    let id = isolated.isolation.id.clone();
    let in_force = || -> Result<bool, Failure> {
        let all: Isolations = args.at.get("/v1/isolations")?;
        Ok(all.isolations.iter().any(|one| one.id == id))
    };
    let was = in_force();
    let released = args.at.post::<Isolated>("/v1/isolations/release", &Release { which: id.clone() });
    if let Err(failure) = &released {
        let next = format!("spillway release {id}; it ends by itself within {}", show_duration(SHORT));
        return bad(format!("{} was not let go: {}", name, failure.problem.message), next);
    }
    let events: Result<Events, Failure> = args.at.get("/v1/events?after=0");
    let told = events.is_ok_and(|events| events.events.iter().any(|event| event.text.contains(&id)));
    match (was, in_force()) {
        (Ok(true), Ok(false)) if told && isolated.kept.on_disk => {
            good(format!("{id} was in force, is in the events, survives a restart, and is let go"))
        }
        (Ok(true), Ok(false)) if told => bad(
            format!("levers move, but would not survive a restart: {}", isolated.kept.problem),
            "set state.dir, or make room on its disk",
        ),
        (Ok(true), Ok(false)) => {
            bad("levers move, but spillway events does not show them", "spillway events")
        }
        (Ok(false), _) => bad("an isolation was taken and is not in force", "spillway isolations"),
        (Ok(true), Ok(true)) => bad(format!("{id} is still in force"), format!("spillway release {id}")),
        (Err(failure), _) | (_, Err(failure)) => wrong(&failure),
    }
}

/// What the two that hit everybody would do now; neither is pulled.
fn preview(status: &Status) -> Found {
    let held = status.held.as_ref().map(|held| format!(", held at {}", held.what)).unwrap_or_default();
    if let Some(lockdown) = &status.lockdown {
        let what = format!("there is a lockdown already: {}", lockdown.reason);
        return bad(what, "spillway lockdown --off, when nobody needs it");
    }
    good(format!(
        "a lockdown {}; L is {} and could be held at {} to {}{held}",
        lockdown::loss(status),
        status.limit,
        status.limit_min,
        status.limit_max
    ))
}

/// Audit log, alert, self-probe and certificates: what the use of the lane, and the time before it, left behind.
pub(super) async fn traces(
    args: &Args,
    before: &Result<Page, String>,
    used: Option<&str>,
    report: &mut Report,
) {
    if report.wants("audit") {
        let found = audited(args, used).await;
        report.found("audit", found);
    }
    let alert = report.wants("alert");
    let page = match (before, used) {
        (Ok(before), Some(_)) if alert => wait_for_alert(args.metrics, before).await,
        _ => Page::read(args.metrics).await,
    };
    let no_page = |why: &String| {
        let next = "--metrics ADDRESS (metrics.address of the configuration); or --skip alert,probe,expiry";
        untried(why.clone(), next)
    };
    if alert {
        let found = match (before, &page, used) {
            (Err(why), ..) | (_, Err(why), _) => no_page(why),
            (.., None) => untried("the lane was not used", "the first step that failed says what to do"),
            (Ok(before), Ok(after), Some(_)) => alerted(before, after),
        };
        report.found("alert", found);
    }
    if report.wants("probe") {
        let found = page.as_ref().map_or_else(no_page, |page| probed(page, clock::wall()));
        report.found("probe", found);
    }
    if report.wants("expiry") {
        let found = page.as_ref().map_or_else(no_page, expiring);
        report.found("expiry", found);
    }
}

/// The chain is whole, signed, and has the request that this drill made.
async fn audited(args: &Args, used: Option<&str>) -> Found {
    let begun = clock::now();
    loop {
        let found = audit_once(args, used);
        if matches!(found, Found::Good(_) | Found::Untried(..)) || clock::now().since(begun) > RECORD_WITHIN {
            return found;
        }
        // The proxy may be in the middle of a line.
        tokio::time::sleep(AGAIN).await;
    }
}

fn audit_once(args: &Args, used: Option<&str>) -> Found {
    let folder = &args.audit_dir;
    let files = match logs(folder) {
        Ok(files) if files.is_empty() => {
            let next =
                "--audit-dir DIR (breakGlass.audit.dir or state.dir); run it on the node; or --skip audit";
            return untried(format!("there is no audit log in {}", folder.display()), next);
        }
        Ok(files) => files,
        Err(error) => {
            let next = "run it on the node, as root; --audit-dir DIR; or --skip audit";
            return untried(format!("cannot read {}: {error}", folder.display()), next);
        }
    };
    let key = args.public_key.clone().unwrap_or_else(|| folder.join(format!("{LOG}.pub")));
    let Some(key) = std::fs::read_to_string(&key).ok().and_then(|text| parse_public_key(&text)) else {
        return untried(
            format!("no public key in {}", key.display()),
            "--public-key FILE: the copy that was kept elsewhere",
        );
    };
    let command = format!("spillway audit verify {}/{LOG}*.jsonl --public-key FILE", folder.display());
    let from = first_record(&files);
    let verdict = match verify(&Question { files: &files, public_key: Some(&key), from }) {
        Ok(verdict) => verdict,
        Err(why) => return bad(why, command),
    };
    if let Some(finding) = verdict.findings.first() {
        return bad(format!("the audit log is NOT whole: {}", finding.what), command);
    }
    if verdict.head != Head::Signed {
        return bad("the audit log's head is missing or unsigned: a cut would not be noticed", command);
    }
    match used {
        Some(id) if !knows(&files, id) => bad(
            format!("the audit log does not have this drill's own request {id}"),
            "is it the log of the node whose lane was used? --audit-dir DIR",
        ),
        Some(id) => good(format!("{}, and has request {id}", whole(&verdict))),
        None => untried(
            format!("{}; but the lane was not used", whole(&verdict)),
            "the first step that failed says what to do",
        ),
    }
}

fn whole(verdict: &Verdict) -> String {
    let (found, signed) = verdict.checkpoints;
    format!("{} records, whole, {signed} of {found} checkpoints and the head signed", verdict.last)
}

fn logs(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with(LOG) && name.ends_with(".jsonl") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Older files may have been retired: the chain is judged from the oldest that is there. Their names say the number.
fn first_record(files: &[PathBuf]) -> u64 {
    let number = |file: &PathBuf| {
        let name = file.file_stem()?.to_str()?;
        name.strip_prefix(LOG)?.strip_prefix('-')?.parse().ok()
    };
    files.iter().filter_map(number).min().unwrap_or(1)
}

/// Whether a record joins with kube-apiserver's `Audit-ID`.
fn knows(files: &[PathBuf], id: &str) -> bool {
    let wanted = format!("\"request_id\":\"{id}\"");
    let has = |file: &PathBuf| std::fs::read_to_string(file).is_ok_and(|text| text.contains(&wanted));
    files.iter().rev().any(has)
}

fn alerted(before: &Page, after: &Page) -> Found {
    let grew = |name: &str| after.value(name).unwrap_or(0.0) - before.value(name).unwrap_or(0.0);
    let told = |result: &str| grew(&format!("spillway_break_glass_alerts_total{{result=\"{result}\"}}"));
    let wrong: f64 = ["failed", "timeout", "dropped"].into_iter().map(told).sum();
    let next = "run breakGlass.onUse.command by hand with a line of JSON on its standard input";
    if told("ok") > 0.0 {
        good("breakGlass.onUse.command was told and ended well")
    } else if wrong > 0.0 {
        bad("breakGlass.onUse.command failed, hung or was dropped", next)
    } else if grew("spillway_break_glass_sessions_total") > 0.0 {
        untried(
            "the metric and the log tell of this use, but no command is configured",
            "breakGlass.onUse.command in spillway's configuration; or --skip alert where the metric's alert suffices",
        )
    } else {
        untried(
            "this person has used the lane within 15 minutes, so nobody is told again",
            "play it again in 15 minutes",
        )
    }
}

async fn wait_for_alert(address: SocketAddr, before: &Page) -> Result<Page, String> {
    let begun = clock::now();
    loop {
        let page = Page::read(address).await?;
        let told = |page: &Page| page.sum("spillway_break_glass_alerts_total{");
        // Nobody is told where no command ever was, or no session began.
        let session = "spillway_break_glass_sessions_total";
        let waits = page.value(session) > before.value(session) && told(&page) <= told(before);
        if !waits || clock::now().since(begun) > ALERT_WITHIN {
            return Ok(page);
        }
        tokio::time::sleep(AGAIN).await;
    }
}

fn probed(page: &Page, now: SystemTime) -> Found {
    let at = page.value("spillway_break_glass_probe_last_success_timestamp_seconds").unwrap_or(0.0);
    let tried = page.sum("spillway_break_glass_probes_total{");
    if tried <= 0.0 {
        let next = "spillway break-glass issue --drill …, then breakGlass.drill in the configuration; or --skip probe";
        return untried("there is no self-probe, or it has not run yet", next);
    }
    let next = "spillway's log has `the self-probe does not get through`, with the reason";
    if at <= 0.0 {
        return bad("no self-probe has ever got through", next);
    }
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let age = Duration::from_secs_f64((seconds - at).max(0.0));
    let what = format!("the last self-probe got through {} s ago", age.as_secs());
    if age <= PROBE_AGE_MAX { good(what) } else { bad(what, next) }
}

fn expiring(page: &Page) -> Found {
    let (mut known, mut soon) = (Vec::new(), Vec::new());
    for name in ["ca", "serving", "drill"] {
        let metric = format!("spillway_break_glass_certificate_days_left{{certificate=\"{name}\"}}");
        if let Some(days) = page.value(&metric) {
            let list = if days < DAYS_MIN { &mut soon } else { &mut known };
            list.push(format!("{name} {days:.0} days"));
        }
    }
    if !soon.is_empty() {
        return bad(
            format!("ends soon: {}", soon.join(", ")),
            "spillway break-glass list; docs/BREAK_GLASS.md, Set up",
        );
    }
    if known.is_empty() {
        return untried(
            "the lane's certificates are not in the metrics: is there a lane?",
            "spillway status",
        );
    }
    good(format!("days left: {}", known.join(", ")))
}

/// A page of metrics.
pub(super) struct Page(HashMap<String, f64>);

impl Page {
    /// Reads it.
    pub(super) async fn read(address: SocketAddr) -> Result<Self, String> {
        let fail = |why: String| format!("no metrics at {address}: {why}");
        let exchange = async {
            let mut socket = tokio::net::TcpStream::connect(address).await?;
            let head = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
            socket.write_all(head.as_bytes()).await?;
            let mut text = Vec::new();
            socket.take(PAGE_BYTES_MAX).read_to_end(&mut text).await?;
            std::io::Result::Ok(String::from_utf8_lossy(&text).into_owned())
        };
        let text = tokio::time::timeout(PAGE_WITHIN, exchange)
            .await
            .map_err(|_| fail(format!("nothing within {PAGE_WITHIN:?}")))?
            .map_err(|error| fail(error.to_string()))?;
        if !text.starts_with("HTTP/1.1 200") {
            return Err(fail(text.lines().next().unwrap_or_default().chars().take(80).collect()));
        }
        Ok(Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let line = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.trim().parse().ok()?))
        };
        Self(text.lines().filter(|line| line.starts_with("spillway_")).filter_map(line).collect())
    }

    fn value(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }

    fn sum(&self, prefix: &str) -> f64 {
        self.0.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(_, value)| value).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_good(found: &Found) -> bool {
        matches!(found, Found::Good(_))
    }

    #[test]
    fn an_alert_is_good_only_if_this_use_was_told() {
        let page = |sessions: u32, ok: u32, failed: u32| {
            Page::parse(&format!(
                "spillway_break_glass_sessions_total {sessions}\n\
                 spillway_break_glass_alerts_total{{result=\"ok\"}} {ok}\n\
                 spillway_break_glass_alerts_total{{result=\"failed\"}} {failed}\n"
            ))
        };
        let before = page(3, 3, 1);
        assert!(is_good(&alerted(&before, &page(4, 4, 1))));
        assert!(matches!(alerted(&before, &page(4, 3, 2)), Found::Bad(..)));
        assert!(
            matches!(alerted(&before, &page(4, 3, 1)), Found::Untried(what, _) if what.contains("no command"))
        );
        assert!(
            matches!(alerted(&before, &page(3, 3, 1)), Found::Untried(what, _) if what.contains("15 minutes"))
        );
    }

    #[test]
    fn a_probe_that_is_old_never_worked_or_is_not_there_is_not_good() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let page = |last: u64, tried: u32| {
            Page::parse(&format!(
                "spillway_break_glass_probe_last_success_timestamp_seconds {last}\n\
                 spillway_break_glass_probes_total{{result=\"ok\"}} {tried}\n"
            ))
        };
        assert!(is_good(&probed(&page(999_900, 5), now)));
        assert!(matches!(probed(&page(999_000, 5), now), Found::Bad(..)));
        assert!(matches!(probed(&page(0, 5), now), Found::Bad(..)));
        assert!(matches!(probed(&page(0, 0), now), Found::Untried(..)));
    }

    #[test]
    fn a_certificate_that_ends_soon_is_named() {
        let page = |ca: f64| {
            let line = "spillway_break_glass_certificate_days_left";
            Page::parse(&format!(
                "{line}{{certificate=\"ca\"}} {ca}\n{line}{{certificate=\"serving\"}} 300\n"
            ))
        };
        assert!(is_good(&expiring(&page(30.0))));
        assert!(
            matches!(expiring(&page(6.5)), Found::Bad(what, _) if what.contains("ca 6 days") || what.contains("ca 7 days"))
        );
        assert!(matches!(expiring(&Page::parse("")), Found::Untried(..)));
    }

    #[test]
    fn the_chain_is_judged_from_the_oldest_file_that_is_there() {
        let files = ["break-glass-audit-4097.jsonl", "break-glass-audit.jsonl"].map(PathBuf::from);
        assert_eq!(first_record(&files), 4097);
        assert_eq!(first_record(&files[1..]), 1);
    }
}

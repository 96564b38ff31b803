//! Who tells of newcomers, and how is who is known kept over a restart?

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::file::seconds;
use super::{Keeper, Place, checked_reason};
use crate::admin::wire::newcomers::{Approve, Approved, NewcomerView, Newcomers as View};
use crate::admin::wire::{Kept, Problem, code};
use crate::app::state::checksum;
use crate::clock;
use crate::config::nearest;
use crate::flow::newcomers::{
    Acquaintance, Acquaintances, Figures, Finding, KNOWN_MAX, NewcomerSettings, Who,
};
use crate::gateway::Newcomers;
use crate::policy::Lane;
use crate::telemetry::{Asker, NewcomerSeen};
use crate::units::{Instant, Seats};

/// The file's name in the state folder.
const NAME: &str = "newcomers.json";
/// Changes with the layout.
const LAYOUT: u32 = 1;
/// Bytes of a file that are read at most: 16,384 names of 341 bytes and a little.
const BYTES_MAX: u64 = 16 << 20;
/// Newcomers are looked at in every so many rounds of the sweep.
pub(super) const LOOK_ROUNDS: u32 = 5;
/// Who is known is written in every so many rounds, if anything changed.
pub(super) const WRITE_ROUNDS: u32 = 60;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Head {
    layout: u32,
    /// Seconds since 1970.
    written_at: u64,
    sha256: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Body {
    here_for: u64,
    /// User, program, seconds known, seconds away, lane.
    known: Vec<(String, String, u64, u64, Option<String>)>,
}

fn write(kept: &Acquaintances, wall: SystemTime) -> Vec<u8> {
    let row = |one: &Acquaintance| {
        let lane = one.lane.map(|lane| lane.as_str().to_owned());
        (one.who.user.clone(), one.who.program.clone(), one.known_for, one.away_for, lane)
    };
    let body = Body { here_for: kept.here_for, known: kept.known.iter().map(row).collect() };
    // Plain fields of plain structs always serialise.
    let body = serde_json::to_vec(&body).unwrap_or_default();
    let head = Head { layout: LAYOUT, written_at: seconds(wall), sha256: checksum(&body) };
    let mut file = serde_json::to_vec(&head).unwrap_or_default();
    file.push(b'\n');
    file.extend_from_slice(&body);
    file.push(b'\n');
    file
}

/// What a file says and how many seconds old it is, or why it is not believed.
fn read(bytes: &[u8], wall: SystemTime) -> Result<(Acquaintances, u64), String> {
    if bytes.len() as u64 > BYTES_MAX {
        return Err(format!("it is larger than {} MiB; spillway writes less", BYTES_MAX >> 20));
    }
    let unreadable = |error: serde_json::Error| format!("it is not what spillway writes: {error}");
    let mut lines = bytes.splitn(2, |byte| *byte == b'\n');
    let head: Head = serde_json::from_slice(lines.next().unwrap_or_default()).map_err(unreadable)?;
    if head.layout != LAYOUT {
        return Err(format!("it has layout {}, this spillway writes {LAYOUT}", head.layout));
    }
    let body = lines.next().and_then(|rest| rest.strip_suffix(b"\n")).unwrap_or_default();
    if checksum(body) != head.sha256 {
        return Err("its checksum is not that of its content".to_owned());
    }
    let body: Body = serde_json::from_slice(body).map_err(unreadable)?;
    if body.known.len() > KNOWN_MAX {
        return Err(format!("it names {} identities, at most {KNOWN_MAX} are kept", body.known.len()));
    }
    let known = body.known.into_iter().map(|(user, program, known_for, away_for, lane)| {
        let lane = lane.map(|lane| lane.parse().map_err(|_| format!("{lane:?} is no lane"))).transpose()?;
        Ok(Acquaintance { who: Who { user, program }, known_for, away_for, lane })
    });
    let known = known.collect::<Result<_, String>>()?;
    // A clock that was set back makes it no younger than just written.
    Ok((Acquaintances { here_for: body.here_for, known }, seconds(wall).saturating_sub(head.written_at)))
}

/// A guard that knows whom the last process knew.
pub(in crate::app) fn recall(
    settings: NewcomerSettings,
    folder: Option<&std::path::Path>,
    now: Instant,
) -> Arc<Newcomers> {
    let newcomers = Newcomers::new(settings, now);
    let Some(folder) = folder else {
        tracing::info!(
            learning = ?settings.learning,
            "no state.dir: who is known is learnt anew at each start"
        );
        return newcomers;
    };
    let place = Place { folder: folder.to_owned(), name: NAME };
    let shown = place.file().display().to_string();
    let bytes = match place.read(BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            tracing::info!(file = shown, learning = ?settings.learning, "nobody is known yet: everybody who comes is, until that is over");
            return newcomers;
        }
        Err(error) => {
            tracing::warn!(file = shown, %error, "who is known cannot be read: it is learnt anew");
            return newcomers;
        }
    };
    match read(&bytes, clock::wall()) {
        Ok((kept, age)) => {
            let known = newcomers.with(|guard| guard.recall(now, kept, age));
            tracing::info!(file = shown, known, "who is known was taken over");
        }
        Err(reason) => {
            let aside = place.set_aside(clock::wall());
            let aside =
                aside.map_or_else(|error| format!("not moved: {error}"), |aside| aside.display().to_string());
            tracing::warn!(
                file = shown,
                reason,
                aside,
                code = code::NEWCOMERS_STATE,
                "the file of who is known is not believed: it was set aside, everybody is learnt anew"
            );
        }
    }
    newcomers
}

/// One line about a newcomer in numbers.
fn figures(figures: &Figures, limit: Seats) -> String {
    let Figures { places, nodes, growth, spreads, per_place, per_start, projected, .. } = *figures;
    let per_place = per_place.map_or_else(
        || format!("{per_start:.1} seat-seconds a start"),
        |seats| format!("{seats:.2} seats each"),
    );
    if spreads {
        format!(
            "on {places} of {nodes} nodes and growing by {growth:.1}/s, {per_place}: on all of them it would take {projected:.0} seats of {limit}"
        )
    } else {
        format!("in {places} places, {per_place}: it takes {projected:.1} seats of {limit}")
    }
}

fn name_of(who: &Who) -> String {
    let user = who
        .user
        .strip_prefix("system:serviceaccount:")
        .map_or_else(|| who.user.clone(), |account| account.replacen(':', "/", 1));
    if who.program.is_empty() { user } else { format!("{user} ({})", who.program) }
}

impl Keeper {
    /// Looks at who is new, and tells.
    pub(super) fn look_at_newcomers(&self, limit: Seats) {
        let found = self.parts.newcomers.with(|guard| guard.look(clock::now(), limit));
        for finding in found {
            let who = name_of(finding.who());
            let (what, text) = match &finding {
                Finding::Came(_) => {
                    ("came", "was never here before: ranked unknown, within a small budget".to_owned())
                }
                Finding::Warning(_, of) => ("warning", figures(of, limit)),
                Finding::Over(_, of) => ("over", figures(of, limit)),
                Finding::Settled(_) => ("settled", "is known now".to_owned()),
            };
            NewcomerSeen { what, who: &who, text: &text }.emit();
            if what == "warning" {
                self.parts.metrics.newcomers().warned();
            }
            let next = if what == "warning" {
                "; stop its roll-out, or: spillway newcomers approve NAME"
            } else {
                ""
            };
            self.timeline.add("newcomer", format!("{who}: {text}{next}"));
        }
    }

    /// Writes who is known, if that changed.
    pub(super) async fn keep_acquaintances(&self) -> Kept {
        let Some(folder) = self.parts.folder.clone() else {
            return Kept { on_disk: false, problem: "there is no state.dir in the configuration".to_owned() };
        };
        let place = Place { folder, name: NAME };
        let shown = place.file().display().to_string();
        let kept = self.parts.newcomers.with(|guard| guard.remember(clock::now()));
        let writing = tokio::task::spawn_blocking(move || place.write(&write(&kept, clock::wall())));
        let written = match tokio::time::timeout(Duration::from_secs(2), writing).await {
            Ok(written) => written.unwrap_or_else(|gone| Err(io::Error::other(gone))),
            Err(_elapsed) => Err(ErrorKind::TimedOut.into()),
        };
        match written {
            Ok(()) => Kept { on_disk: true, problem: String::new() },
            Err(error) => {
                tracing::warn!(file = shown, %error, "who is known cannot be written; tried again in a minute");
                Kept { on_disk: false, problem: format!("{shown}: {error}") }
            }
        }
    }

    pub(super) fn newcomers_view(&self) -> View {
        let limit = self.parts.gate.view().snapshot.limit;
        let now = clock::now();
        let on_disk = self.parts.folder.is_some();
        let problem =
            if on_disk { String::new() } else { "there is no state.dir in the configuration".to_owned() };
        self.parts.newcomers.with(|guard| {
            let counts = guard.counts();
            let views = guard.newcomers(now).into_iter().map(|(who, of, seen)| NewcomerView {
                user: who.user,
                program: who.program,
                new_for_seconds: seen.since.as_secs(),
                idle_seconds: seen.idle.as_secs(),
                places: of.places,
                growth_per_second: hundredths(of.growth),
                spreads: of.spreads,
                seats_per_place: of.per_place.map(hundredths),
                seat_seconds_per_start: hundredths(of.per_start),
                projected_seats: hundredths(of.projected),
                warned: seen.warned,
                over_budget: seen.over_budget,
                requests: of.asked,
            });
            View {
                guard: guard.is_on(),
                learns_for_seconds: guard.learns_for(now).as_secs(),
                newcomers: views.collect(),
                known: counts.known,
                nodes: counts.nodes,
                limit: limit.0,
                warned_from: guard.threshold(limit),
                not_measured: counts.crowd,
                kept: Kept { on_disk, problem },
            }
        })
    }

    /// Makes somebody known, or new again.
    pub(super) fn approve_newcomer(
        &self,
        request: &Approve,
        doubt: bool,
        by: &Asker,
    ) -> Result<Approved, Problem> {
        let name = request.name.trim();
        let why = match request.reason.trim() {
            "" => String::new(),
            reason => format!(": {}", checked_reason(reason)?),
        };
        let user = match name.split_once('/') {
            Some((namespace, account)) => format!("system:serviceaccount:{namespace}:{account}"),
            None => name.to_owned(),
        };
        let lane = request.lane.as_deref().map(lane).transpose()?;
        let who = Who { user: user.clone(), program: request.program.clone() };
        let now = clock::now();
        let (count, names) = self.parts.newcomers.with(|guard| {
            let count = if doubt { guard.doubt(&who) } else { guard.approve(now, &who, lane) };
            let names: Vec<String> =
                guard.newcomers(now).into_iter().map(|(who, ..)| plain_name(&who.user)).collect();
            (count, names)
        });
        if count == 0 {
            let near = nearest(name, names.iter().map(String::as_str));
            let help = near
                .map_or_else(|| "spillway newcomers".to_owned(), |near| format!("did you mean {near:?}?"));
            let message = format!("nobody called {name:?} is {} here", if doubt { "known" } else { "new" });
            return Err(Problem::new(code::NOT_IN_FORCE, message, help));
        }
        self.parts.newcomers.doubt_all();
        let word = if doubt { "is doubted" } else { "was approved" };
        let at = lane.map_or_else(String::new, |lane| format!(", no higher than {lane}"));
        let text = format!("{word}{at}{why} ({by})");
        self.timeline.add("newcomer", format!("{} {text}", name_of(&who)));
        NewcomerSeen { what: "operator", who: &name_of(&who), text: &text }.emit();
        Ok(Approved { user, count, kept: Kept::default() })
    }
}

fn plain_name(user: &str) -> String {
    name_of(&Who { user: user.to_owned(), program: String::new() })
}

fn hundredths(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

/// A lane that somebody can be approved for: rules lift, approval does not.
fn lane(text: &str) -> Result<Lane, Problem> {
    match text.parse() {
        Ok(lane @ (Lane::Workload | Lane::Unknown | Lane::Telemetry)) => Ok(lane),
        _ => Err(Problem::new(
            code::NEWCOMER_LANE,
            format!("nobody can be approved for the lane {text:?}: expected workload, unknown or telemetry"),
            "a higher lane is given by a rule of the TrafficPolicy",
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn kept() -> Acquaintances {
        let who = |user: &str, program: &str| Who { user: user.into(), program: program.into() };
        let one = |who, lane| Acquaintance { who, known_for: 100, away_for: 5, lane };
        Acquaintances {
            here_for: 7_200,
            known: vec![one(who("a", ""), None), one(who("b", "otel"), Some(Lane::Telemetry))],
        }
    }

    #[test]
    fn what_is_written_is_read_with_its_age() {
        let at = UNIX_EPOCH + Duration::from_secs(1_790_000_000);
        let bytes = write(&kept(), at);
        assert_eq!(read(&bytes, at + Duration::from_secs(60)).unwrap(), (kept(), 60));
        assert_eq!(read(&bytes, at - Duration::from_secs(60)).unwrap().1, 0, "a clock that was set back");
    }

    #[test]
    fn whatever_else_is_in_the_file_is_not_believed() {
        let at = UNIX_EPOCH + Duration::from_secs(1_790_000_000);
        let good = write(&kept(), at);
        let text = String::from_utf8(good.clone()).unwrap();
        for bad in [
            vec![],
            b"{".to_vec(),
            good[..good.len() - 3].to_vec(),
            text.replace("otel", "curl").into_bytes(),
            text.replace("\"layout\":1", "\"layout\":2").into_bytes(),
            text.replace("\"layout\":1", "\"layout\":1,\"more\":1").into_bytes(),
        ] {
            assert!(read(&bad, at).is_err(), "{}", String::from_utf8_lossy(&bad));
        }
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(NAME), "not ours").unwrap();
        let guard = recall(NewcomerSettings::default(), Some(folder.path()), clock::now());
        assert_eq!(guard.with(|guard| guard.counts().known), 0);
        let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
        assert!(
            left[0].as_ref().unwrap().file_name().to_str().unwrap().starts_with("newcomers.json.corrupt-")
        );
    }
}

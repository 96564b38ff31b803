//! How do levers survive a restart?
//!
//! One small file with a checksum, as the state beside it. Ends are wall-clock times there, because a monotonic clock
//! starts anew with the machine; read back, an end is never further away than it was when the lever was pulled, so that
//! a clock that jumps back cannot make an isolation immortal.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::wanted::{Origin, Wanted};
use crate::app::state::checksum;
use crate::flow::levers::{Action, Held, ISOLATIONS_MAX, Isolation, LimitHold, Lockdown, TTL_MAX, Target};
use crate::units::{Instant, Seats};

/// Changes with the layout.
const LAYOUT: u32 = 1;
/// Bytes of a file that are read at most: 64 isolations take less than 100 kB.
pub(super) const BYTES_MAX: u64 = 1 << 20;

/// Why a file is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Distrust {
    #[error("it is larger than {BYTES_MAX} bytes; spillway writes far less")]
    TooLarge,
    #[error("its {what} is not what spillway writes: {why}")]
    Unreadable { what: &'static str, why: String },
    #[error("it has layout {0}, this spillway writes {LAYOUT}")]
    Foreign(u32),
    #[error("its checksum is not that of its content")]
    Checksum,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Head {
    layout: u32,
    sha256: String,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Body {
    isolations: Vec<IsolationRow>,
    lockdown: Option<Row>,
    limit: Option<LimitRow>,
}

/// What every lever has. Times are seconds since 1970.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Row {
    reason: String,
    since: u64,
    ends_at: u64,
    by: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct IsolationRow {
    id: String,
    kind: String,
    name: String,
    to: String,
    forced: bool,
    lever: Row,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LimitRow {
    exactly: bool,
    seats: u32,
    lever: Row,
}

impl Row {
    fn of(origin: &Origin) -> Self {
        let Origin { reason, since, ends_at, by } = origin.clone();
        Self { reason, since, ends_at, by }
    }

    /// Its origin and its end by the monotonic clock; nothing when it is over.
    fn read(self, wall: SystemTime, now: Instant) -> Option<(Origin, Instant)> {
        let wall = seconds(wall);
        let most = self.ends_at.saturating_sub(self.since).min(TTL_MAX.as_secs());
        let left = self.ends_at.saturating_sub(wall).min(most);
        let Self { reason, since, ends_at, by } = self;
        (left > 0).then(|| (Origin { reason, since, ends_at, by }, now + Duration::from_secs(left)))
    }
}

/// Seconds since 1970.
pub(super) fn seconds(wall: SystemTime) -> u64 {
    wall.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The file's bytes.
pub(super) fn write(wanted: &Wanted) -> Vec<u8> {
    let isolations = wanted.isolations.iter().map(|(isolation, origin)| IsolationRow {
        id: isolation.id.clone(),
        kind: isolation.target.kind().to_owned(),
        name: isolation.target.name(),
        to: isolation.action.as_str().to_owned(),
        forced: isolation.forced,
        lever: Row::of(origin),
    });
    let limit = wanted.hold.as_ref().map(|(hold, origin)| {
        let (exactly, seats) = match hold.seats {
            Held::Exactly(seats) => (true, seats.0),
            Held::AtMost(seats) => (false, seats.0),
        };
        LimitRow { exactly, seats, lever: Row::of(origin) }
    });
    let body = Body {
        isolations: isolations.collect(),
        lockdown: wanted.lockdown.as_ref().map(|(_, origin)| Row::of(origin)),
        limit,
    };
    // Plain fields of plain structs always serialise.
    let body = serde_json::to_vec(&body).unwrap_or_default();
    let head = Head { layout: LAYOUT, sha256: checksum(&body) };
    let mut file = serde_json::to_vec(&head).unwrap_or_default();
    file.push(b'\n');
    file.extend_from_slice(&body);
    file.push(b'\n');
    file
}

/// What a file says, with ends by the monotonic clock; what is over is left out.
pub(super) fn read(bytes: &[u8], wall: SystemTime, now: Instant) -> Result<Wanted, Distrust> {
    if bytes.len() as u64 > BYTES_MAX {
        return Err(Distrust::TooLarge);
    }
    let unreadable = |what| move |why: serde_json::Error| Distrust::Unreadable { what, why: why.to_string() };
    let wrong = |why: String| Distrust::Unreadable { what: "content", why };
    let mut lines = bytes.splitn(2, |byte| *byte == b'\n');
    let head: Head = serde_json::from_slice(lines.next().unwrap_or_default()).map_err(unreadable("head"))?;
    if head.layout != LAYOUT {
        return Err(Distrust::Foreign(head.layout));
    }
    let body = lines.next().and_then(|rest| rest.strip_suffix(b"\n")).unwrap_or_default();
    if checksum(body) != head.sha256 {
        return Err(Distrust::Checksum);
    }
    let body: Body = serde_json::from_slice(body).map_err(unreadable("content"))?;
    if body.isolations.len() > ISOLATIONS_MAX {
        return Err(wrong(format!("{} isolations", body.isolations.len())));
    }
    let mut wanted = Wanted::default();
    for row in body.isolations {
        let target = Target::parse(&row.kind, &row.name).map_err(|error| wrong(error.to_string()))?;
        let action = Action::parse(&row.to).ok_or_else(|| wrong(format!("action {:?}", row.to)))?;
        let Some((origin, until)) = row.lever.read(wall, now) else { continue };
        let (id, reason, forced) = (row.id, origin.reason.clone(), row.forced);
        wanted.isolations.push((Isolation { id, target, action, until, reason, forced }, origin));
    }
    wanted.lockdown = body
        .lockdown
        .and_then(|row| row.read(wall, now))
        .map(|(origin, until)| (Lockdown { until, reason: origin.reason.clone() }, origin));
    wanted.hold = body.limit.and_then(|row| {
        let seats = Seats(row.seats);
        let seats = if row.exactly { Held::Exactly(seats) } else { Held::AtMost(seats) };
        row.lever.read(wall, now).map(|(origin, until)| (LimitHold { seats, until }, origin))
    });
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SINCE: u64 = 1_790_000_000;

    fn wall(after: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(SINCE + after)
    }

    fn at(seconds: u64) -> Instant {
        Instant::ORIGIN + Duration::from_secs(seconds)
    }

    fn origin() -> Origin {
        Origin { reason: "a loop".into(), since: SINCE, ends_at: SINCE + 600, by: "uid 0".into() }
    }

    fn wanted() -> Wanted {
        let isolation = |kind: &str, name: &str, action| Isolation {
            id: format!("iso-{kind}"),
            target: Target::parse(kind, name).unwrap(),
            action,
            until: at(600),
            reason: "a loop".into(),
            forced: kind == "cidr",
        };
        Wanted {
            isolations: vec![
                (isolation("serviceaccount", "obs/agent", Action::Deny), origin()),
                (isolation("cidr", "10.0.0.0/8", Action::Penalty), origin()),
            ],
            lockdown: Some((Lockdown { until: at(600), reason: "a loop".into() }, origin())),
            hold: Some((LimitHold { seats: Held::Exactly(Seats(40)), until: at(600) }, origin())),
        }
    }

    #[test]
    fn everything_comes_back_with_the_time_that_is_left() {
        let bytes = write(&wanted());
        assert_eq!(read(&bytes, wall(0), at(0)).unwrap(), wanted());
        let later = read(&bytes, wall(500), at(7)).unwrap();
        assert_eq!(later.isolations[1].0.until, at(107));
        assert_eq!(later.hold.unwrap().0.until, at(107));
    }

    #[test]
    fn what_is_over_is_not_in_force_and_a_clock_that_jumps_back_prolongs_nothing() {
        let bytes = write(&wanted());
        assert_eq!(read(&bytes, wall(600), at(0)).unwrap(), Wanted::default());
        let back = read(&bytes, UNIX_EPOCH, at(0)).unwrap();
        assert_eq!(back.isolations[0].0.until, at(600));
    }

    #[test]
    fn a_file_with_any_byte_changed_is_not_believed() {
        let bytes = write(&wanted());
        for index in 0..bytes.len() {
            let mut broken = bytes.clone();
            broken[index] ^= 0x11;
            assert!(read(&broken, wall(0), at(0)).is_err(), "byte {index}");
        }
        for length in 0..bytes.len() {
            assert!(read(&bytes[..length], wall(0), at(0)).is_err(), "cut at {length}");
        }
        assert_eq!(read(&vec![b'x'; 2 << 20], wall(0), at(0)), Err(Distrust::TooLarge));
    }
}

//! How is what was learnt written down, and when is a file believed?
//!
//! Two lines of JSON: a head with version, time and checksum, and the body that the checksum is of. Whatever does
//! not fit exactly is refused with what was expected, because a wrong calm time misleads for hours, and a missing one
//! costs minutes. Calls are rows of numbers: the file has up to 4,096 of them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};

use crate::flow::{Remembered, RememberedCall};

/// Changes with the layout; [`Remembered::VERSION`] with what the numbers mean.
const LAYOUT: u32 = 1;
/// Bytes of a file that are read at most. 4,096 calls take about 400 kB.
pub(super) const BYTES_MAX: u64 = 4 << 20;

/// Why a file is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Distrust {
    #[error("it is larger than {} MiB; spillway writes far less", BYTES_MAX >> 20)]
    TooLarge,
    #[error("its {what} is not what spillway writes: {why}")]
    Unreadable { what: &'static str, why: String },
    #[error("it has {what} {found}, this spillway writes {expected}")]
    Foreign { what: &'static str, found: u32, expected: u32 },
    #[error("its checksum is {found}, its content has {expected}")]
    Checksum { found: String, expected: String },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Head {
    /// Layout of the file.
    layout: u32,
    /// Seconds since 1970.
    written_at: u64,
    /// SHA-256 of the body, in hexadecimal.
    sha256: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Body {
    version: u32,
    limit: f64,
    probes: [f32; 3],
    /// Exact and family hash; calm first byte and total in microseconds; bytes; calls.
    calls: Vec<(u64, u64, f32, f32, f32, u32)>,
}

/// The file's bytes.
pub(super) fn write(remembered: &Remembered, now: SystemTime) -> Vec<u8> {
    // JSON has no infinity; a number that is none was not worth keeping.
    let finite = |number: f32| if number.is_finite() { number } else { 0.0 };
    let body = Body {
        version: remembered.version,
        limit: if remembered.limit.is_finite() { remembered.limit } else { 0.0 },
        probes: remembered.probes.map(finite),
        calls: remembered
            .calls
            .iter()
            .map(|call| {
                let (baseline, total, bytes) =
                    (finite(call.baseline), finite(call.total), finite(call.bytes));
                (call.exact, call.family, baseline, total, bytes, call.calls)
            })
            .collect(),
    };
    // Plain numbers in plain structs always serialise.
    let body = serde_json::to_vec(&body).unwrap_or_default();
    let written_at = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let head = Head { layout: LAYOUT, written_at, sha256: checksum(&body) };
    let mut file = serde_json::to_vec(&head).unwrap_or_default();
    file.push(b'\n');
    file.extend_from_slice(&body);
    file.push(b'\n');
    file
}

/// What a file says, and how old it is.
pub(super) fn read(file: &[u8], now: SystemTime) -> Result<(Remembered, Duration), Distrust> {
    if file.len() as u64 > BYTES_MAX {
        return Err(Distrust::TooLarge);
    }
    let unreadable = |what| move |why: String| Distrust::Unreadable { what, why };
    let border = file.iter().position(|byte| *byte == b'\n').unwrap_or(file.len());
    let (head, rest) = file.split_at(border);
    let head: Head =
        serde_json::from_slice(head).map_err(|error| unreadable("first line")(error.to_string()))?;
    same("layout", head.layout, LAYOUT)?;
    let body = rest.strip_prefix(b"\n").and_then(|rest| rest.strip_suffix(b"\n"));
    let body = body.ok_or_else(|| unreadable("end")("the file was cut off".to_owned()))?;
    let expected = checksum(body);
    if head.sha256 != expected {
        return Err(Distrust::Checksum { found: head.sha256, expected });
    }
    let body: Body =
        serde_json::from_slice(body).map_err(|error| unreadable("second line")(error.to_string()))?;
    same("version", body.version, Remembered::VERSION)?;
    let written = UNIX_EPOCH + Duration::from_secs(head.written_at.min(u64::from(u32::MAX)));
    // A clock that was set back since makes it no younger than new.
    let age = now.duration_since(written).unwrap_or_default();
    let call = |(exact, family, baseline, total, bytes, calls)| RememberedCall {
        exact,
        family,
        baseline,
        total,
        bytes,
        calls,
    };
    let calls = body.calls.into_iter().map(call).collect();
    Ok((Remembered { version: body.version, limit: body.limit, probes: body.probes, calls }, age))
}

fn same(what: &'static str, found: u32, expected: u32) -> Result<(), Distrust> {
    if found == expected { Ok(()) } else { Err(Distrust::Foreign { what, found, expected }) }
}

pub(in crate::app) fn checksum(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(64);
    for byte in digest::digest(&digest::SHA256, bytes).as_ref() {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn remembered() -> Remembered {
        let call = RememberedCall {
            exact: u64::MAX,
            family: 7,
            baseline: 3_000.5,
            total: 4_000.0,
            bytes: 39e6,
            calls: 12,
        };
        let calls = vec![call, RememberedCall { exact: 9, ..call }];
        Remembered { version: Remembered::VERSION, limit: 120.5, probes: [1.0, 2.0, 0.0], calls }
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn what_is_written_is_read_with_its_age() {
        let file = write(&remembered(), at(1_000));
        assert_eq!(read(&file, at(1_060)), Ok((remembered(), Duration::from_secs(60))));
    }

    #[test]
    fn a_clock_that_was_set_back_makes_no_negative_age() {
        let file = write(&remembered(), at(1_000));
        assert_eq!(read(&file, at(10)).map(|(_, age)| age), Ok(Duration::ZERO));
    }

    #[test]
    fn numbers_that_json_has_not_become_unknown() {
        let mut odd = remembered();
        odd.limit = f64::INFINITY;
        odd.calls[0].baseline = f32::NAN;
        let (read, _) = read(&write(&odd, at(1)), at(1)).unwrap();
        assert_eq!((read.limit, read.calls[0].baseline), (0.0, 0.0));
    }

    #[test]
    fn another_version_is_foreign_and_says_which() {
        let other = Remembered { version: Remembered::VERSION + 1, ..remembered() };
        let found = read(&write(&other, at(1)), at(1)).unwrap_err().to_string();
        assert_eq!(found, "it has version 2, this spillway writes 1");
    }

    #[test]
    fn a_file_that_is_cut_off_or_overlarge_is_refused() {
        let file = write(&remembered(), at(1));
        for end in 0..file.len() {
            assert!(read(&file[..end], at(1)).is_err(), "cut at {end}");
        }
        assert_eq!(read(&vec![b' '; BYTES_MAX as usize + 1], at(1)), Err(Distrust::TooLarge));
    }

    proptest! {
        #[test]
        fn one_changed_byte_is_noticed(at_byte in 0..400_usize, change in 1..=255_u8) {
            let file = write(&remembered(), at(1_000));
            let mut changed = file.clone();
            let at_byte = at_byte % file.len();
            changed[at_byte] ^= change;
            // Only the time is not covered by the checksum: it may change, and then nothing else has.
            if let Ok((found, _)) = read(&changed, at(1_000)) {
                prop_assert_eq!(found, remembered());
            }
        }

        #[test]
        fn noise_is_refused_without_a_panic(noise in prop::collection::vec(any::<u8>(), 0..2_000)) {
            prop_assert!(read(&noise, at(1)).is_err());
        }
    }
}

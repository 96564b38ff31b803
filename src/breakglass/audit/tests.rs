//! Does the log find what was done to it, and does it survive what disks do?

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use serde_json::json;

use super::*;

const LOG: &str = "break-glass-audit.jsonl";

fn settings(folder: &Path, rotate_bytes: u64) -> Settings {
    Settings {
        folder: folder.to_owned(),
        key_folder: folder.join("key"),
        rotate_bytes,
        host: "cp-1".into(),
        config_hash: "0123".into(),
    }
}

fn facts(number: u64) -> Map<String, Value> {
    let Value::Object(facts) = json!({
        "event": "use", "actor": { "user": "ada" }, "path": format!("/api/v1/nodes/n{number}"), "status": 200,
    }) else {
        unreachable!()
    };
    facts
}

/// A log of some requests, written to its end.
fn log(folder: &Path, requests: u64, rotate_bytes: u64) {
    let audit = Audit::start(&settings(folder, rotate_bytes)).unwrap();
    for number in 0..requests {
        audit.note(facts(number));
    }
    audit.close();
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .collect();
    files.sort();
    files
}

fn key(folder: &Path) -> Vec<u8> {
    parse_public_key(&fs::read_to_string(folder.join("key/break-glass-audit.pub")).unwrap()).unwrap()
}

fn judge(folder: &Path) -> Verdict {
    let (files, key) = (files(folder), key(folder));
    verify(&Question { files: &files, public_key: Some(&key), from: 1 }).unwrap()
}

fn lines(folder: &Path) -> Vec<String> {
    fs::read_to_string(folder.join(LOG)).unwrap().lines().map(str::to_owned).collect()
}

fn write(folder: &Path, lines: &[String]) {
    fs::write(folder.join(LOG), lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
}

#[test]
fn a_log_that_nobody_touched_is_whole_over_restarts_and_rotations() {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        log(folder.path(), 150, 40_000);
    }
    assert!(files(folder.path()).len() >= 3, "it was set aside");
    let verdict = judge(folder.path());
    assert!(verdict.is_whole(), "{:?}", verdict.findings);
    assert_eq!(verdict.head, Head::Signed);
    assert_eq!(verdict.files.iter().map(|file| file.records).sum::<u64>(), verdict.last);
    let (found, good) = verdict.checkpoints;
    assert!(found == good && found >= 6, "{found} checkpoints, {good} good");
    use std::os::unix::fs::MetadataExt as _;
    assert_eq!(fs::metadata(folder.path().join(LOG)).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn whatever_is_done_to_lines_is_found() {
    let folder = tempfile::tempdir().unwrap();
    log(folder.path(), 20, 1 << 20);
    let good = lines(folder.path());
    type Change<'a> = (&'a str, &'a dyn Fn(&mut Vec<String>), &'a str);
    let changes: [Change<'_>; 5] = [
        ("removed", &|lines| drop(lines.remove(7)), "records 8 to 8 are missing"),
        ("moved", &|lines| lines.swap(7, 8), "missing"),
        ("repeated", &|lines| lines.insert(7, lines[7].clone()), "moved or repeated"),
        ("cut at the front", &|lines| drop(lines.drain(..3)), "records 1 to 3 are missing"),
        ("cut at the end", &|lines| lines.truncate(good.len() - 2), "its end was cut"),
    ];
    for (what, change, words) in changes {
        let mut lines = good.clone();
        change(&mut lines);
        write(folder.path(), &lines);
        let verdict = judge(folder.path());
        assert!(
            verdict.findings.iter().any(|found| found.what.contains(words)),
            "{what}: {:?}",
            verdict.findings
        );
    }
    // Made anew by somebody without the key: hashes fit, signatures do not.
    let mut place = chain::Place::default();
    let forged: Vec<String> = good
        .iter()
        .map(|line| {
            let mut facts: Map<String, Value> = serde_json::from_str(line).unwrap();
            facts.remove("hash");
            if facts["event"] == "use" {
                facts.insert("actor".into(), json!({ "user": "eve" }));
            }
            let (next, line) = place.append(facts);
            place = next;
            line
        })
        .collect();
    write(folder.path(), &forged);
    let verdict = judge(folder.path());
    assert!(verdict.findings.iter().any(|found| found.what.contains("not of this public key")));
}

#[test]
fn a_torn_line_is_cut_off_and_told_about() {
    let folder = tempfile::tempdir().unwrap();
    log(folder.path(), 5, 1 << 20);
    let path = folder.path().join(LOG);
    let mut bytes = fs::read(&path).unwrap();
    bytes.extend_from_slice(b"{\"event\":\"use\",\"act");
    fs::write(&path, bytes).unwrap();
    assert!(!judge(folder.path()).is_whole());
    log(folder.path(), 5, 1 << 20);
    let verdict = judge(folder.path());
    assert_eq!(verdict.findings.len(), 1, "{:?}", verdict.findings);
    assert!(verdict.findings[0].what.contains("torn by a crash"));
}

#[test]
fn a_log_that_was_cut_while_nobody_looked_is_found_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    log(folder.path(), 20, 1 << 20);
    let mut kept = lines(folder.path());
    let before = kept.len() as u64;
    kept.truncate(10);
    write(folder.path(), &kept);
    let audit = Audit::start(&settings(folder.path(), 1 << 20)).unwrap();
    (0..5).for_each(|number| audit.note(facts(number)));
    audit.close();
    assert_eq!(audit.figures().cut.load(Ordering::Relaxed), before - 10, "for the metric");
    let verdict = judge(folder.path());
    assert!(
        verdict.findings.iter().any(|found| found.what.contains("are missing")),
        "{:?}",
        verdict.findings
    );
}

#[test]
fn records_that_came_before_the_disk_get_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let below = folder.path().join("log");
    log(&below, 3, 1 << 20);
    // The folder is away for the next start.
    fs::rename(&below, folder.path().join("away")).unwrap();
    fs::write(&below, "in the way").unwrap();
    let audit = Audit::start(&settings(&below, 1 << 20)).unwrap();
    audit.note(facts(1));
    while audit.figures().pending.load(Ordering::Relaxed) < 2 {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(audit.figures().failing.load(Ordering::Relaxed));
    fs::remove_file(&below).unwrap();
    fs::rename(folder.path().join("away"), &below).unwrap();
    while audit.figures().failing.load(Ordering::Relaxed) {
        audit.note(facts(2));
        std::thread::sleep(Duration::from_millis(50));
    }
    audit.close();
    let verdict = judge(&below);
    assert!(verdict.is_whole(), "{:?}", verdict.findings);
    assert!(lines(&below).iter().any(|line| line.contains("audit-gap")));
}

#[test]
fn a_full_disk_keeps_records_in_memory_and_loses_none() {
    let folder = tempfile::tempdir().unwrap();
    // Every write to it is answered with "no space left on device".
    std::os::unix::fs::symlink("/dev/full", folder.path().join(LOG)).unwrap();
    let audit = Audit::start(&settings(folder.path(), 1 << 20)).unwrap();
    for number in 0..20 {
        audit.note(facts(number));
    }
    while audit.figures().pending.load(Ordering::Relaxed) < 21 {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(audit.figures().failing.load(Ordering::Relaxed));
    fs::remove_file(folder.path().join(LOG)).unwrap();
    while audit.figures().failing.load(Ordering::Relaxed) {
        audit.note(facts(99));
        std::thread::sleep(Duration::from_millis(50));
    }
    audit.close();
    let verdict = judge(folder.path());
    assert!(verdict.is_whole(), "{:?}", verdict.findings);
    assert_eq!(audit.figures().lost.load(Ordering::Relaxed), 0);
    let gap = lines(folder.path()).into_iter().find(|line| line.contains("audit-gap")).unwrap();
    assert!(gap.contains("\"lost\":0"), "{gap}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_single_byte_that_changes_is_found(at in 0_usize..1_000_000, byte in any::<u8>()) {
        let (folder, good) = sample();
        let mut bytes = good.clone();
        let at = at % bytes.len();
        prop_assume!(bytes[at] != byte);
        bytes[at] = byte;
        let changed = folder.join(format!("changed-{at}-{byte}"));
        fs::create_dir_all(&changed).unwrap();
        fs::write(changed.join(LOG), &bytes).unwrap();
        let files = [changed.join(LOG)];
        // Without the key and without the head: the chain alone must find it.
        let verdict = verify(&Question { files: &files, public_key: None, from: 1 }).unwrap();
        fs::remove_dir_all(&changed).unwrap();
        prop_assert!(!verdict.is_whole(), "byte {} became {}", at, byte);
    }
}

/// One log for all cases.
fn sample() -> &'static (PathBuf, Vec<u8>) {
    static SAMPLE: std::sync::OnceLock<(PathBuf, Vec<u8>)> = std::sync::OnceLock::new();
    SAMPLE.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap().keep();
        log(&folder, 12, 1 << 20);
        let bytes = fs::read(folder.join(LOG)).unwrap();
        (folder, bytes)
    })
}

#[test]
fn records_are_counted_by_kind_old_ones_fit_and_newer_ones_are_not_judged_silently() {
    let folder = tempfile::tempdir().unwrap();
    log(folder.path(), 3, 1 << 20);
    let verdict = judge(folder.path());
    assert_eq!(verdict.events.get("use"), Some(&3), "{:?}", verdict.events);
    assert_eq!(verdict.events.get("start"), Some(&1), "{:?}", verdict.events);
    // The same log as another version of this program would have written it.
    for (format, whole) in [(None, true), (Some(FORMAT + 1), false)] {
        let mut place = chain::Place::default();
        let rewritten: Vec<String> = lines(folder.path())
            .iter()
            .map(|line| {
                let mut facts: Map<String, Value> = serde_json::from_str(line).unwrap();
                facts.remove("hash");
                facts.remove("v");
                if let Some(format) = format {
                    facts.insert("v".into(), format.into());
                }
                let (next, line) = place.append(facts);
                place = next;
                line
            })
            .collect();
        let other = tempfile::tempdir().unwrap();
        write(other.path(), &rewritten);
        let files = files(other.path());
        let verdict = verify(&Question { files: &files, public_key: None, from: 1 }).unwrap();
        assert_eq!(verdict.is_whole(), whole, "{:?}", verdict.findings);
        assert!(whole || verdict.findings[0].what.contains("verify with the spillway that wrote it"));
    }
}

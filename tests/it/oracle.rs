//! Does spillway read requests as kube-apiserver's own code reads them?
//!
//! `tests/golden/request_info.tsv` is what that code made of thousands of requests; `tests/cluster/request-info` wrote it.
//! One test compares spillway with the file, the other the file with the program.

// Clippy's own exception for tests ends at the functions marked as tests; what they call are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    env, fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use http::Uri;
use spillway::request::{DecodedPath, RequestInfo, ResourceVersion, Selector, Verb};

/// Requests that must have been compared, and the most that spillway refuses although kube-apiserver does not.
const COMPARED_MIN: usize = 10_000;
const STRICTER_MAX: usize = 1_000;

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/request_info.tsv")
}

/// One line: a request and what kube-apiserver makes of it.
struct Line<'a> {
    method: &'a str,
    target: Vec<u8>,
    columns: Vec<&'a str>,
}

impl<'a> Line<'a> {
    fn read(line: &'a str) -> Self {
        let mut columns: Vec<_> = line.split('\t').collect();
        let known = columns.split_off(2);
        Self { method: columns[0], target: plain(columns[1]), columns: known }
    }

    fn text(&self, column: usize) -> String {
        text(&plain(self.columns[column]))
    }
}

/// Undoes the file's escapes.
fn plain(column: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = column;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        rest = if let Some(hexadecimal) = rest[at..].strip_prefix("\\x") {
            bytes.push(u8::from_str_radix(&hexadecimal[..2], 16).unwrap());
            &hexadecimal[2..]
        } else {
            bytes.push(b'\\');
            rest[at..].strip_prefix("\\\\").unwrap()
        };
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

/// Bytes that are not UTF-8 are kept by Go, and U+FFFD here, in runs of other lengths: both match no name.
fn text(bytes: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(bytes).into_owned();
    while text.contains("\u{fffd}\u{fffd}") {
        text = text.replace("\u{fffd}\u{fffd}", "\u{fffd}");
    }
    text
}

/// What hyper refuses in a request line, and Go does not: bytes that no client sends unescaped.
fn is_refused_by_hyper(target: &[u8]) -> bool {
    let query = target.iter().position(|byte| *byte == b'?').unwrap_or(target.len());
    let (path, query) = target.split_at(query);
    std::str::from_utf8(target).is_err()
        || path.iter().any(|byte| b"<>`^".contains(byte))
        || query.iter().any(|byte| b"\"<>".contains(byte))
}

/// What spillway makes of a request, in the columns of the file.
fn read(line: &Line<'_>, uri: &Uri) -> Result<Vec<String>, &'static str> {
    // The gateway refuses it: classification::a_target_that_is_no_path_is_refused.
    if !uri.path().starts_with('/') && uri.path() != "*" {
        return Err("400");
    }
    let path = DecodedPath::new(uri.path()).map_err(|_| "400")?;
    let info = RequestInfo::new(line.method, &path, uri.query()).map_err(|_| "500")?;
    let kind = if info.is_resource { "r" } else { "p" };
    let long = if info.is_long_running() { "L" } else { "" };
    let verb = match info.verb {
        // Every method that is not one of ours.
        Verb::Other => {
            let verb = line.columns.get(1).map_or_else(|| "other".to_owned(), |verb| text(&plain(verb)));
            let is_ours = |known: &Verb| *known != Verb::Other && known.as_str() == verb;
            assert!(!Verb::ALL.iter().any(is_ours), "{verb} is a verb of ours");
            verb
        }
        verb => verb.as_str().to_owned(),
    };
    let names =
        [info.api_group, info.api_version, info.namespace, info.resource, info.subresource, &info.name];
    let mut columns = vec![format!("{kind}{long}"), verb];
    columns.extend(names.map(|name| text(name.as_bytes())));
    columns.push(text(info.path.as_bytes()));
    let is_collection = matches!(info.verb, Verb::List | Verb::Watch | Verb::DeleteCollection);
    columns.push(if info.is_resource && is_collection { options(&info) } else { String::new() });
    Ok(columns)
}

fn options(info: &RequestInfo<'_>) -> String {
    let query = &info.query;
    let version = match query.resource_version {
        ResourceVersion::Unset => "u",
        ResourceVersion::Any => "0",
        ResourceVersion::Exact => "x",
    };
    let selector = match query.selector {
        Selector::None => "",
        Selector::Label => "L",
        Selector::Field | Selector::Name => "F",
    };
    let flags =
        [if query.continues { "c" } else { "" }, if query.send_initial_events { "i" } else { "" }, selector];
    format!("{} {version} {}", query.limit.unwrap_or(0), flags.concat()).trim_end().to_owned()
}

/// The same columns from the file.
fn expected(line: &Line<'_>) -> Result<Vec<String>, &'static str> {
    match line.columns[0] {
        "400" => return Err("400"),
        "500" => return Err("500"),
        _ => {}
    }
    let mut columns: Vec<_> = (0..8).map(|column| line.text(column)).collect();
    columns.push(match line.columns[9] {
        "=" => text(line.target.split(|byte| *byte == b'?').next().unwrap()),
        _ => line.text(9),
    });
    let mut options = line.columns[10].to_owned();
    // A page of less than one object is none, and of two selectors the field selector counts.
    if let Some(rest) = options.strip_prefix('-') {
        options = format!("0{}", rest.trim_start_matches(|byte: char| byte.is_ascii_digit()));
    }
    columns.push(options.replace("FL", "F"));
    Ok(columns)
}

#[test]
fn every_request_is_read_as_kube_apiserver_reads_it() {
    let file = fs::read_to_string(file()).unwrap();
    let (mut compared, mut stricter, mut wrong) = (0, 0, Vec::new());
    for text in file.lines().filter(|line| !line.starts_with('#')) {
        let line = Line::read(text);
        let shown = format!("{} {}", line.method, String::from_utf8_lossy(&line.target));
        // A fragment is cut off before anybody sees it, and what is left is what is read and what is sent on.
        if line.target.contains(&b'#') {
            continue;
        }
        let Ok(uri) = Uri::try_from(&line.target[..]) else {
            if line.columns[0] != "400" {
                assert!(is_refused_by_hyper(&line.target), "hyper refuses {shown}");
                stricter += 1;
            }
            continue;
        };
        let (found, expected) = (read(&line, &uri), expected(&line));
        let undecodable = |columns: &[String]| columns.last().is_some_and(|options| options == "!");
        let equal = match (&found, &expected) {
            // The answer will be 400; what the options would have asked for is nobody's business.
            (Ok(found), Ok(expected)) if undecodable(expected) => {
                found[..found.len() - 1] == expected[..expected.len() - 1]
            }
            (found, expected) => found == expected,
        };
        if !equal {
            wrong.push(format!("{shown}\n  kube-apiserver {expected:?}\n  spillway       {found:?}"));
        }
        compared += 1;
    }
    let first: Vec<_> = wrong.iter().take(20).cloned().collect();
    assert!(wrong.is_empty(), "{} of {compared} differ:\n{}", wrong.len(), first.join("\n"));
    assert!(compared >= COMPARED_MIN && stricter <= STRICTER_MAX, "{compared} compared, {stricter} refused");
}

#[test]
fn the_file_is_what_kubernetes_own_code_writes() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cluster/request-info.sh");
    let built = Command::new(script).stderr(Stdio::inherit()).output().expect("bash runs request-info.sh");
    assert!(built.status.success(), "{script} failed; its reason is above");
    let program = String::from_utf8(built.stdout).unwrap();
    let written = Command::new(program.trim()).stderr(Stdio::inherit()).output().expect("it runs");
    assert!(written.status.success());
    if env::var_os("SPILLWAY_UPDATE_GOLDEN").is_some() {
        fs::write(file(), &written.stdout).unwrap();
    }
    let kept = fs::read(file()).unwrap();
    let different = kept.split(|byte| *byte == b'\n').zip(written.stdout.split(|byte| *byte == b'\n'));
    let different = different.enumerate().find(|(_, (kept, written))| kept != written);
    assert!(
        kept == written.stdout,
        "not what Kubernetes' code says; SPILLWAY_UPDATE_GOLDEN=1 writes it anew. First difference: {:?}",
        different.map(|(line, (kept, written))| {
            (line + 1, String::from_utf8_lossy(kept), String::from_utf8_lossy(written))
        })
    );
}

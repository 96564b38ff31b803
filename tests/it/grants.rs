//! Do signed grants open the lane in front of a real kube-apiserver, by the commands that people type, and what do those say?

// Clippy's own exception for tests ends at the functions marked as tests; what they call are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};

use crate::{
    cluster::{canary, wait_for},
    spillway::{BINARY, CLUSTER, Spillway, needs_spillway},
};

const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// A folder with a CA, a grant key, and the commands that work in it.
struct Office(tempfile::TempDir);

impl Office {
    fn new() -> Self {
        let office = Self(tempfile::tempdir().unwrap());
        fs::write(office.path("pass"), "correct horse battery staple\n").unwrap();
        office.ok(&["ca", "init", "--out", "ca", "--passphrase-file", "pass"]);
        office.ok(&["grant-key", "--out", "grants", "--passphrase-file", "pass"]);
        office
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(BINARY);
        command.arg("break-glass").args(arguments).current_dir(self.0.path()).stdin(Stdio::null());
        command.output().expect("spillway starts")
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let done = self.run(arguments);
        assert!(done.status.success(), "{arguments:?}: {}", said(&done));
        String::from_utf8(done.stdout).unwrap()
    }

    fn kubeconfig(&self, user: &str, url: &str) -> PathBuf {
        let (file, ca) = (format!("{user}.kubeconfig"), CLUSTER.paths.server_ca.cert.display().to_string());
        let issue =
            ["issue", "--ca", "ca", "--passphrase-file", "pass", "--user", user, "--kubeconfig", &file];
        self.ok(&[&issue[..], &["--server", url, "--cluster-ca", &ca]].concat());
        self.path(&file)
    }

    /// Writes USER.grant.
    fn grant(&self, user: &str, key: &str, more: &[&str]) -> String {
        let (out, to) = (format!("{user}.grant"), ["grant", user, "--ca", "ca", "--key", key]);
        let _ = fs::remove_file(self.path(&out));
        let why = ["--by", "bob@corp", "--reason", "delete the DaemonSet", "--ticket", "INC-481"];
        self.ok(&[&to[..], &why, &["--passphrase-file", "pass", "--out", &out], more].concat())
    }

    fn arm(&self, user: &str, with: &str) -> Output {
        let (kubeconfig, grant) = (format!("{user}.kubeconfig"), format!("{with}.grant"));
        self.run(&["arm", "--grant", &grant, "--kubeconfig", &kubeconfig])
    }
}

fn said(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    format!("{}: {}{}", output.status, text(&output.stdout), text(&output.stderr))
}

fn refusals(spillway: &Spillway, reason: &str) -> f64 {
    let (_, page) = spillway.metrics_page("/metrics").unwrap();
    let line = format!(r#"spillway_break_glass_refused_total{{reason="{reason}"}}"#);
    page.lines().find_map(|found| found.strip_prefix(&line)?.trim().parse().ok()).unwrap_or_default()
}

#[test]
fn only_a_good_grant_opens_a_lane_that_requires_one_and_kubectl_then_just_works() {
    if !needs_spillway() {
        return;
    }
    let office = Office::new();
    office.ok(&["grant-key", "--out", "other", "--passphrase-file", "pass"]);
    let spillway = Spillway::start(&CLUSTER, None, |config| {
        config["breakGlass"]["clientCAFile"] = json!(office.path("ca/ca.crt"));
        config["breakGlass"]["grants"] = json!({ "publicKeyFiles": [office.path("grants/grant.pub")], "required": true, "maxDuration": "2h" });
        config["state"] = json!({ "dir": office.path("state") });
    });
    let url = format!("https://{}", spillway.break_glass);
    let ada = office.kubeconfig("ada@corp", &url);
    office.kubeconfig("eve@corp", &url);
    let refused = CLUSTER.kubectl(&ada, &["get", "namespaces"]);
    assert!(said(&refused).contains("spillway break-glass arm --grant FILE"), "{}", said(&refused));

    let key = "grants/grant.key";
    let later = {
        let time = time::OffsetDateTime::now_utc() + time::Duration::hours(3);
        time.replace_nanosecond(0).unwrap().format(&time::format_description::well_known::Rfc3339).unwrap()
    };
    let cases: [(&str, &str, &[&str], &str); 5] = [
        ("grant_wrong_key", "other/grant.key", &[], "this node trusts"),
        ("grant_other_cluster", key, &["--cluster", "prod-2"], "is for cluster prod-2"),
        ("grant_too_long", key, &["--for", "3h"], "is for 3h, and this node allows 2h"),
        ("grant_not_yet_valid", key, &["--starts", &later], "check the node's clock"),
        ("grant_expired", key, &["--starts", "2026-01-01T00:00:00Z"], "ask for a new one"),
    ];
    for (reason, key, more, words) in cases {
        office.grant("ada@corp", key, more);
        let armed = office.arm("ada@corp", "ada@corp");
        assert_eq!(armed.status.code(), Some(1), "{reason}: {}", said(&armed));
        assert!(said(&armed).contains(words), "{reason}: {}", said(&armed));
        assert!(refusals(&spillway, reason) > 0.5, "{reason}");
    }
    office.grant("ada@corp", key, &[]);
    let good = fs::read_to_string(office.path("ada@corp.grant")).unwrap();
    let stolen = office.arm("eve@corp", "ada@corp");
    assert!(said(&stolen).contains("ada@corp's certificate"), "{}", said(&stolen));
    for (reason, text) in [("grant_garbage", good[..40].to_owned()), ("grant_tampered", tampered(&good))] {
        fs::write(office.path("bad.grant"), text).unwrap();
        let armed = office.arm("ada@corp", "bad");
        assert_eq!(armed.status.code(), Some(1), "{reason}: {}", said(&armed));
        assert!(refusals(&spillway, reason) > 0.5, "{reason}: {}", said(&armed));
    }

    let armed = office.arm("ada@corp", "ada@corp");
    let line = "armed for ada@corp for 1h (INC-481: delete the DaemonSet, granted by bob@corp)\n";
    assert_eq!(String::from_utf8_lossy(&armed.stdout), line, "{}", said(&armed));
    CLUSTER.kubectl_ok(&ada, &["get", "namespaces"]);
    let record = wait_for("the record of the use", PATIENCE, || {
        let text = fs::read_to_string(office.path("state/break-glass-audit.jsonl")).unwrap_or_default();
        canary::search("the audit log", &text);
        let records = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let found = records.into_iter().find(|record| record["event"] == "use");
        found.ok_or_else(|| spillway.log())
    });
    assert_eq!(record["granted_by"], "bob@corp");
    assert!(good.starts_with("v4.public.") && record["grant_id"].as_str().is_some_and(|id| id.len() == 16));
}

/// One character of the message is another.
fn tampered(token: &str) -> String {
    let mut bytes = token.as_bytes().to_vec();
    bytes[60] = if bytes[60] == b'A' { b'B' } else { b'A' };
    String::from_utf8(bytes).unwrap()
}

#[test]
fn what_the_commands_print_is_what_the_golden_text_says() {
    let office = Office::new();
    let mut text = String::new();
    let mut say = |arguments: &[&str]| {
        let done = office.run(arguments);
        text.push_str(&format!("$ spillway break-glass {}\n", arguments.join(" ")));
        text.push_str(&String::from_utf8_lossy(&done.stdout));
        text.push_str(&String::from_utf8_lossy(&done.stderr));
        text.push_str(&format!("[{}]\n\n", done.status.code().unwrap()));
    };
    let grant =
        ["grant", "alice@corp", "--ca", "ca", "--key", "grants/grant.key", "--passphrase-file", "pass"];
    let why = ["--by", "bob@corp", "--reason", "storm", "--ticket", "INC-1"];
    say(&["grant-key", "--out", "more", "--passphrase-file", "pass"]);
    say(&["grant-key", "--out", "grants", "--passphrase-file", "pass"]);
    say(&[&grant[..], &why, &["--out", "a.grant"]].concat());
    say(&["issue", "--ca", "ca", "--user", "alice@corp", "--passphrase-file", "pass"]);
    say(&[&grant[..], &why, &["--out", "a.grant"]].concat());
    say(&[&grant[..], &why, &["--out", "a.grant"]].concat());
    say(&[&grant[..], &why, &["--out", "b.grant", "--for", "5h"]].concat());
    say(&[&grant[..], &["--by", "bob@corp", "--reason", " ", "--ticket", "INC-1", "--out", "b.grant"]]
        .concat());
    say(&[&["grant", "alise@corp"], &grant[2..], &why, &["--out", "b.grant"]].concat());
    say(&[
        &["grant", "--cert", "alice@corp.crt", "--cluster", "prod-1"],
        &grant[4..],
        &why,
        &["--out", "c.grant"],
    ]
    .concat());
    say(&[
        &["grant", "alice@corp", "--ca", "ca", "--key", "ca/ca.key", "--passphrase-file", "pass"],
        &why[..],
    ]
    .concat());
    say(&["arm", "--grant", "a.grant", "--reason", "x", "--kubeconfig", "nowhere"]);
    say(&["arm", "--grant", "nowhere", "--kubeconfig", "nowhere"]);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/grants.txt");
    let text = anonymous(&text);
    if std::env::var_os("SPILLWAY_UPDATE_GOLDEN").is_some() {
        fs::write(&file, &text).unwrap();
    }
    assert_eq!(
        text,
        fs::read_to_string(&file).unwrap_or_default(),
        "SPILLWAY_UPDATE_GOLDEN=1 writes it anew"
    );
}

/// What differs from run to run, by what it is.
fn anonymous(text: &str) -> String {
    let word = |word: &str| {
        let bare = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        let hex = bare.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        let time = bare.len() == 20 && bare.ends_with('Z') && bare.as_bytes()[4] == b'-';
        match bare.len() {
            16 if hex => word.replace(bare, "ID"),
            32 if hex => word.replace(bare, "SERIAL"),
            64 if hex => word.replace(bare, "FINGERPRINT"),
            _ if time => word.replace(bare, "YYYY-MM-DDTHH:MM:SSZ"),
            _ => word.to_owned(),
        }
    };
    let line = |line: &str| line.split(' ').map(word).collect::<Vec<_>>().join(" ");
    text.lines().map(line).collect::<Vec<_>>().join("\n") + "\n"
}

//! The lane for emergencies in front of a real kube-apiserver: certificates as `spillway break-glass issue` makes them, the
//! rights and the priority that `deploy/break-glass/` gives, and what an operator sees of all that.

// Clippy's own exception for tests ends at the functions marked as tests; what they call are tests too.
// And a test bed measures real time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use futures_util::future::join_all;
use http::StatusCode;
use rcgen::ExtendedKeyUsagePurpose;
use serde_json::{Value, json};

use crate::{
    client::{Protocol, block_on, get},
    cluster::{Credential, canary, wait_for},
    spillway::{BINARY, CLUSTER, Spillway, needs_spillway},
};

const PATIENCE: Duration = Duration::from_secs(60);

/// A folder with a CA of its own, and the commands that work in it.
pub(crate) struct Office {
    dir: tempfile::TempDir,
}

impl Office {
    pub(crate) fn new() -> Self {
        let office = Self { dir: tempfile::tempdir().unwrap() };
        fs::write(office.path("passphrase"), "correct horse battery staple\n").unwrap();
        let made =
            office.run(&["break-glass", "ca", "init", "--out", "ca", "--passphrase-file", "passphrase"]);
        assert!(made.status.success(), "{}", said(&made));
        office
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        Command::new(BINARY)
            .args(arguments)
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .output()
            .expect("spillway starts")
    }

    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let done = self.run(arguments);
        assert!(done.status.success(), "{arguments:?}: {}", said(&done));
        String::from_utf8(done.stdout).unwrap()
    }

    /// A person's kubeconfig for the lane at `url`.
    pub(crate) fn kubeconfig(&self, user: &str, url: &str) -> PathBuf {
        let (file, ca) = (format!("{user}.kubeconfig"), CLUSTER.paths.server_ca.cert.display().to_string());
        let issue = ["break-glass", "issue", "--ca", "ca", "--passphrase-file", "passphrase", "--user", user];
        let to = ["--kubeconfig", file.as_str(), "--server", url, "--cluster-ca", ca.as_str()];
        self.ok(&[&issue[..], &to[..]].concat());
        self.path(&file)
    }
}

pub(crate) fn said(output: &Output) -> String {
    format!(
        "{}: {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// A spillway whose break-glass CA is the office's, with a folder for its state.
pub(crate) fn start(office: &Office, change: impl FnOnce(&mut Value)) -> Spillway {
    Spillway::start(&CLUSTER, None, |config| {
        config["breakGlass"]["clientCAFile"] = json!(office.path("ca/ca.crt"));
        config["breakGlass"]["denyFile"] = json!(office.path("ca/revoked.txt"));
        config["state"] = json!({"dir": office.path("state")});
        change(config);
    })
}

pub(crate) fn url(spillway: &Spillway) -> String {
    format!("https://{}", spillway.break_glass)
}

fn log(office: &Office) -> Vec<Value> {
    let text = fs::read_to_string(office.path("state/break-glass-audit.jsonl")).unwrap_or_default();
    canary::search("the audit log", &text);
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

pub(crate) fn metric(spillway: &Spillway, line: &str) -> f64 {
    let (_, page) = spillway.metrics_page("/metrics").unwrap();
    let value = page.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok());
    value.unwrap_or_default()
}

#[test]
fn a_certificate_of_issue_deletes_the_daemon_set_and_both_logs_name_who_did() {
    if !needs_spillway() {
        return;
    }
    CLUSTER.apply(include_str!("../../deploy/break-glass/flowschema.yaml"));
    CLUSTER.apply(
        "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: culprit, namespace: default}\nspec:\n  \
         selector: {matchLabels: {app: culprit}}\n  template:\n    metadata: {labels: {app: culprit}}\n    \
         spec: {containers: [{name: main, image: none}]}",
    );
    let office = Office::new();
    let spillway = start(&office, |_| ());
    let grace = office.kubeconfig("grace@corp", &url(&spillway));

    let tested = office.run(&["break-glass", "test", "--kubeconfig", "grace@corp.kubeconfig"]);
    let text = String::from_utf8_lossy(&tested.stdout).into_owned();
    assert!(tested.status.success(), "{}\n{}", said(&tested), spillway.log());
    assert!(text.contains("kube-apiserver sees grace@corp in spillway:break-glass"), "{text}");
    assert!(
        text.contains("may delete daemonsets") && text.ends_with("the lane works for this person\n"),
        "{text}"
    );

    let done = CLUSTER.kubectl_ok(&grace, &["delete", "daemonset", "culprit", "--wait=false"]);
    assert!(done.contains("deleted"), "{done}");

    // Our record and the apiserver's are of one request.
    let record = wait_for("the record of the delete", PATIENCE, || {
        let found = log(&office).into_iter().find(|record| record["method"] == "DELETE");
        found.ok_or_else(|| spillway.log())
    });
    assert_eq!(
        (record["actor"]["user"].as_str(), record["status"].as_u64()),
        (Some("grace@corp"), Some(200))
    );
    assert_eq!(
        (record["class"]["verb"].as_str(), record["class"]["name"].as_str()),
        (Some("delete"), Some("culprit"))
    );
    let id = record["request_id"].as_str().unwrap().to_owned();
    let audit = CLUSTER.audit_log().unwrap();
    let event = wait_for("the apiserver's audit event", PATIENCE, || {
        let text = fs::read_to_string(&audit).unwrap_or_default();
        let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let found = events.into_iter().find(|event| event["auditID"] == id.as_str());
        found.ok_or_else(|| format!("no event {id}"))
    });
    assert_eq!(event["user"]["username"], "grace@corp");

    // The exempt level answered: the apiserver names its FlowSchema in the answer.
    let levels = CLUSTER.kubectl_ok(
        &CLUSTER.admin_kubeconfig(),
        &["get", "flowschema", "spillway-break-glass", "-o", "jsonpath={.metadata.uid}"],
    );
    let pair = person_files(&office, "ada@corp");
    block_on(async {
        let answer =
            spillway.break_glass_caller(&pair).ask(Protocol::Http2, get("/api/v1/nodes?limit=1")).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        assert_eq!(answer.header("x-kubernetes-pf-flowschema-uid"), levels);
    });

    spillway.terminate();
    wait_for("spillway to end", PATIENCE, || spillway.ended().ok_or_else(|| spillway.log()));
    let verdict = office.ok(&[
        "audit",
        "verify",
        "state/break-glass-audit.jsonl",
        "--public-key",
        "state/break-glass-audit.pub",
    ]);
    assert!(verdict.contains("head signed") && verdict.contains("the log is whole"), "{verdict}");
}

/// Certificate and key in files of their own.
fn person_files(office: &Office, user: &str) -> Credential {
    office.ok(&["break-glass", "issue", "--ca", "ca", "--passphrase-file", "passphrase", "--user", user]);
    Credential::Certificate(crate::cluster::Pair {
        cert: office.path(&format!("{user}.crt")),
        key: office.path(&format!("{user}.key")),
    })
}

#[test]
fn revoking_shuts_the_lane_for_one_person_within_seconds() {
    if !needs_spillway() {
        return;
    }
    let office = Office::new();
    let spillway = start(&office, |_| ());
    let (eve, ada) = (person_files(&office, "eve@corp"), person_files(&office, "ada@corp"));
    block_on(async {
        let mut eves = spillway.break_glass_caller(&eve).connect(Protocol::Http2).await;
        assert_eq!(eves.ask(get("/version")).await.status, StatusCode::OK, "{}", spillway.log());
        let told =
            office.ok(&["break-glass", "revoke", "eve@corp", "--ca", "ca", "--reason", "left the company"]);
        assert!(told.contains("of eve@corp"), "{told}");
        let began = std::time::Instant::now();
        loop {
            let answer = eves.ask(get("/version")).await;
            if answer.status == StatusCode::UNAUTHORIZED {
                assert!(answer.text().contains("was revoked"), "{}", answer.text());
                break;
            }
            assert!(began.elapsed() < PATIENCE, "still open: {}", spillway.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let answer = spillway.break_glass_caller(&ada).ask(Protocol::Http1, get("/version")).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    });
    assert!(office.ok(&["break-glass", "list", "--ca", "ca"]).contains("revoked"));
    assert!(metric(&spillway, r#"spillway_break_glass_refused_total{reason="revoked"}"#) >= 1.0);
    assert!((metric(&spillway, "spillway_break_glass_denied_certificates") - 1.0).abs() < 0.5);
}

#[test]
fn each_wrong_certificate_is_told_what_is_wrong_with_it() {
    if !needs_spillway() {
        return;
    }
    let spillway = Spillway::start(&CLUSTER, None, |_| ());
    let day = time_of(86_400);
    let pki = &CLUSTER.pki;
    let wrong = [
        ("expired", "has expired", pki.break_glass_with("bg-expired", |p| p.not_after = day - time_span(2))),
        (
            "not_yet_valid",
            "check the node's clock",
            pki.break_glass_with("bg-early", |p| p.not_before = day + time_span(1)),
        ),
        (
            "no_client_auth",
            "clientAuth",
            pki.break_glass_with("bg-no-eku", |p| p.extended_key_usages.clear()),
        ),
        (
            "no_client_auth",
            "clientAuth",
            pki.break_glass_with("bg-server", |p| {
                p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]
            }),
        ),
        ("wrong_ca", "not the break-glass CA", CLUSTER.paths.wrong_admin.clone()),
    ];
    block_on(async {
        for (reason, words, pair) in wrong {
            let caller = spillway.break_glass_caller(&Credential::Certificate(pair));
            let answer = caller.ask(Protocol::Http2, get("/api")).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{reason}: {}", answer.text());
            assert!(answer.text().contains(words), "{reason}: {}", answer.text());
            let line = format!(r#"spillway_break_glass_refused_total{{reason="{reason}"}}"#);
            assert!(metric(&spillway, &line) >= 1.0, "{reason}");
        }
        // The sixth from one address is too many, whatever is wrong with it; a good one still passes.
        let nobody = spillway.break_glass_caller(&Credential::None);
        let answer = nobody.ask(Protocol::Http2, get("/api")).await;
        assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{}", answer.text());
        assert_eq!(answer.header("retry-after"), "60");
        let good = spillway.break_glass_caller(&CLUSTER.break_glass());
        assert_eq!(good.ask(Protocol::Http2, get("/version")).await.status, StatusCode::OK);
    });
}

fn time_of(days_from_now_seconds: i64) -> time::OffsetDateTime {
    time::OffsetDateTime::from(std::time::SystemTime::now()) + time::Duration::seconds(days_from_now_seconds)
}

fn time_span(days: i64) -> time::Duration {
    time::Duration::days(days)
}

#[test]
fn arming_survives_a_restart_only_with_an_intact_file() {
    if !needs_spillway() {
        return;
    }
    let office = Office::new();
    let armed = |config: &mut Value| config["breakGlass"]["arming"] = json!("Reasoned");
    let spillway = start(&office, armed);
    let ada = office.kubeconfig("ada@corp", &url(&spillway));
    let refused = CLUSTER.kubectl(&ada, &["get", "namespaces"]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains("spillway break-glass arm --reason"), "kubectl shows what to do: {text}");
    let arm = [
        "break-glass",
        "arm",
        "--reason",
        "storm",
        "--ticket",
        "INC-481",
        "--for",
        "1h",
        "--kubeconfig",
        "ada@corp.kubeconfig",
    ];
    assert_eq!(office.ok(&arm), "armed for ada@corp for 1h (INC-481: storm)\n");
    CLUSTER.kubectl_ok(&ada, &["get", "namespaces"]);
    spillway.terminate();
    wait_for("spillway to end", PATIENCE, || spillway.ended().ok_or_else(|| spillway.log()));

    // Each start has a port of its own, so the kubeconfig follows.
    let again = |broken: bool| {
        if broken {
            let file = office.path("state/break-glass-armed.json");
            let text = fs::read_to_string(&file).unwrap();
            fs::write(&file, text.replace("ada@corp", "eve@corp")).unwrap();
        }
        let spillway = start(&office, armed);
        let text = fs::read_to_string(&ada).unwrap();
        let line = text.lines().find(|line| line.contains("server:")).unwrap().to_owned();
        fs::write(&ada, text.replace(&line, &format!("    server: {}", url(&spillway)))).unwrap();
        let asked = CLUSTER.kubectl(&ada, &["get", "namespaces"]);
        spillway.terminate();
        wait_for("spillway to end", PATIENCE, || spillway.ended().ok_or_else(|| spillway.log()));
        asked.status.success()
    };
    assert!(again(false), "an intact file keeps the lane armed");
    assert!(!again(true), "a file that was changed arms nobody");
}

#[test]
fn two_people_open_the_lane_by_two_commands() {
    if !needs_spillway() {
        return;
    }
    let office = Office::new();
    let spillway = start(&office, |config| config["breakGlass"]["arming"] = json!("TwoPerson"));
    let ada = office.kubeconfig("ada@corp", &url(&spillway));
    office.kubeconfig("bob@corp", &url(&spillway));
    let arm = [
        "break-glass",
        "arm",
        "--reason",
        "storm",
        "--ticket",
        "INC-481",
        "--kubeconfig",
        "ada@corp.kubeconfig",
    ];
    let waiting = office.ok(&arm);
    assert!(waiting.starts_with("not armed yet: ") && waiting.contains("confirm ada@corp"), "{waiting}");
    assert!(!CLUSTER.kubectl(&ada, &["get", "namespaces"]).status.success());
    let confirm = |by: &str| {
        office.run(&["break-glass", "confirm", "ada@corp", "--kubeconfig", &format!("{by}.kubeconfig")])
    };
    let herself = confirm("ada@corp");
    assert_eq!(herself.status.code(), Some(1), "{}", said(&herself));
    let confirmed = confirm("bob@corp");
    assert_eq!(
        String::from_utf8_lossy(&confirmed.stdout),
        "armed for ada@corp for 1h (INC-481: storm, confirmed by bob@corp)\n",
        "{}",
        said(&confirmed)
    );
    CLUSTER.kubectl_ok(&ada, &["get", "namespaces"]);
    assert_eq!(office.ok(&["break-glass", "disarm", "--kubeconfig", "ada@corp.kubeconfig"]), "disarmed\n");
    assert!(!CLUSTER.kubectl(&ada, &["get", "namespaces"]).status.success());
}

#[test]
fn the_self_probe_and_the_command_that_is_told_both_work() {
    if !needs_spillway() {
        return;
    }
    let office = Office::new();
    let drill = [
        "break-glass",
        "issue",
        "--ca",
        "ca",
        "--passphrase-file",
        "passphrase",
        "--user",
        "drill-cp-1",
        "--drill",
    ];
    office.ok(&[&drill[..], &["--ttl", "300d", "--out", "drill"]].concat());
    let told = office.path("told");
    let script = format!("cat >> {}", told.display());
    let spillway = start(&office, |config| {
        config["breakGlass"]["drill"] =
            json!({"certFile": office.path("drill.crt"), "keyFile": office.path("drill.key")});
        config["breakGlass"]["onUse"] = json!({"command": ["/bin/sh", "-c", script]});
    });
    wait_for("a self-probe that gets through", PATIENCE, || {
        let last = metric(&spillway, "spillway_break_glass_probe_last_success_timestamp_seconds");
        if last > 1.6e9 { Ok(()) } else { Err(spillway.log()) }
    });
    assert!(log(&office).iter().any(|record| record["event"] == "drill"), "{}", spillway.log());
    assert!(metric(&spillway, r#"spillway_break_glass_certificate_days_left{certificate="drill"}"#) > 298.0);
    assert!(metric(&spillway, "spillway_break_glass_sessions_total") < 0.5, "a probe is no use of the lane");

    let ada = office.kubeconfig("ada@corp", &url(&spillway));
    CLUSTER.kubectl_ok(&ada, &["get", "namespaces"]);
    let event = wait_for("the command to be told", PATIENCE, || {
        let text = fs::read_to_string(&told).unwrap_or_default();
        let event = text.lines().next().and_then(|line| serde_json::from_str::<Value>(line).ok());
        event.ok_or_else(|| spillway.log())
    });
    assert_eq!(event["actor"]["user"], "ada@corp");
    assert!(spillway.whole_log().contains("somebody uses the lane"), "{}", spillway.log());
    assert!((metric(&spillway, "spillway_break_glass_sessions_total") - 1.0).abs() < 0.5);
}

#[test]
fn a_test_that_fails_says_where_and_what_to_do() {
    if !needs_spillway() {
        return;
    }
    let office = Office::new();
    let spillway = start(&office, |_| ());
    let tested = |user: &str| {
        let done =
            office.run(&["break-glass", "test", "--kubeconfig", &format!("{user}.kubeconfig"), "-o", "json"]);
        assert_eq!(done.status.code(), Some(1), "{user}: {}", said(&done));
        let json: Value = serde_json::from_slice(&done.stdout).unwrap();
        let steps = json["steps"].as_array().unwrap().clone();
        let last = steps.into_iter().find(|step| step["ok"] == false).unwrap();
        assert!(last["advice"].as_str().is_some_and(|advice| advice.len() > 20), "{user}: {last}");
        (last["step"].as_str().unwrap().to_owned(), last["what"].as_str().unwrap().to_owned())
    };
    office.kubeconfig("ada@corp", &format!("https://127.0.0.1:{}", crate::cluster::free_port()));
    assert_eq!(tested("ada@corp").0, "connect");
    let good = fs::read_to_string(office.kubeconfig("bob@corp", &url(&spillway))).unwrap();
    // The main listener accepts nobody of the break-glass CA.
    office.kubeconfig("eve@corp", &format!("https://{}", spillway.main));
    assert_eq!(tested("eve@corp").0, "identity");
    office.ok(&["break-glass", "revoke", "bob@corp", "--ca", "ca"]);
    wait_for("the deny list to be read", PATIENCE, || {
        let denied = metric(&spillway, "spillway_break_glass_denied_certificates");
        if denied > 0.5 { Ok(()) } else { Err(spillway.log()) }
    });
    let (step, what) = tested("bob@corp");
    assert!(step == "identity" && what.contains("was revoked"), "{step}: {what}");
    // Another CA than the one that signed the lane's serving certificate.
    let (ca, wrong) = (&CLUSTER.paths.server_ca.cert, &CLUSTER.paths.wrong_ca.cert);
    let encode = |file: &Path| {
        base64::Engine::encode(&base64::engine::general_purpose::STANDARD, fs::read(file).unwrap())
    };
    let text = good.replace(&encode(ca), &encode(wrong));
    assert_ne!(text, good);
    fs::write(office.path("bob@corp.kubeconfig"), text).unwrap();
    assert_eq!(tested("bob@corp").0, "tls");
}

#[test]
fn a_loop_of_lists_never_exceeds_the_ceiling() {
    if !needs_spillway() {
        return;
    }
    let spillway = Spillway::start(&CLUSTER, None, |_| ());
    block_on(async {
        let caller = spillway.break_glass_caller(&CLUSTER.break_glass());
        let mut connections = Vec::new();
        for _ in 0..20 {
            connections.push(caller.connect(Protocol::Http2).await);
        }
        let (mut served, mut refused) = (0_u32, 0_u32);
        let began = std::time::Instant::now();
        // Twenty at a time: one after the other, a slow machine never asks faster than it is allowed.
        for _ in 0..3 {
            let lists = connections.iter_mut().map(|one| one.ask(get("/api/v1/configmaps")));
            // A LIST of everything counts as four requests: ten at once, five a second afterwards.
            for answer in join_all(lists).await {
                match answer.status {
                    StatusCode::OK => served += 1,
                    StatusCode::TOO_MANY_REQUESTS => refused += 1,
                    other => panic!("{other}: {}", spillway.log()),
                }
            }
        }
        let allowed = 10.0 + began.elapsed().as_secs_f64() * 5.0 + 1.0;
        assert!(f64::from(served) <= allowed, "{served} LISTs in {:?}, {allowed} allowed", began.elapsed());
        assert!(served >= 10 && refused > 0, "{served} served, {refused} refused");
    });
}

#[test]
fn the_page_for_the_incident_is_in_the_binary() {
    let office = Office { dir: tempfile::tempdir().unwrap() };
    assert_eq!(office.ok(&["help", "incident"]), include_str!("../../docs/INCIDENT.md"));
    assert!(office.ok(&["help"]).contains("spillway help incident"));
    assert!(office.ok(&["help", "run"]).contains("--config"), "clap's own help still works");
}

#[test]
fn what_the_commands_print_is_what_the_golden_texts_say() {
    let office = Office::new();
    let mut text = String::new();
    let mut say = |arguments: &[&str]| {
        let done = office.run(arguments);
        text.push_str(&format!("$ spillway {}\n", arguments.join(" ")));
        text.push_str(&String::from_utf8_lossy(&done.stdout));
        text.push_str(&String::from_utf8_lossy(&done.stderr));
        text.push_str(&format!("[{}]\n\n", done.status.code().unwrap()));
    };
    let issue = ["break-glass", "issue", "--ca", "ca", "--passphrase-file", "passphrase"];
    say(&["break-glass", "ca", "init", "--out", "ca2", "--passphrase-file", "passphrase"]);
    say(&["break-glass", "ca", "init", "--out", "ca", "--passphrase-file", "passphrase"]);
    say(&["break-glass", "list", "--ca", "ca"]);
    say(&[&issue[..], &["--user", "alice@corp"]].concat());
    say(&[&issue[..], &["--user", "alice@corp"]].concat());
    say(&[&issue[..], &["--user", "bob@corp", "--ttl", "31d"]].concat());
    say(&[&issue[..], &["--user", "alice,bob"]].concat());
    say(&[&issue[..], &["--user", "oncall@corp"]].concat());
    say(&[&issue[..], &["--user", "bob@corp", "--ttl", "soon"]].concat());
    say(&["break-glass", "issue", "--ca", "ca", "--user", "bob@corp"]);
    fs::write(office.path("wrong"), "another passphrase\n").unwrap();
    say(&["break-glass", "issue", "--ca", "ca", "--user", "bob@corp", "--passphrase-file", "wrong"]);
    say(&["break-glass", "issue", "--ca", "nowhere", "--user", "bob@corp", "--passphrase-file", "wrong"]);
    say(&["break-glass", "list", "--ca", "ca"]);
    say(&["break-glass", "revoke", "alise@corp", "--ca", "ca"]);
    say(&["break-glass", "revoke", "alice@corp", "--ca", "ca", "--reason", "laptop stolen"]);
    say(&["break-glass", "revoke", "alice@corp", "--ca", "ca"]);
    say(&["break-glass", "list", "--ca", "ca"]);
    say(&["break-glass", "test", "--kubeconfig", "nowhere"]);
    say(&["audit", "verify", "nowhere"]);
    compare("lane.txt", &anonymous(&text));
}

/// What differs from run to run, by what it is.
fn anonymous(text: &str) -> String {
    let word = |word: &str| {
        let bare = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        let hex = bare.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        let time = bare.len() == 20 && bare.ends_with('Z') && bare.as_bytes()[4] == b'-';
        match bare.len() {
            32 if hex => word.replace(bare, "SERIAL00000000000000000000000000"),
            64 if hex => word.replace(bare, "FINGERPRINT"),
            _ if time => word.replace(bare, "YYYY-MM-DDTHH:MM:SSZ"),
            _ => word.to_owned(),
        }
    };
    let line = |line: &str| line.split(' ').map(word).collect::<Vec<_>>().join(" ");
    let text = text.lines().map(line).collect::<Vec<_>>().join("\n");
    text.replace("23h 59m left", "1d left") + "\n"
}

fn compare(golden: &str, text: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(golden);
    if std::env::var_os("SPILLWAY_UPDATE_GOLDEN").is_some() {
        fs::write(&file, text).unwrap();
    }
    assert_eq!(
        text,
        fs::read_to_string(&file).unwrap_or_default(),
        "{golden}; SPILLWAY_UPDATE_GOLDEN=1 writes it anew"
    );
}

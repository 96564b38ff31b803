//! Is everything bad that can be put in front of the break-glass lane told in words, and counted by its own reason?
//!
//! The table of `docs/BREAK_GLASS.md` names each case; what `lane.rs` has already is not repeated here.

// Clippy's own exception for tests ends at the functions marked as tests; what they call are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{fs, time::Duration};

use http::StatusCode;
use rcgen::{CertificateParams, DnType};
use serde_json::json;

use crate::{
    client::{Protocol, block_on, get},
    cluster::{Credential, Pair, wait_for},
    lane::{Office, metric, said, start},
    spillway::{CLUSTER, Spillway, needs_spillway},
};

const PATIENCE: Duration = Duration::from_secs(60);

fn unmarked(params: &mut CertificateParams) {
    params.distinguished_name.remove(DnType::OrganizationalUnitName);
}

fn of_nobody(params: &mut CertificateParams) {
    params.distinguished_name.remove(DnType::OrganizationName);
    params.distinguished_name.push(DnType::OrganizationName, "strangers");
}

fn of_two(params: &mut CertificateParams) {
    params.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 3]), "eve@corp");
}

#[test]
fn what_a_certificate_lacks_is_said_and_counted_by_its_own_reason() {
    if !needs_spillway() {
        return;
    }
    let spillway = Spillway::start(&CLUSTER, None, |_| ());
    let with = |file: &str, change: fn(&mut CertificateParams)| {
        Credential::Certificate(CLUSTER.pki.break_glass_with(file, change))
    };
    let wrong = [
        ("no_certificate", "none was shown", Credential::None),
        ("wrong_unit", "not marked for break-glass", with("bg-unmarked", unmarked)),
        ("wrong_group", "names none of this lane's groups", with("bg-stranger", of_nobody)),
        ("not_one_person", "one common name is expected", with("bg-two", of_two)),
    ];
    block_on(async {
        for (reason, words, who) in wrong {
            let answer = spillway.break_glass_caller(&who).ask(Protocol::Http2, get("/api")).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{reason}: {}", answer.text());
            assert!(answer.text().contains(words), "{reason}: {}", answer.text());
            let line = format!(r#"spillway_break_glass_refused_total{{reason="{reason}"}}"#);
            assert!(metric(&spillway, &line) >= 1.0, "{reason}: {}", spillway.log());
        }
    });
}

#[test]
fn a_deny_list_that_cannot_be_read_frees_nobody_and_is_counted() {
    if !needs_spillway() {
        return;
    }
    let office = Office::new();
    let spillway = start(&office, |_| ());
    office.ok(&[
        "break-glass",
        "issue",
        "--ca",
        "ca",
        "--passphrase-file",
        "passphrase",
        "--user",
        "eve@corp",
    ]);
    office.ok(&["break-glass", "revoke", "eve@corp", "--ca", "ca"]);
    let denied = || metric(&spillway, "spillway_break_glass_denied_certificates") >= 1.0;
    wait_for("the deny list to be read", PATIENCE, || if denied() { Ok(()) } else { Err(spillway.log()) });
    let (list, line) =
        (office.path("ca/revoked.txt"), r#"spillway_break_glass_reload_failures_total{file="deny_list"}"#);
    fs::remove_file(&list).unwrap();
    // Not even root can read a folder as a file.
    fs::create_dir(&list).unwrap();
    wait_for(line, PATIENCE, || if metric(&spillway, line) >= 1.0 { Ok(()) } else { Err(spillway.log()) });
    let pair = Pair { cert: office.path("eve@corp.crt"), key: office.path("eve@corp.key") };
    let eve = spillway.break_glass_caller(&Credential::Certificate(pair));
    let answer = block_on(eve.ask(Protocol::Http2, get("/version")));
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{}", answer.text());
    assert!(answer.text().contains("was revoked"), "{}", answer.text());
    assert!(denied(), "the last list stays in force");
}

#[test]
fn a_cut_audit_log_and_a_broken_file_of_grants_are_counted_and_the_lane_opens() {
    if !needs_spillway() {
        return;
    }
    let office = Office::new();
    let first = start(&office, |_| ());
    first.terminate();
    wait_for("spillway to end", PATIENCE, || first.ended().ok_or_else(|| first.log()));
    let log = office.path("state/break-glass-audit.jsonl");
    let text = fs::read_to_string(&log).unwrap();
    let cut: String = text.lines().take(1).map(|line| format!("{line}\n")).collect();
    assert_ne!(cut, text);
    fs::write(&log, cut).unwrap();
    fs::write(office.path("state/break-glass-armed.json"), "{\"version\":1,\"grants\":[]").unwrap();

    let second = start(&office, |config| config["breakGlass"]["arming"] = json!("Reasoned"));
    for line in [
        "spillway_break_glass_audit_cut_total",
        r#"spillway_break_glass_reload_failures_total{file="armed"}"#,
    ] {
        wait_for(line, PATIENCE, || match metric(&second, line) {
            count if count >= 1.0 => Ok(()),
            count => Err(format!("it is {count}; {}", second.log())),
        });
    }
    let told = second.whole_log();
    assert!(told.contains("the end of the audit log was cut"), "{told}");
    assert!(told.contains("the file of who is armed is not intact"), "{told}");
    let ready = block_on(
        second.break_glass_caller(&CLUSTER.break_glass()).ask(Protocol::Http1, get("/spillway/arm")),
    );
    // The office's lane has another CA: what counts is that it is open and judges.
    assert_eq!(ready.status, StatusCode::UNAUTHORIZED, "{}", ready.text());
    let verified = office.run(&["audit", "verify", "state/break-glass-audit.jsonl"]);
    assert_eq!(verified.status.code(), Some(1), "{}", said(&verified));
    assert!(said(&verified).contains("missing"), "{}", said(&verified));
}

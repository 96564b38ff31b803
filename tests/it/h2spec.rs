//! Is HTTP/2 spoken as RFC 9113 says?
//!
//! h2spec asks: every case, the strict ones too, over TLS, once for a path that is forwarded and once for one that is
//! refused here. It is built from its Go module, once (`tests/h2spec/build.sh`).

// Clippy's own exception for tests ends at the functions marked as tests; what they call are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::process::{Command, Stdio};

use crate::{
    framing::{stand::Stand, upstream::Reply},
    spillway::needs_spillway,
};

/// Cases in the version that `tests/h2spec/go.mod` names.
const CASES: usize = 146;

#[test]
fn every_strict_case_passes_on_forwarded_and_on_refused_requests() {
    if !needs_spillway() {
        return;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/h2spec/build.sh");
    let built = Command::new(script).stderr(Stdio::inherit()).output().expect("bash runs build.sh");
    assert!(built.status.success(), "expected {script} to build h2spec; its reason is above");
    let program = String::from_utf8_lossy(&built.stdout).trim().to_owned();

    let stand = Stand::start(true);
    // One case changes the window in the middle of an answer.
    stand.upstream.reply("/version", Reply::Bytes(1_000));
    // The second is no path that kube-apiserver could read either.
    for (what, path) in [("forwarded", "/version"), ("refused", "/api/%zz")] {
        let before = stand.forwarded();
        let ask = || {
            let output = Command::new(&program)
                .args(["--strict", "--tls", "--insecure", "--timeout", "10"])
                .args(["--host", "127.0.0.1", "--port", &stand.main.port().to_string(), "--path", path])
                .output()
                .unwrap();
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let expected = format!("{CASES} tests, {CASES} passed, 0 skipped, 0 failed");
        let is_passed = |text: &String| text.lines().rev().any(|line| line.trim() == expected);
        // Some cases take the answer that was on its way already for the reaction that they wait for, which a busy machine
        // makes likely: whoever is wrong is wrong three times.
        let mut text = ask();
        for _ in 0..2 {
            if !is_passed(&text) {
                text = ask();
            }
        }
        let failures = text.split("Failures:").nth(1).unwrap_or(&text);
        assert!(is_passed(&text), "{what}: {failures}\n{}", stand.log());
        assert_eq!(stand.forwarded() > before, what == "forwarded", "{what}: another path than intended");
    }
}

use super::*;

fn at(millis: u64) -> Instant {
    Instant::ORIGIN + Duration::from_millis(millis)
}

fn bad() -> Half {
    Half {
        storm_seconds: 20.04,
        ended_by: EndedBy::Demo,
        leases: Leases {
            due: 1_600,
            renewed: 402,
            percent: 25.125,
            p99_ms: 2_501.3,
            calm_p99_ms: 4.2,
            nodes_not_ready: 187,
        },
        dns: Dns { staleness_max_ms: 17_804.2, staleness_p99_ms: 17_310.0 },
        operator: Operator {
            commands: 9,
            succeeded: 3,
            percent: 33.333,
            p99_ms: 5_001.0,
            deleted_after_ms: None,
        },
        telemetry: Telemetry { served: 31, refused: 3_604, failed: 0, first_refused_after_ms: Some(2_900) },
        refused_others: 55,
        others_first_refused_after_ms: Some(3_100),
        apiserver: Apiserver { busy_percent: 98.6, wasted_percent: 93.8 },
        recovery_ms: Some(1_100),
    }
}

fn good() -> Half {
    Half {
        storm_seconds: 12.3,
        ended_by: EndedBy::Operator,
        leases: Leases {
            renewed: 980,
            due: 980,
            percent: 100.0,
            p99_ms: 7.8,
            nodes_not_ready: 0,
            ..bad().leases
        },
        dns: Dns { staleness_max_ms: 460.0, staleness_p99_ms: 420.0 },
        operator: Operator {
            commands: 42,
            succeeded: 42,
            percent: 100.0,
            p99_ms: 48.0,
            deleted_after_ms: Some(260),
        },
        telemetry: Telemetry { served: 80, refused: 1_204, failed: 0, first_refused_after_ms: Some(310) },
        refused_others: 0,
        others_first_refused_after_ms: None,
        apiserver: Apiserver { busy_percent: 71.2, wasted_percent: 0.0 },
        recovery_ms: Some(0),
    }
}

fn report(with: Half) -> Report {
    Report {
        seed: 7,
        nodes: 200,
        pods: 6_000,
        lease_time_compression: 4,
        took_seconds: 58.2,
        verdict: Verdict::of(&bad(), &with),
        without: bad(),
        with,
    }
}

#[test]
fn the_table_reads_like_this_and_fits_80_columns() {
    let text = report(good()).render();
    let expected = "\
The same storm, measured: 200 nodes, 6000 pods, seed 7, 58 s in all
----------------------------------------------------------------------------
                                          without spillway     with spillway
----------------------------------------------------------------------------
node leases renewed                                 25.1 %           100.0 %
  renewals in time                             402 of 1600        980 of 980
  slowest 1 % (p99)                                  2.5 s              8 ms
  nodes taken for dead                                 187                 0
DNS answers stale, worst                            17.8 s            460 ms
  99 % of the time below                            17.3 s            420 ms
operator commands that worked                       33.3 %           100.0 %
  commands                                          3 of 9          42 of 42
  slowest 1 % (p99)                                  5.0 s             48 ms
  culprit deleted after                              never            260 ms
telemetry LISTs served                                  31                80
  refused (429)                                       3604              1204
others refused (429)                                    55                 0
apiserver busy                                        99 %              71 %
  of it lost to memory pressure                       94 %               0 %
storm ended by                                    the demo      the operator
  after                                             20.0 s            12.3 s
back to calm after                                   1.1 s              0 ms
----------------------------------------------------------------------------
Real TLS connections; the apiserver's speed is modelled (no APF, 4x faster
lease clock, DaemonSet deleted 12 s into the storm at the earliest).
PASSED: operators and leases 100 % through the storm; only telemetry was shed.
";
    assert_eq!(text, expected);
    assert!(text.lines().all(|line| line.chars().count() <= 80));
}

#[test]
fn one_lost_lease_or_command_fails_and_is_named() {
    let mut with = good();
    with.leases.renewed -= 1;
    with.operator.succeeded -= 1;
    let verdict = report(with).verdict;
    assert!(!verdict.passed);
    let expected =
        ["with spillway 1 of 980 lease renewals failed", "with spillway 1 of 42 operator commands failed"];
    assert_eq!(verdict.missed, expected);
}

#[test]
fn refusals_must_hit_telemetry_first() {
    let mut with = good();
    with.refused_others = 13;
    assert_eq!(report(with).verdict.missed, ["with spillway 13 of 1217 refusals hit others than telemetry"]);
    let mut with = good();
    with.refused_others = 12;
    assert!(report(with).verdict.passed, "12 of 1216 are below one percent");
    let mut with = good();
    with.telemetry.refused = 0;
    assert!(!report(with).verdict.passed);
    let mut with = good();
    (with.refused_others, with.others_first_refused_after_ms) = (1, Some(309));
    assert_eq!(report(with).verdict.missed, ["with spillway somebody else was refused before telemetry"]);
}

#[test]
fn a_storm_that_hurts_nobody_proves_nothing() {
    let verdict = Verdict::of(&good(), &good());
    assert_eq!(verdict.missed, ["the storm hurt nobody without spillway, so this run proves nothing"]);
}

#[test]
fn nearly_all_is_not_all() {
    assert_eq!(percent_text(percent(9_999, 10_000)), "99.9 %");
    assert_eq!(percent_text(percent(3, 3)), "100.0 %");
}

#[test]
fn the_json_has_the_shape_that_scripts_read() {
    let json = serde_json::to_value(report(good())).expect("serializable");
    assert_eq!(json["verdict"]["passed"], true);
    assert_eq!(json["without"]["ended_by"], "demo");
    assert_eq!(json["with"]["leases"]["percent"], 100.0);
    assert_eq!(json["without"]["operator"]["deleted_after_ms"], serde_json::Value::Null);
    assert_eq!(json["with"]["telemetry"]["refused"], 1_204);
}

#[test]
fn a_half_is_what_its_ledger_says() {
    let ledger = Ledger::default();
    let renewal = |node, due, took, renewed| super::super::ledger::Renewal {
        node,
        due: at(due),
        took: Duration::from_millis(took),
        renewed,
    };
    ledger.renewal(renewal(0, 500, 2, true));
    for due in [1_000, 3_500, 6_000, 8_500] {
        ledger.renewal(renewal(0, due, 2, true));
        ledger.renewal(renewal(1, due, 2_500, false));
    }
    ledger.culprit_deleted(at(9_250));
    ledger.refused(at(2_000), Who::Telemetry);
    ledger.listed(at(2_000), Listed::Refused);
    ledger.refused(at(2_100), Who::Dns);
    let half = Half::of(Measured {
        ledger: &ledger,
        calm: Span { start: at(0), end: at(1_000) },
        storm: Span { start: at(1_000), end: at(11_000) },
        ended_by: EndedBy::Operator,
        insight: at(9_000),
        apiserver: Apiserver { busy_percent: 0.0, wasted_percent: 0.0 },
        recovery: None,
    });
    assert_eq!((half.leases.due, half.leases.renewed), (8, 4));
    assert_eq!(half.leases.nodes_not_ready, 1, "node 1 was silent for 10 s, node 0 never");
    assert_eq!((half.leases.calm_p99_ms, half.leases.p99_ms), (2.0, 2_500.0));
    assert_eq!(half.operator.deleted_after_ms, Some(250));
    assert_eq!(half.telemetry.first_refused_after_ms, Some(1_000));
    assert_eq!((half.telemetry.refused, half.refused_others), (1, 1));
    assert_eq!(half.others_first_refused_after_ms, Some(1_100));
}

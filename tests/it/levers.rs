//! Do the levers of an incident work on a running spillway: on the culprit, on nobody else, and when all else is dead?
//!
//! Everything is done as an operator does it, by the command line over the admin socket.

// Clippy's own exception for tests ends at the functions marked as tests; what they call are tests too. And a load has
// to keep a pace in real time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

use std::{
    fs,
    io::{Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::Path,
    process::{Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use http::{Method, StatusCode};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    client::{Answer, Caller, Events, Protocol, block_on, empty, get, send, with},
    cluster::{Cluster, ClusterOptions, Credential, FAKE_POD, wait_for},
    spillway::{BINARY, CLUSTER, Spillway, needs_spillway},
};

/// For something to happen on a busy machine.
const SEEN: Duration = Duration::from_secs(60);
const OBJECT: &str = "/api/v1/namespaces/kube-system";

/// How a command ended.
struct Done {
    code: i32,
    out: String,
    err: String,
}

impl Done {
    #[track_caller]
    fn fine(self) -> String {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        self.out
    }

    #[track_caller]
    fn json(self) -> Value {
        let out = self.fine();
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
    }
}

/// `spillway ARGS…` for the socket at `path`.
fn command_at(path: &Path, args: &[&str]) -> Done {
    let mut command = Command::new(BINARY);
    command.args(args).arg("--socket").arg(path).stdin(Stdio::null());
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Done { code: status.code().unwrap(), out: text(stdout), err: text(stderr) }
}

fn command(spillway: &Spillway, args: &[&str]) -> Done {
    command_at(&spillway.socket, args)
}

/// Isolates, and says as what.
fn isolate(spillway: &Spillway, kind: &str, name: &str, to: &str, ttl: &str) -> String {
    let args = ["isolate", kind, name, "--to", to, "--for", ttl, "--reason", "a test loops"];
    let done = command(spillway, &[&args[..], &["--yes", "--no-wait", "-o", "json"]].concat()).json();
    done["isolated"]["isolation"]["id"].as_str().unwrap().to_owned()
}

fn start(folder: &Path) -> Spillway {
    Spillway::start(&CLUSTER, None, |config| {
        config["state"] = json!({ "dir": folder });
        config["drain"] = json!({ "gracePeriod": "1s" });
    })
}

/// Somebody with rights and a name of this test's own.
fn person(name: &str) -> Credential {
    Credential::Certificate(CLUSTER.pki.client(name, name, &["platform-oncall"]))
}

async fn ask(caller: &Caller, path: &str) -> Answer {
    caller.connect(Protocol::Http2).await.ask(get(path)).await
}

/// Asks again and again until told not to; counts answers by whether they are 429.
async fn load(caller: Caller, over: Arc<AtomicBool>, counts: Arc<[AtomicUsize; 2]>) {
    let mut connection = caller.connect(Protocol::Http2).await;
    while !over.load(Ordering::Relaxed) {
        let status = connection.ask(get(OBJECT)).await.status;
        counts[usize::from(status == StatusCode::TOO_MANY_REQUESTS)].fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn a_denied_culprit_falls_under_load_while_others_go_on() {
    if !needs_spillway() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let spillway = start(folder.path());
    let (culprit, other) =
        (spillway.caller(&person("lever-culprit")), spillway.caller(&person("lever-other")));
    block_on(async {
        let over = Arc::new(AtomicBool::new(false));
        let counts = [(), ()].map(|()| Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]));
        let tasks: Vec<_> = [(&culprit, &counts[0]), (&other, &counts[1])]
            .map(|(caller, counts)| tokio::spawn(load(caller.clone(), Arc::clone(&over), Arc::clone(counts))))
            .into();
        let watch = "/api/v1/namespaces/default/configmaps?watch=1&resourceVersion=0";
        let mut events = Vec::new();
        for caller in [&culprit, &other] {
            let mut connection = caller.connect(Protocol::Http2).await;
            events.push(Events::new(connection.start(get(watch)).await.unwrap()));
        }
        while counts.iter().any(|counts| counts[0].load(Ordering::Relaxed) < 5) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let id = tokio::task::block_in_place(|| {
            // Rates are sampled once a second.
            wait_for("the culprit in the preview", SEEN, || {
                let args =
                    ["isolate", "user", "lever-culprit", "--to", "deny", "--for", "10m", "--reason", "x"];
                let preview = command(&spillway, &[&args[..], &["--dry-run", "-o", "json"]].concat()).json();
                let client = &preview["preview"]["clients"][0];
                let served = client["servedPerSecond"].as_f64().unwrap_or_default();
                if client["user"] == "lever-culprit" && served > 0.0 {
                    Ok(())
                } else {
                    Err(preview.to_string())
                }
            });
            isolate(&spillway, "user", "lever-culprit", "deny", "10m")
        });
        while counts[0][1].load(Ordering::Relaxed) < 5 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // Its watch ends as if there were no more to say; the events before that end are no matter.
        while let Some(_event) = events[0].next().await.expect("a clean end") {}

        let answer = ask(&culprit, OBJECT).await;
        assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{}", spillway.log());
        let seconds: u64 = answer.header("retry-after").parse().unwrap();
        assert!((60..=90).contains(&seconds), "{seconds}");
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(message.contains(&id) && message.contains("a test loops"), "{message}");
        assert_eq!(answer.json()["reason"], "TooManyRequests");
        let watch = ask(&culprit, watch).await;
        assert_eq!(watch.status, StatusCode::TOO_MANY_REQUESTS, "never anything else for a watch");
        assert!(watch.header("retry-after").parse::<u64>().unwrap() >= 300);
        assert_eq!(ask(&culprit, "/readyz").await.status, StatusCode::OK, "probes are nobody's");

        let before = counts[0][0].load(Ordering::Relaxed);
        let others = counts[1][0].load(Ordering::Relaxed);
        while counts[1][0].load(Ordering::Relaxed) < others + 20 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(counts[0][0].load(Ordering::Relaxed), before, "nothing of it goes on");
        assert_eq!(counts[1][1].load(Ordering::Relaxed), 0, "the other one was refused; {}", spillway.log());

        tokio::task::block_in_place(|| {
            let table = command(&spillway, &["isolations"]).fine();
            assert!(table.contains(&id) && table.contains("user lever-culprit"), "{table}");
            let (_, page) = spillway.metrics_page("/metrics").unwrap();
            assert!(page.contains(r#"spillway_isolations_active{action="deny"} 1"#), "{page}");
            let refused = page
                .lines()
                .find(|line| line.starts_with(r#"spillway_isolated_requests_total{action="deny"}"#));
            let refused = refused.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
            assert!(refused.is_some_and(|refused| refused >= 5), "{page}");
            let events = command(&spillway, &["events"]).fine();
            assert!(events.contains(&format!("lever isolate {id} user lever-culprit: deny")), "{events}");
            let top = command(&spillway, &["top", "--once", "--by", "refused"]).fine();
            assert!(top.lines().nth(1).is_some_and(|first| first.starts_with("lever-culprit ")), "{top}");
            let status = command(&spillway, &["status"]).fine();
            assert!(status.contains("! isolated: user lever-culprit (deny)"), "{status}");
            let released = command(&spillway, &["release", "lever-culprit"]).fine();
            assert!(
                released.starts_with("released user lever-culprit") && released.contains("BEFORE"),
                "{released}"
            );
        });
        let before = counts[0][0].load(Ordering::Relaxed);
        while counts[0][0].load(Ordering::Relaxed) < before + 5 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        over.store(true, Ordering::Relaxed);
        for task in tasks {
            task.await.unwrap();
        }
    });
    let log = spillway.whole_log();
    for action in ["isolate", "release"] {
        let moved =
            |line: &&str| line.contains("event=\"lever\"") && line.contains(&format!("action=\"{action}\""));
        let line = log.lines().find(moved).unwrap_or_else(|| panic!("no {action}:\n{log}"));
        assert!(line.contains("a test loops") && line.contains("uid=") && !line.contains("uid=-1"), "{line}");
    }
}

#[test]
fn a_penalty_lets_all_its_members_together_through_once_a_second() {
    if !needs_spillway() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let spillway = start(folder.path());
    let member = |name: &str| {
        Credential::Certificate(CLUSTER.pki.client(name, name, &["platform-oncall", "lever-members"]))
    };
    let members = ["lever-one", "lever-two"].map(|name| spillway.caller(&member(name)));
    isolate(&spillway, "group", "lever-members", "penalty", "10m");
    let started = Instant::now();
    let (mut passed, mut refused) = (0, 0);
    block_on(async {
        let mut connections = Vec::new();
        for caller in &members {
            connections.push(caller.connect(Protocol::Http2).await);
        }
        while refused < 20 || passed < 2 {
            for connection in &mut connections {
                match connection.ask(get(OBJECT)).await.status {
                    StatusCode::OK => passed += 1,
                    StatusCode::TOO_MANY_REQUESTS => refused += 1,
                    other => panic!("{other}; {}", spillway.log()),
                }
            }
        }
    });
    // A watch holds the turn until its first burst is over, and not for its life.
    block_on(async {
        let mut watching = members[0].connect(Protocol::Http2).await;
        let mut watch = loop {
            let watch = "/api/v1/namespaces/default/configmaps?watch=1&resourceVersion=0";
            let response = watching.start(get(watch)).await.unwrap();
            if response.status() == StatusCode::OK {
                passed += 1;
                break Events::new(response);
            }
        };
        let mut beside = members[1].connect(Protocol::Http2).await;
        while beside.ask(get(OBJECT)).await.status != StatusCode::OK {}
        passed += 1;
        let next = tokio::time::timeout(Duration::from_millis(1), watch.next()).await;
        assert!(!matches!(next, Ok(Ok(None))), "the watch goes on");
    });
    let most = usize::try_from(started.elapsed().as_secs()).unwrap() + 1;
    assert!(passed <= most, "{passed} passed where at most {most} should");
    assert_eq!(command(&spillway, &["isolations", "-o", "json"]).json()["isolations"][0]["passed"], passed);
}

/// What a person sees, and what becomes of an open exec.
#[test]
fn a_denied_person_loses_the_open_session_and_is_told_why_by_kubectl() {
    if !needs_spillway() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let spillway = start(folder.path());
    let url = format!("https://{}", spillway.main);
    let kubeconfig = CLUSTER.kubeconfig_for(&person("lever-person"), &url, &CLUSTER.paths.server_ca.cert);
    let mut exec = CLUSTER.kubectl_command(&kubeconfig);
    exec.args(["exec", "-i", FAKE_POD, "--", "cat"]);
    exec.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut exec = exec.spawn().unwrap();
    let (mut input, mut output) = (exec.stdin.take().unwrap(), exec.stdout.take().unwrap());
    let mut echo = [0; 6];
    input.write_all(b"hello\n").unwrap();
    output.read_exact(&mut echo).unwrap_or_else(|error| panic!("{error}; {}", spillway.log()));
    assert_eq!(&echo, b"hello\n");
    let id = isolate(&spillway, "user", "lever-person", "deny", "10m");
    wait_for("the session to end", SEEN, || match exec.try_wait() {
        Ok(Some(_)) => Ok(()),
        other => Err(format!("{other:?}; {}", spillway.log())),
    });
    for args in
        [&["get", "namespaces"][..], &["delete", "configmap", "never"], &["exec", FAKE_POD, "--", "echo"]]
    {
        let said = CLUSTER.kubectl(&kubeconfig, args);
        let said = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(said.contains(&id) && said.contains("a test loops"), "{args:?}: {said}");
    }
    // Whatever it says of itself, a watch hears what lets it keep its place.
    let watch = with(get("/api/v1/namespaces?watch=1"), "user-agent", "kubectl/v1.34.0");
    let answer =
        block_on(async { spillway.caller(&person("lever-person")).ask(Protocol::Http2, watch).await });
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
}

#[test]
fn a_lockdown_lets_in_what_keeps_the_cluster_alive_and_ends() {
    if !needs_spillway() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let spillway = start(folder.path());
    let node = Credential::Certificate(CLUSTER.pki.node("lever-node"));
    let lease = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/lever-node";
    let callers = [spillway.caller(&person("lever-locked")), spillway.caller(&node)];
    let emergency = spillway.break_glass_caller(&CLUSTER.break_glass());
    let asked = || block_on(async { ask(&callers[0], OBJECT).await });
    let args = ["lockdown", "--for", "10m", "--reason", "INC-481", "--yes"];
    let said = command(&spillway, &args).fine();
    assert!(said.starts_with("LOCKDOWN for 10m") && said.contains("3s LATER"), "{said}");
    let refused = asked();
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS, "{}", spillway.log());
    assert!(refused.text().contains("INC-481"), "{}", refused.text());
    let (lease, way_in) = block_on(async {
        // Agents borrow a node's credential; only a kubelet says that it is one.
        let lease = with(get(lease), "user-agent", "kubelet/v1.34.0");
        (callers[1].ask(Protocol::Http2, lease).await, ask(&emergency, OBJECT).await)
    });
    assert_ne!(lease.status, StatusCode::TOO_MANY_REQUESTS, "{}", spillway.log());
    assert_eq!(way_in.status, StatusCode::OK, "{}", spillway.log());
    let (_, page) = spillway.metrics_page("/metrics").unwrap();
    assert!(page.contains("spillway_lockdown_active 1"), "{page}");
    assert!(page.contains(r#"reason="lockdown""#), "{page}");
    assert!(command(&spillway, &["status"]).fine().contains("! LOCKDOWN"));

    command(&spillway, &["lockdown", "--off", "--no-wait"]).fine();
    assert_eq!(asked().status, StatusCode::OK);
    assert_eq!(command(&spillway, &["lockdown", "--off"]).code, 1, "there is none any more");
    let short = ["lockdown", "--for", "1s", "--reason", "INC-481", "--yes", "--no-wait"];
    command(&spillway, &short).fine();
    wait_for("the lockdown to end by itself", SEEN, || match asked().status {
        StatusCode::OK => Ok(()),
        other => Err(other.to_string()),
    });
}

#[test]
fn levers_survive_a_kill_and_end_in_the_next_process() {
    if !needs_spillway() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let who = person("lever-kept");
    let first = start(folder.path());
    let socket = first.socket.clone();
    isolate(&first, "user", "lever-kept", "deny", "1h");
    command(&first, &["limit", "set", "30", "--for", "1h", "--reason", "etcd", "--no-wait"]).fine();
    first.kill();
    wait_for("spillway to be gone", SEEN, || first.ended().ok_or_else(|| first.log()));
    assert!(socket.exists(), "who is killed cleans nothing up");
    assert_eq!(command_at(&socket, &["status"]).code, 4, "nobody answers there");

    let second = Spillway::start(&CLUSTER, None, |config| {
        config["state"] = json!({ "dir": folder.path() });
        config["admin"] = json!({ "socket": socket });
    });
    let answer = block_on(async { ask(&second.caller(&who), OBJECT).await });
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{}", second.log());
    let status = wait_for("the dead process' socket to be taken over", SEEN, || {
        let done = command(&second, &["status", "-o", "json"]);
        if done.code == 0 { Ok(done.json()) } else { Err(done.err) }
    });
    assert_eq!((&status["limit"], &status["held"]["what"]), (&json!(30), &json!("at most 30 seats")));
    assert_eq!(fs::metadata(&second.socket).unwrap().permissions().mode() & 0o777, 0o600);
    // Pulled again, a lever is changed: now it ends at once.
    isolate(&second, "user", "lever-kept", "deny", "1s");
    wait_for("the isolation to end by itself", SEEN, || {
        match block_on(async { ask(&second.caller(&who), OBJECT).await }).status {
            StatusCode::OK => Ok(()),
            other => Err(other.to_string()),
        }
    });
    wait_for("its end to be told", SEEN, || {
        let log = second.whole_log();
        if log.contains("action=\"expired\"") { Ok(()) } else { Err(log) }
    });
}

#[test]
fn a_broken_or_unwritable_state_folder_is_told_and_stops_no_lever() {
    if !needs_spillway() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("levers.json"), "{\"layout\":1}\nnonsense\n").unwrap();
    let spillway = start(folder.path());
    assert!(spillway.whole_log().contains("the file of levers is not believed"), "{}", spillway.log());
    let names: Vec<String> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(names.iter().any(|name| name.starts_with("levers.json.corrupt-")), "{names:?}");

    // A file where the folder should be: not even root can write below it.
    let blocked = folder.path().join("blocked");
    fs::write(&blocked, "").unwrap();
    let spillway = start(&blocked);
    let args = ["isolate", "user", "lever-unkept", "--to", "deny", "--for", "9m", "--reason", "x"];
    let done = command(&spillway, &[&args[..], &["--yes", "--no-wait"]].concat());
    assert!(done.err.contains("warning[SPW0551]"), "{}", done.err);
    done.fine();
    let answer = block_on(async { ask(&spillway.caller(&person("lever-unkept")), OBJECT).await });
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "it is in force; {}", spillway.log());
    assert!(command(&spillway, &["status"]).fine().contains("! levers would not survive a restart"));
}

/// kube-apiserver is frozen and hundreds of requests hang in every shard: the socket answers all the same.
#[test]
fn it_answers_while_the_apiserver_is_dead_and_the_shards_are_full() {
    if !needs_spillway() {
        return;
    }
    const HANGING: usize = 400;
    const BURNING: usize = 32;
    let cluster = Cluster::start(ClusterOptions::default());
    let folder = tempfile::tempdir().unwrap();
    let spillway =
        Spillway::start(&cluster, None, |config| config["state"] = json!({ "dir": folder.path() }));
    let admin = spillway.caller(&cluster.admin());
    block_on(async {
        assert_eq!(ask(&admin, OBJECT).await.status, StatusCode::OK, "{}", spillway.log());
        cluster.signal("apiserver", Signal::STOP);
        let hanging: Vec<_> = (0..HANGING)
            .map(|_| {
                let admin = admin.clone();
                tokio::spawn(async move {
                    admin.connect(Protocol::Http2).await.try_ask(get(OBJECT)).await.is_ok()
                })
            })
            .collect();
        // And the shards burn what they can get: refusals that cost nobody but them.
        tokio::task::block_in_place(|| isolate(&spillway, "user", "lever-burner", "deny", "10m"));
        let burner = Credential::Certificate(cluster.pki.client("lever-burner", "lever-burner", &[]));
        let burnt = Arc::new(AtomicUsize::new(0));
        let burning: Vec<_> = (0..BURNING)
            .map(|_| {
                let (caller, burnt) = (spillway.caller(&burner), Arc::clone(&burnt));
                tokio::spawn(async move {
                    let mut connection = caller.connect(Protocol::Http2).await;
                    while connection.ask(get(OBJECT)).await.status == StatusCode::TOO_MANY_REQUESTS {
                        burnt.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        while burnt.load(Ordering::Relaxed) < 1_000 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::task::block_in_place(|| {
            let status = command(&spillway, &["status"]).fine();
            assert!(status.contains("LANE"), "{status}");
            let id = isolate(&spillway, "namespace", "obs", "deny", "10m");
            let args = ["lockdown", "--for", "10m", "--reason", "dead", "--yes"];
            assert!(command(&spillway, &args).fine().contains("3s LATER"));
            // The dashboard is drawn by a thread of its own, and says the same.
            wait_for("the page to show it", SEEN, || {
                let page = crate::dashboard::page(&spillway.page);
                let is_told = page.contains("Lockdown") && page.contains("lever-burner");
                if is_told { Ok(()) } else { Err(page) }
            });
            let pinned =
                command(&spillway, &["limit", "pin", "77", "--for", "10m", "--reason", "x", "-o", "yaml"])
                    .fine();
            assert!(pinned.contains("exactly 77 seats"), "{pinned}");
            assert_eq!(command(&spillway, &["limit", "show", "-o", "json"]).json()["limit"], 77);
            command(&spillway, &["release", &id, "--no-wait"]).fine();
            let left = command(&spillway, &["isolations"]).fine();
            assert!(left.contains("lever-burner") && !left.contains("obs"), "{left}");
        });
        assert!(burning.iter().all(|task| !task.is_finished()), "nothing of it went on");
        burning.into_iter().for_each(|task| task.abort());
        cluster.signal("apiserver", Signal::CONT);
        hanging.into_iter().for_each(|task| task.abort());
    });
    let (_, page) = spillway.metrics_page("/metrics").unwrap();
    assert!(page.contains("spillway_concurrency_limit 77"), "{page}");
}

#[test]
fn mistakes_have_their_code_their_exit_and_a_way_on() {
    if !needs_spillway() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let spillway = start(folder.path());
    let id = isolate(&spillway, "serviceaccount", "obs/node-agent", "deny", "10m");
    let isolate = |more: &[&str]| {
        let args = ["isolate", "user", "somebody", "--to", "deny", "--for", "10m", "--reason", "x"];
        command(&spillway, &[&args[..], more].concat())
    };
    let without = |left_out: &str| {
        let args = ["isolate", "user", "somebody", "--to", "deny", "--for", "10m", "--reason", "x", "--yes"];
        let at = args.iter().position(|arg| *arg == left_out).unwrap();
        command(&spillway, &[&args[..at], &args[at + 2..]].concat())
    };
    let protected =
        ["isolate", "group", "system:nodes", "--to", "deny", "--for", "1m", "--reason", "x", "--yes"];
    let long = ["isolate", "user", "a", "--to", "deny", "--for", "25h", "--reason", "x", "--yes"];
    let kind = ["isolate", "serviceacount", "a/b", "--to", "deny", "--for", "1m", "--reason", "x"];
    let nameless =
        ["isolate", "serviceaccount", "agent", "--to", "deny", "--for", "1m", "--reason", "x", "--yes"];
    for (what, done, code, said) in [
        ("nobody to ask", isolate(&[]), 2, "SPW0557"),
        ("no reason", without("--reason"), 2, "--reason"),
        ("no end", without("--for"), 2, "--for"),
        ("no such kind", command(&spillway, &kind), 2, "a similar value exists: 'serviceaccount'"),
        ("no such command", command(&spillway, &["isolat"]), 2, "'isolate'"),
        ("no namespace", command(&spillway, &nameless), 2, "NAMESPACE/NAME"),
        ("too long", command(&spillway, &long), 2, "SPW0543"),
        ("protected", command(&spillway, &protected), 1, "every kubelet"),
        ("protected", command(&spillway, &protected), 1, "--force-protected"),
        (
            "nearly the name",
            command(&spillway, &["release", "obs/node-agnt"]),
            1,
            "did you mean \"obs/node-agent\"?",
        ),
        (
            "too many seats",
            command(&spillway, &["limit", "set", "5", "--for", "1m", "--reason", "x"]),
            2,
            "SPW0550",
        ),
        ("not held", command(&spillway, &["limit", "unpin"]), 1, "SPW0548"),
        ("no socket", command_at(&folder.path().join("none"), &["status"]), 4, "--socket"),
    ] {
        assert_eq!(done.code, code, "{what}: {}{}", done.out, done.err);
        assert!(done.err.contains(said), "{what}: {}", done.err);
    }
    let listed = command(&spillway, &["isolations", "-o", "json"]).json();
    assert_eq!(listed["isolations"].as_array().unwrap().len(), 1, "nothing else is in force: {listed}");
    assert_eq!(listed["isolations"][0]["id"], id);

    // What the command line never sends.
    let body = "x".repeat(65 << 10);
    let large =
        format!("POST /v1/isolations HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    for (request, answer) in [
        ("GET /v1/lockdown HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 405 "),
        ("GET /v1/isolations/release HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 405 "),
        ("GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 404 "),
        ("POST /v1/lockdown HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}", "HTTP/1.1 400 "),
        (&large, "HTTP/1.1 413 "),
        ("no HTTP at all\r\n\r\n", "HTTP/1.1 400 "),
    ] {
        let mut socket = UnixStream::connect(&spillway.socket).unwrap();
        socket.set_read_timeout(Some(SEEN)).unwrap();
        // It may be refused before it is read to its end.
        let _ = socket.write_all(request.as_bytes());
        let mut start = [0; 13];
        socket.read_exact(&mut start).unwrap_or_else(|error| panic!("{request:?}: {error}"));
        assert_eq!(String::from_utf8_lossy(&start), answer, "{request:?}");
    }
    // Connections that say nothing take all places, for some seconds.
    let silent: Vec<_> = (0..64).map(|_| UnixStream::connect(&spillway.socket)).collect();
    wait_for("the socket to answer again", SEEN, || {
        let done = command(&spillway, &["status"]);
        if done.code == 0 { Ok(()) } else { Err(done.err) }
    });
    drop(silent);
}

#[test]
fn an_isolated_address_covers_who_cannot_be_named_and_writes_are_not_executed() {
    if !needs_spillway() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let spillway = start(folder.path());
    let stranger = spillway.caller(&Credential::Token("nobody can check this".into()));
    let asked = || block_on(async { ask(&stranger, OBJECT).await.status });
    assert_eq!(asked(), StatusCode::UNAUTHORIZED, "{}", spillway.log());
    let args = [
        "isolate",
        "cidr",
        "127.0.0.1",
        "--to",
        "deny",
        "--for",
        "10m",
        "--reason",
        "x",
        "--yes",
        "--no-wait",
    ];
    let refused = command(&spillway, &args);
    assert_eq!(refused.code, 1, "this machine is protected: {}", refused.err);
    command(&spillway, &[&args[..], &["--force-protected"]].concat()).fine();
    assert_eq!(asked(), StatusCode::TOO_MANY_REQUESTS);

    let writer = spillway.caller(&person("lever-writer"));
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "lever-never"}});
    let answer = block_on(async {
        let mut connection = writer.connect(Protocol::Http1).await;
        connection.ask(send(Method::POST, "/api/v1/namespaces/default/configmaps", map.to_string())).await
    });
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    let way_in = spillway.break_glass_caller(&CLUSTER.break_glass());
    let looked = block_on(async {
        let mut connection = way_in.connect(Protocol::Http2).await;
        connection.ask(empty(Method::GET, "/api/v1/namespaces/default/configmaps/lever-never")).await
    });
    assert_eq!(looked.status, StatusCode::NOT_FOUND, "break-glass is out of reach, and nothing was written");
}

//! Do the streams of kubectl pass: exec, attach, cp, `logs -f`, port-forward, over WebSocket and over SPDY?
//!
//! kubectl falls back to SPDY without a word when a WebSocket is refused, so each test asks the audit log which of
//! the two was used, and by whom: a WebSocket begins as a GET, SPDY as a POST.

// Clippy's own exception for tests ends at the functions marked as tests; what they call are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpStream},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use serde_json::Value;

use crate::{
    cluster::{Credential, FAKE_POD, free_port, wait_for},
    spillway::{CLUSTER, TARGET},
};

const PATIENCE: Duration = Duration::from_secs(30);

/// One operator who streams over one protocol.
struct Operator {
    name: String,
    kubeconfig: PathBuf,
    websockets: bool,
}

impl Operator {
    /// Both protocols, each used by somebody of its own, so that the audit log tells them apart.
    fn both(test: &str) -> [Self; 2] {
        [("ws", true), ("spdy", false)].map(|(protocol, websockets)| {
            let name = format!("{test}-{protocol}");
            let who = Credential::Certificate(CLUSTER.pki.client(&name, &name, &["platform-oncall"]));
            Self { kubeconfig: TARGET.kubeconfig(&CLUSTER, &who), name, websockets }
        })
    }

    fn kubectl(&self, args: &[&str]) -> Command {
        let mut command = CLUSTER.kubectl_command(&self.kubeconfig);
        for variable in ["KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "KUBECTL_PORT_FORWARD_WEBSOCKETS"] {
            command.env(variable, self.websockets.to_string());
        }
        command.args(args).stderr(Stdio::piped());
        command
    }

    fn exec(&self, command: &[&str]) -> Command {
        self.kubectl(&[&["exec", "-i", FAKE_POD, "--"], command].concat())
    }

    fn outcome(&self, command: &[&str]) -> (Option<i32>, String, String) {
        let Output { status, stdout, stderr } = self.exec(command).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (status.code(), text(stdout), text(stderr))
    }

    /// Fails unless every stream of this operator at `subresource` used the operator's protocol.
    fn used_only_own_protocol(&self, subresource: &str) {
        let wanted = if self.websockets { "get" } else { "create" };
        let what = format!("only {wanted} of pods/{subresource} by {} in the audit log", self.name);
        wait_for(&what, PATIENCE, || {
            let verbs = audited(&self.name, subresource, "RequestReceived");
            let all = !verbs.is_empty() && verbs.iter().all(|verb| verb == wanted);
            if all { Ok(()) } else { Err(format!("{verbs:?}; {}", TARGET.log())) }
        });
    }
}

/// The verbs of this user's requests for the subresource of the fake pod that have come to `stage`.
fn audited(user: &str, subresource: &str, stage: &str) -> Vec<String> {
    let log = fs::read_to_string(CLUSTER.audit_log().unwrap()).unwrap();
    let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let of_user = events.filter(|event| {
        event["user"]["username"] == user
            && event["objectRef"]["subresource"] == subresource
            && event["stage"] == stage
    });
    of_user.filter_map(|event| event["verb"].as_str().map(str::to_owned)).collect()
}

#[test]
fn exec_passes_output_input_and_exit_codes() {
    for operator in Operator::both("exec") {
        let (name, outcome) = (&operator.name, |command| operator.outcome(command));
        assert_eq!(
            outcome(&["echo", "a", "b"]),
            (Some(0), "a b\n".into(), String::new()),
            "{name}: {}",
            TARGET.log()
        );
        assert_eq!(outcome(&["exit", "42"]).0, Some(42), "{name}: {}", TARGET.log());
        let (code, _, error) = outcome(&["no-such-command"]);
        assert!(
            code == Some(127) && error.contains("not in the fixed table"),
            "{name}: {error}; {}",
            TARGET.log()
        );
        let long = operator.exec(&["bytes", "3000000"]).output().unwrap();
        assert_eq!(long.stdout.len(), 3_000_000, "{}: {}", operator.name, TARGET.log());

        let mut cat = operator.exec(&["cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        each_line_comes_back(&mut cat, &operator);
        assert!(cat.wait().unwrap().success(), "{}: {}", operator.name, TARGET.log());
        operator.used_only_own_protocol("exec");
    }
}

#[test]
fn attach_joins_input_and_output() {
    for operator in Operator::both("attach") {
        let mut attach = operator.kubectl(&["attach", "-i", FAKE_POD]);
        let mut attach = attach.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        each_line_comes_back(&mut attach, &operator);
        end(attach);
        let watching = operator.kubectl(&["attach", FAKE_POD]).stdout(Stdio::piped()).spawn().unwrap();
        reads_lines_up_to(watching, "line 5");
        operator.used_only_own_protocol("attach");
    }
}

#[test]
fn files_are_copied_both_ways() {
    for operator in Operator::both("cp") {
        let local = CLUSTER.paths.dir.join(&operator.name);
        fs::create_dir_all(local.join("out/sub")).unwrap();
        let content: Vec<u8> = (0..2_000_000_u32).map(|n| (n % 251) as u8).collect();
        fs::write(local.join("out/sub/file"), &content).unwrap();
        let path = |name: &str| local.join(name).display().to_string();
        let pod = format!("{FAKE_POD}:/{}", operator.name);
        for (from, to) in [(path("out"), pod.clone()), (pod, path("back"))] {
            let copied = operator.kubectl(&["cp", &from, &to]).output().unwrap();
            assert!(
                copied.status.success(),
                "{} cp {from} {to}: {copied:?}; {}",
                operator.name,
                TARGET.log()
            );
        }
        assert!(fs::read(local.join("back/sub/file")).unwrap() == content, "{}: other bytes", operator.name);
        operator.used_only_own_protocol("exec");
    }
}

#[test]
fn logs_follow() {
    let [operator, _] = Operator::both("logs");
    let tail = operator.kubectl(&["logs", FAKE_POD, "--tail=2"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&tail.stdout), "line 9\nline 10\n", "{}", TARGET.log());
    let follow = operator.kubectl(&["logs", "-f", FAKE_POD]).stdout(Stdio::piped()).spawn().unwrap();
    reads_lines_up_to(follow, "line 25");
}

#[test]
fn ports_are_forwarded() {
    for operator in Operator::both("forward") {
        let (echo, web) = (free_port(), free_port());
        let ports = [format!("{echo}:7"), format!("{web}:80")];
        let mut forward = operator.kubectl(&["port-forward", FAKE_POD, &ports[0], &ports[1]]);
        let forward = forward.stdout(Stdio::null()).spawn().unwrap();
        // Longer than any window or buffer on the way.
        let long = "there and back ".repeat(100_000);
        assert!(exchange(echo, &long) == long, "{}: other bytes; {}", operator.name, TARGET.log());
        for turn in 0..3 {
            let page = exchange(web, &format!("GET /turn/{turn} HTTP/1.0\r\n\r\n"));
            assert!(
                page.contains(&format!("GET /turn/{turn}")),
                "{}: {page}; {}",
                operator.name,
                TARGET.log()
            );
        }
        end(forward);
        operator.used_only_own_protocol("portforward");
    }
}

#[test]
fn a_stream_ends_at_the_server_when_its_client_is_gone() {
    for operator in Operator::both("gone") {
        let mut cat = operator.exec(&["cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut input = cat.stdin.take().unwrap();
        input.write_all(b"there?\n").unwrap();
        let mut back = String::new();
        BufReader::new(cat.stdout.take().unwrap()).read_line(&mut back).unwrap();
        assert_eq!(back, "there?\n", "{}: {}", operator.name, TARGET.log());
        let complete = || audited(&operator.name, "exec", "ResponseComplete").len();
        assert_eq!(complete(), 0, "{}: the stream ended by itself; {}", operator.name, TARGET.log());
        end(cat);
        wait_for("the server's end of the stream after its client is gone", PATIENCE, || match complete() {
            0 => Err(format!("{} is still streaming; {}", operator.name, TARGET.log())),
            _ => Ok(()),
        });
    }
}

/// Sends lines and reads each back before the next is sent: both directions are open at once. Then ends the input.
fn each_line_comes_back(child: &mut Child, operator: &Operator) {
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    for line in ["first\n", "second\n", "third\n"] {
        input.write_all(line.as_bytes()).unwrap();
        let mut back = String::new();
        output.read_line(&mut back).unwrap();
        assert_eq!(back, line, "{}: {}", operator.name, TARGET.log());
    }
}

fn reads_lines_up_to(mut child: Child, wanted: &str) {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let found = lines.map_while(Result::ok).take(100).any(|line| line == wanted);
    end(child);
    assert!(found, "expected {wanted:?} among the first lines; {}", TARGET.log());
}

/// Sends, ends the sending side, and reads to the end.
fn exchange(port: u16, sent: &str) -> String {
    let socket = wait_for("port-forward to listen", PATIENCE, || {
        TcpStream::connect(("127.0.0.1", port)).map_err(|e| e.to_string())
    });
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut reader, mut writer) = (socket.try_clone().unwrap(), socket);
    let sent = sent.to_owned();
    let sending = std::thread::spawn(move || {
        writer.write_all(sent.as_bytes())?;
        writer.shutdown(Shutdown::Write)
    });
    let mut back = String::new();
    reader.read_to_string(&mut back).unwrap();
    sending.join().unwrap().unwrap();
    back
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

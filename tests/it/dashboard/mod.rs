//! Does the dashboard help during a storm, in a real browser, and does it keep out whom it must?
//!
//! The storm is `spillway demo --storm`: a modelled apiserver, real connections, spillway in front. The browser comes
//! through `spillway dashboard`, as a person's does.

// Clippy's own exception for tests ends at the functions marked as tests; what they call are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

mod browser;
mod panels;

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use browser::Browser;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::spillway::BINARY;

/// The user whose agents storm.
const CULPRIT: &str = "system:serviceaccount:monitoring:otel-collector";

/// A running command of ours and its lines. Dropping it ends it as Ctrl-C does.
pub(crate) struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    pub(crate) fn start(args: &[&str]) -> Self {
        let mut command = Command::new(BINARY);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (tell, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if tell.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    /// The first line that has this in it.
    pub(crate) fn line(&self, part: &str) -> String {
        loop {
            let line = self
                .lines
                .recv_timeout(browser::PATIENCE)
                .unwrap_or_else(|_| panic!("no line with {part:?}"));
            if line.contains(part) {
                return line;
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(process) = Pid::from_raw(self.child.id() as i32) {
            let _ = kill_process(process, Signal::INT);
        }
        let _ = self.child.wait();
    }
}

/// A storm that goes on, and the socket of its dashboard.
fn storm() -> (Running, PathBuf) {
    let demo = Running::start(&["demo", "--storm"]);
    let line = demo.line("spillway dashboard");
    let socket = PathBuf::from(line.rsplit(' ').next().unwrap());
    (demo, socket)
}

/// A tunnel to a dashboard: its link, and the one without JavaScript.
fn tunnel(socket: &Path, role: &str) -> (Running, String, String) {
    let tunnel =
        Running::start(&["dashboard", "--port", "0", "--as", role, "--socket", socket.to_str().unwrap()]);
    let link = tunnel.line("#t=").trim().to_owned();
    let plain = tunnel.line("/plain/").trim().to_owned();
    (tunnel, link, plain)
}

/// Status and body of a request over a stream.
fn exchange(mut stream: impl Read + Write, head: &str, body: &str) -> (u16, String) {
    write!(stream, "{head}Connection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

/// The page as it is without JavaScript, over the socket.
pub(crate) fn page(socket: &Path) -> String {
    let stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let (status, page) = exchange(stream, "GET / HTTP/1.1\r\nHost: localhost\r\n", "");
    assert_eq!(status, 200, "{page}");
    page
}

fn axe() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser/axe.sh");
    let done = Command::new(script).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap().trim().into()
}

/// The numbers of the culprit's row.
const ROW: &str = "[...document.querySelectorAll('tr.talker')].find(row => row.innerText.includes('monitoring:otel-collector'))";

#[test]
fn in_a_storm_the_page_names_the_culprit_and_isolating_it_by_keyboard_works() {
    let (_demo, socket) = storm();
    let (_tunnel, link, plain) = tunnel(&socket, "admin");
    let axe = axe();
    let mut browser = Browser::start();
    browser.size(1280, 900);
    browser.prefer("light");
    browser.open(&link);
    browser.until(&format!("document.querySelector('#verdict .sentence')?.innerText.includes('{CULPRIT}')"));
    browser.until(&format!("{ROW} && {ROW}.cells[5].innerText.includes('%')"));
    for (width, height, scheme) in
        [(1280, 900, "light"), (1280, 900, "dark"), (360, 800, "light"), (320, 256, "dark")]
    {
        browser.size(width, height);
        browser.prefer(scheme);
        browser.picture(&format!("storm-{width}-{scheme}"));
        assert!(!browser.overflows(), "{width} px: the page is wider than its window");
        assert_eq!(browser.violations(&axe), Vec::<String>::new(), "{width} px, {scheme}");
    }
    browser.size(1280, 900);
    browser.prefer("light");

    // From here on the keyboard alone.
    browser.until("parseInt(document.querySelector('#lane-telemetry').cells[4].innerText) > 0");
    browser.until(ROW);
    browser.eval(&format!("{ROW}.querySelector('a').focus()"));
    browser.key("i");
    browser.until("document.getElementById('drawer').open && document.activeElement.id === 'reason'");
    browser.until("document.getElementById('who-name').value === 'monitoring/otel-collector'");
    // Back over the time to the choice, which the arrow moves.
    browser.key("Shift+Tab");
    browser.key("Shift+Tab");
    browser.key("ArrowDown");
    browser.until("document.getElementById('isolate').to.value === 'deny'");
    browser.key("Tab");
    browser.key("Tab");
    browser.type_text("INC-481: lists all pods");
    browser.until("document.getElementById('preview').innerText.includes('Hits 1 client')");
    assert_eq!(browser.eval("document.getElementById('apply').disabled"), true, "deny wants the name typed");
    browser.key("Tab");
    browser.type_text("otel-collector");
    browser.until("!document.getElementById('apply').disabled && document.getElementById('preview').innerText.includes('Hits 1 client')");
    browser.picture("drawer-1280-light");
    assert_eq!(browser.violations(&axe), Vec::<String>::new(), "the drawer");
    let command = browser.eval("document.getElementById('command').innerText");
    assert_eq!(
        command,
        "spillway isolate serviceaccount monitoring/otel-collector --to deny --for 30m --reason 'INC-481: lists all pods'"
    );
    browser.key("Enter");
    browser.until("!document.getElementById('drawer').open && document.getElementById('toast').innerText.includes('Isolated serviceaccount monitoring/otel-collector')");
    browser.until("document.querySelector('#levers').innerText.includes('INC-481')");
    browser.until("document.querySelector('#timeline').innerText.includes('isolate iso-')");
    // Nothing of it goes on: its lane lets go of its last seat, and what is served falls to nothing.
    browser.until("parseInt(document.querySelector('#lane-telemetry').cells[4].innerText) === 0");
    browser.until("document.querySelector('#lane-telemetry').cells[2].innerText === '0'");
    browser.until("document.querySelectorAll('#chart-requests line.mark').length === 1");
    browser.picture("isolated-1280-light");

    // Its own page shows the fall, and the arrow keys read it out.
    browser.until(ROW);
    browser.eval(&format!("{ROW}.querySelector('a').focus()"));
    browser.key("Enter");
    browser.until("document.querySelector('#client-facts h2')?.innerText.includes('otel-collector')");
    browser.until("document.querySelector('#client-events')?.innerText.includes('INC-481')");
    browser.eval("document.querySelector('#chart-client .plot svg').focus()");
    browser.key("ArrowLeft");
    browser.key("ArrowLeft");
    browser.until("document.querySelector('#chart-client output').innerText.includes('1 s ago: served')");
    browser.picture("client-1280-light");
    assert_eq!(browser.violations(&axe), Vec::<String>::new(), "the client's page");

    // A reload keeps the session; the link itself was used.
    browser.call("Page.reload", serde_json::json!({}));
    browser.until("document.querySelector('#client-facts h2')?.innerText.includes('otel-collector')");
    browser.key("o");
    browser.until("document.querySelector('[data-act=release]')");
    browser.eval("document.querySelector('[data-act=release]').focus()");
    browser.key("Enter");
    browser.until("document.getElementById('sure').open");
    browser.eval("document.getElementById('sure-yes').focus()");
    browser.key("Enter");
    browser.until("document.querySelector('#levers').innerText.includes('Nothing')");

    browser.eval("document.querySelector('#lane-telemetry a').focus()");
    browser.key("Enter");
    browser.until("document.querySelector('#lane-why')?.innerText.includes('a second')");
    browser.picture("lane-1280-light");
    assert_eq!(browser.violations(&axe), Vec::<String>::new(), "the lane's page");
    browser.key("?");
    browser.until("document.querySelector('#help')");
    assert_eq!(browser.violations(&axe), Vec::<String>::new(), "the help page");
    browser.listen();
    assert_eq!(browser.complaints, Vec::<String>::new());
    let origin = link.split('#').next().unwrap();
    let foreign: Vec<_> =
        browser.requests.iter().filter(|url| !url.starts_with(origin) && *url != "about:blank").collect();
    assert!(foreign.is_empty(), "{foreign:?}");

    without_javascript(&plain);
}

/// Tables, and nothing that would need a script.
fn without_javascript(plain: &str) {
    let mut browser = Browser::start();
    browser.size(1280, 900);
    browser.without_javascript();
    browser.open(plain);
    // Scripts of the page are off; what the protocol evaluates is not.
    browser.until(&format!("document.querySelector('#verdict')?.innerText.length > 0 && {ROW}"));
    assert_eq!(
        browser.eval("getComputedStyle(document.querySelector('.act')).display"),
        "none",
        "no button without use"
    );
    assert_eq!(browser.eval("document.querySelectorAll('#lanes tbody tr').length"), 8);
    assert!(!browser.overflows());
    browser.picture("plain-1280-light");
    browser.eval("document.querySelector('#lane-telemetry a').click()");
    browser.until("document.querySelector('#lane-facts h2')?.innerText === 'Lane telemetry'");
}

#[test]
fn a_tunnel_lets_nobody_in_without_its_link_and_a_viewer_changes_nothing() {
    let (_demo, socket) = storm();
    let (_tunnel, link, plain) = tunnel(&socket, "viewer");
    let (origin, token) = link.split_once("/#t=").unwrap();
    let address = origin.strip_prefix("http://").unwrap();
    let ask = |method: &str, path: &str, more: &str, body: &str| {
        let stream = std::net::TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        exchange(stream, &format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\n{more}"), body)
    };
    let ours = format!("Origin: {origin}\r\nX-Spillway-Act: 1\r\nSec-Fetch-Site: same-origin\r\n");

    for path in ["/live", "/v1/status", "/status.txt", "/plain/0000/", "/shell"] {
        let (status, said) = ask("GET", path, "", "");
        assert!(status == 401 && said.contains("SPW0774"), "{path}: {status} {said}");
    }
    let (status, shell) = ask("GET", "/", "", "");
    assert!(status == 200 && !shell.contains("Top talkers") && !shell.contains("otel"), "{shell}");
    let (status, said) = ask("GET", "/", "Authorization: Bearer nonsense\r\n", "");
    assert!(status == 200 && !said.contains("otel"), "{said}");

    let session = |token: &str| ask("POST", "/session", &ours, &format!("{{\"token\":\"{token}\"}}"));
    let foreign = "Origin: http://evil.example\r\nX-Spillway-Act: 1\r\n";
    assert_eq!(ask("POST", "/session", foreign, &format!("{{\"token\":\"{token}\"}}")).0, 403);
    let (status, said) = session(token);
    assert_eq!(status, 200, "{said}");
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(session(token).0, 401, "a link works once");
    let bearer = format!("Authorization: Bearer {}\r\n", said["bearer"].as_str().unwrap());

    let (status, status_json) = ask("GET", "/v1/status", &bearer, "");
    assert!(status == 200 && status_json.contains("\"lanes\""), "{status_json}");
    let isolate = r#"{"kind":"serviceaccount","name":"monitoring/otel-collector","to":"deny","forSeconds":600,"reason":"x"}"#;
    let (status, said) = ask("POST", "/v1/isolations", &format!("{bearer}{ours}"), isolate);
    assert!(status == 403 && said.contains("SPW0772") && said.contains("viewer"), "{status} {said}");
    // Saying that one is admin does not make one.
    let raised = format!("{bearer}{ours}X-Spillway-Role: admin\r\n");
    assert_eq!(ask("POST", "/v1/isolations", &raised, isolate).0, 403);
    assert_eq!(ask("POST", "/v1/isolations", &bearer, isolate).0, 403, "no page of ours");
    assert_eq!(ask("PUT", "/v1/isolations", &format!("{bearer}{ours}"), isolate).0, 405);
    let host = std::net::TcpStream::connect(address).unwrap();
    let head =
        format!("GET / HTTP/1.1\r\nHost: evil.example:{}\r\n{bearer}", address.rsplit(':').next().unwrap());
    assert_eq!(exchange(host, &head, "").0, 421, "a foreign name that was pointed here");
    let plain = plain.strip_prefix(origin).unwrap();
    let (status, shown) = ask("GET", plain, "", "");
    assert!(status == 200 && shown.contains("Top talkers"), "{shown}");
    let (status, said) = ask("POST", &format!("{plain}v1/isolations"), &ours, isolate);
    assert!(status == 403 && said.contains("SPW0772"), "{said}");
    assert!(!page(&socket).contains("Isolated"), "nothing was changed");
}

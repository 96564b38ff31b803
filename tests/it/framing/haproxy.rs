//! Where do spillway and HAProxy read the same bytes differently?
//!
//! Both stand before the same upstream and get the same corpus. `tests/differential/haproxy.sh` runs this and prints the
//! table; without `SPILLWAY_HAPROXY`, the program, there is nothing to compare with.

// The table is this program's answer.
#![allow(clippy::print_stdout)]

use std::{env, fmt::Write as _, fs, net::SocketAddr, path::Path, process::Command, time::Duration};

use super::{
    Answer, corpus, corpus2, send_http1, send_http2,
    stand::Stand,
    upstream::{Seen, Upstream},
};
use crate::{
    client::{Caller, block_on},
    cluster::{Credential, free_port, wait_for},
    spillway::needs_spillway,
};

/// What became of one case at one proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Outcome {
    status: Option<u16>,
    /// Requests of the case's own that arrived.
    arrived: usize,
    /// What was hidden behind it.
    hidden: usize,
}

impl Outcome {
    fn text(self) -> String {
        let told = self.status.map_or("closed".to_owned(), |status| status.to_string());
        match (self.arrived, self.hidden) {
            (0, 0) => told,
            (arrived, 0) => format!("{told}, {arrived} sent on"),
            (arrived, hidden) => format!("{told}, {arrived} sent on, and {hidden} hidden"),
        }
    }

    fn is_sent_on(self) -> bool {
        self.arrived + self.hidden > 0
    }
}

#[test]
fn the_corpus_at_haproxy_beside_spillway() {
    let Some(program) = env::var_os("SPILLWAY_HAPROXY").filter(|_| needs_spillway()) else { return };
    let stand = Stand::start(false);
    let haproxy = start(&stand, Path::new(&program));
    let who = Credential::Certificate(stand.paths.alice.clone());
    let callers = [stand.main, haproxy].map(|at| Caller::new(at, &stand.paths.server_ca.cert, &who));
    let mut table = String::from("| request | spillway | HAProxy |\n|---|---|---|\n");
    let (mut cases, mut different) = (0, [0, 0]);
    block_on(async {
        let mut compare = |name: &str, outcomes: [Outcome; 2]| {
            cases += 1;
            let [ours, theirs] = outcomes;
            if ours.is_sent_on() != theirs.is_sent_on() || ours.hidden != theirs.hidden {
                different[usize::from(theirs.is_sent_on())] += 1;
                let name = name.replace('|', "\\|");
                let _ = writeln!(table, "| `{name}` | {} | {} |", ours.text(), theirs.text());
            }
        };
        for (number, case) in corpus::http1().iter().enumerate() {
            let mut outcomes = [Outcome::default(); 2];
            for (place, caller) in callers.iter().enumerate() {
                let target = format!("/one-{number}-{place}/");
                outcomes[place] = outcome(&stand.upstream, &target, send_http1(caller, case, &target)).await;
            }
            compare(&format!("HTTP/1.1: {}", case.name), outcomes);
        }
        for (number, case) in corpus2::http2().iter().enumerate() {
            let mut outcomes = [Outcome::default(); 2];
            for (place, caller) in callers.iter().enumerate() {
                let target = format!("/two-{number}-{place}/");
                outcomes[place] = outcome(&stand.upstream, &target, send_http2(caller, case, &target)).await;
            }
            compare(&format!("HTTP/2: {}", case.name), outcomes);
        }
    });
    println!(
        "{table}\n{cases} requests; sent on by spillway alone: {}, by HAProxy alone or with more: {}",
        different[0], different[1]
    );
    for finding in stand.upstream.findings() {
        println!("the upstream could not read in one way: {finding}");
    }
}

async fn outcome(upstream: &Upstream, target: &str, sent: impl Future<Output = Answer>) -> Outcome {
    let hidden = upstream.seen("smuggled").len();
    let answer = sent.await;
    let status = match answer {
        Answer::Status(status) => Some(status),
        Answer::None | Answer::Some => None,
    };
    let complete = |seen: Vec<Seen>| seen.iter().filter(|seen| seen.complete).count();
    // What follows on the same connection is on its way when the answer is there.
    tokio::time::sleep(Duration::from_millis(5)).await;
    Outcome {
        status,
        arrived: complete(upstream.seen(target)),
        hidden: upstream.seen("smuggled").len() - hidden,
    }
}

/// HAProxy with what a careful person would write for it.
fn start(stand: &Stand, program: &Path) -> SocketAddr {
    let paths = &stand.paths;
    let port = free_port();
    let pem =
        [&paths.serving.cert, &paths.serving.key].map(|file| fs::read_to_string(file).unwrap()).concat();
    let both = paths.dir.join("haproxy.pem");
    fs::write(&both, pem).unwrap();
    let config = format!(
        "defaults\n  mode http\n  timeout connect 2s\n  timeout client 2s\n  timeout server 2s\n  timeout http-request 2s\n\
         frontend front\n  bind 127.0.0.1:{port} ssl crt {} alpn h2,http/1.1\n  default_backend back\n\
         backend back\n  http-reuse never\n  server upstream {} ssl verify required ca-file {} verifyhost kubernetes\n",
        both.display(),
        stand.upstream.address,
        paths.server_ca.cert.display(),
    );
    let file = paths.dir.join("haproxy.cfg");
    fs::write(&file, config).unwrap();
    let mut command = Command::new(program);
    command.arg("-db").arg("-f").arg(file);
    stand.keep("haproxy", command);
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    wait_for("HAProxy to listen", Duration::from_secs(30), || {
        std::net::TcpStream::connect(at).map(drop).map_err(|e| e.to_string())
    });
    at
}

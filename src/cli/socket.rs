//! How does a command ask a running proxy?
//!
//! HTTP over the admin socket, one connection a question. Whatever goes wrong says what to look at next, and ends with
//! a code of its own: a script must be able to tell "nobody there" from "refused".

use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use clap::Args as ClapArgs;
use http::header::{CONTENT_TYPE, HOST};
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::Ending;
use super::endpoint::{self, Endpoint, Instance};
use super::shown::{plain, quoted};
use crate::admin::wire::{Problem, code};
use crate::config::Admin;

/// Bytes of an answer at most.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// Where the proxy listens, and how long to wait for it.
#[derive(Clone, Debug, ClapArgs)]
pub(super) struct Where {
    /// The proxy's admin socket
    #[arg(long, value_name = "PATH", default_value = Admin::SOCKET, global = true)]
    pub(super) socket: PathBuf,
    /// Where the proxy answers, in place of --socket; again to ask several: unix:///PATH
    #[arg(long, value_name = "URL", value_parser = endpoint::parse, conflicts_with = "socket", global = true)]
    endpoint: Vec<Endpoint>,
    /// Ask every instance that the file of instances names
    #[arg(long, conflicts_with_all = ["socket", "endpoint"], global = true)]
    all_instances: bool,
    /// That file
    #[arg(long, value_name = "FILE", default_value = endpoint::FILE, global = true)]
    instances: PathBuf,
    /// How long to wait for an answer
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = parse_time, global = true)]
    pub(super) timeout: Duration,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) ending: Ending,
    pub(super) problem: Problem,
}

impl Failure {
    pub(super) fn new(ending: Ending, problem: Problem) -> Self {
        Self { ending, problem }
    }

    /// Says it and ends.
    pub(super) fn tell(&self, err: &mut dyn Write) -> Ending {
        let Problem { code, message, help, details } = &self.problem;
        // A closed terminal cannot be told anything; the exit code still says it.
        let _ = writeln!(err, "error[{code}]: {}", plain(message));
        for detail in details {
            let _ = writeln!(err, "  - {}", plain(detail));
        }
        if !help.is_empty() {
            let _ = writeln!(err, "help: {}", plain(help));
        }
        self.ending
    }
}

impl Where {
    /// One proxy by its socket.
    pub(super) fn socket(socket: PathBuf, timeout: Duration) -> Self {
        let instances = endpoint::FILE.into();
        Self { socket, endpoint: vec![], all_instances: false, instances, timeout }
    }

    /// The same, with no more patience than this.
    pub(super) fn within(&self, timeout: Duration) -> Self {
        Self { timeout: self.timeout.min(timeout), ..self.clone() }
    }

    /// The same, for one of them.
    pub(super) fn one(&self, endpoint: &Endpoint) -> Self {
        Self { endpoint: vec![endpoint.clone()], all_instances: false, ..self.clone() }
    }

    /// Whether more than one may be meant: then what is printed says which.
    pub(super) fn is_several(&self) -> bool {
        self.all_instances || self.endpoint.len() > 1
    }

    /// All that are meant.
    pub(super) fn all(&self) -> Result<Vec<Instance>, Failure> {
        if self.all_instances {
            return endpoint::from_file(&self.instances);
        }
        if self.endpoint.is_empty() {
            return Ok(vec![Instance::unnamed(&Endpoint::Unix(self.socket.clone()))]);
        }
        Ok(self.endpoint.iter().map(Instance::unnamed).collect())
    }

    /// The one that is meant, for commands that make no sense for several.
    fn only(&self) -> Result<Endpoint, Failure> {
        let mut all = self.all()?;
        let last = all.pop().filter(|_| all.is_empty());
        last.map(|instance| instance.endpoint).ok_or_else(|| {
            let message = format!("this command asks one instance, and {} are meant", all.len() + 1);
            Failure::new(Ending::Usage, Problem::new(code::ONE, message, "name one with --endpoint URL"))
        })
    }

    /// What a command has to say to reach the same proxies: nothing where it is the usual place.
    pub(super) fn said(&self) -> String {
        let mut said = String::new();
        if self.all_instances {
            said.push_str(" --all-instances");
            if self.instances != Path::new(endpoint::FILE) {
                said += &format!(" --instances {}", quoted(&self.instances.display().to_string()));
            }
        } else if self.endpoint.is_empty() && self.socket != Path::new(Admin::SOCKET) {
            said = format!(" --socket {}", quoted(&self.socket.display().to_string()));
        }
        self.endpoint.iter().for_each(|endpoint| said += &format!(" --endpoint {}", quoted(&endpoint.url())));
        said
    }

    /// Reads.
    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.ask(Method::GET, path, &())
    }

    /// Changes.
    pub(super) fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        self.ask(Method::POST, path, body)
    }

    fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        let endpoint = self.only()?;
        let Endpoint::Unix(socket) = &endpoint;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| unreachable(socket, &error))?;
        let body =
            if method == Method::GET { Vec::new() } else { serde_json::to_vec(body).unwrap_or_default() };
        let (status, answer) = runtime.block_on(async {
            let exchange = exchange(socket, method, path, body);
            match tokio::time::timeout(self.timeout, exchange).await {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(error)) => Err(unreachable(socket, &error)),
                Err(_elapsed) => {
                    let message = format!("no answer at {} within {:?}", socket.display(), self.timeout);
                    let problem = Problem::new(code::BUSY, message, "ask again, or with --timeout 60s");
                    Err(Failure::new(Ending::TimedOut, problem))
                }
            }
        })?;
        if status.is_success() {
            return serde_json::from_slice(&answer).map_err(|error| garbled(socket, &error.to_string()));
        }
        let problem: Problem = serde_json::from_slice(&answer).unwrap_or_default();
        if problem.code.is_empty() {
            return Err(garbled(socket, &format!("status {status}")));
        }
        let ending = match problem.code.as_str() {
            code::REASON | code::TTL | code::TARGET | code::ACTION | code::SEATS | code::NO_REQUEST => {
                Ending::Usage
            }
            code::BUSY => Ending::TimedOut,
            _ => Ending::Failed,
        };
        Err(Failure::new(ending, problem))
    }
}

fn unreachable(socket: &Path, error: &io::Error) -> Failure {
    let socket = socket.display();
    let (ending, code, help) = match error.kind() {
        ErrorKind::PermissionDenied => {
            (Ending::Forbidden, code::FORBIDDEN, "the socket is for the proxy's own user: try with sudo")
        }
        ErrorKind::NotFound => (
            Ending::Unreachable,
            code::UNREACHABLE,
            "is spillway running here? its admin.socket may be another: --socket PATH",
        ),
        _ => (
            Ending::Unreachable,
            code::UNREACHABLE,
            "is spillway running here? crictl ps --name spillway, or systemctl status spillway",
        ),
    };
    Failure::new(ending, Problem::new(code, format!("nobody answers at {socket}: {error}"), help))
}

fn garbled(socket: &Path, why: &str) -> Failure {
    let message = format!("the answer at {} cannot be read: {why}", socket.display());
    let help = "is it spillway of this version? compare spillway --version with the proxy's log";
    Failure::new(Ending::Failed, Problem::new(code::MALFORMED, message, help))
}

async fn exchange(
    socket: &Path,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> io::Result<(http::StatusCode, Bytes)> {
    let stream = UnixStream::connect(socket).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let driven = tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, "spillway")
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(io::Error::other)?;
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    let status = response.status();
    let answer =
        Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(io::Error::other)?;
    driven.abort();
    Ok((status, answer.to_bytes()))
}

/// A time on the command line.
pub(super) fn parse_time(text: &str) -> Result<Duration, String> {
    crate::config::parse_duration(text)
        .ok_or_else(|| "expected a time with a unit, such as 90s, 30m or 1h30m".to_owned())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::admin::wire::Status;

    fn at(socket: PathBuf, timeout: Duration) -> Where {
        Where::socket(socket, timeout)
    }

    /// How it ends when one connection is answered with these bytes, or with nothing.
    fn answered(answer: Option<&'static str>) -> Failure {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let served = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = [0; 16];
            stream.read_exact(&mut head).unwrap();
            if let Some(answer) = answer {
                stream.write_all(answer.as_bytes()).unwrap();
            }
            // Until the client has closed, so that nothing else can be the reason.
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let failure = at(path, Duration::from_millis(300)).get::<Status>("/v1/status").unwrap_err();
        served.join().unwrap();
        failure
    }

    #[test]
    fn each_way_to_fail_has_its_exit_code_and_a_way_on() {
        let folder = tempfile::tempdir().unwrap();
        let second = Duration::from_secs(1);
        let nowhere = at(folder.path().join("none"), second);
        let dead = at(folder.path().join("dead"), second);
        drop(UnixListener::bind(&dead.socket).unwrap());
        let body = r#"{"code":"SPW0543","help":"x"}"#;
        let refusal = format!("HTTP/1.1 400 Bad Request\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let refusal: &'static str = refusal.leak();
        for (what, failure, ending, code) in [
            ("no file", nowhere.get::<Status>("/").unwrap_err(), Ending::Unreachable, code::UNREACHABLE),
            ("a dead socket", dead.get::<Status>("/").unwrap_err(), Ending::Unreachable, code::UNREACHABLE),
            (
                "not mine",
                unreachable(&nowhere.socket, &ErrorKind::PermissionDenied.into()),
                Ending::Forbidden,
                code::FORBIDDEN,
            ),
            ("silence", answered(None), Ending::TimedOut, code::BUSY),
            (
                "not JSON",
                answered(Some("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")),
                Ending::Failed,
                code::MALFORMED,
            ),
            (
                "no reason given",
                answered(Some("HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n")),
                Ending::Failed,
                code::MALFORMED,
            ),
            ("a refusal", answered(Some(refusal)), Ending::Usage, code::TTL),
        ] {
            assert_eq!(
                (failure.ending, failure.problem.code.as_str()),
                (ending, code),
                "{what}: {failure:?}"
            );
            assert!(!failure.problem.help.is_empty(), "{what}");
        }
    }

    #[test]
    fn a_failure_is_told_without_what_a_terminal_would_obey() {
        let mut problem =
            Problem::new(code::PROTECTED, "group \u{1b}[2J is protected", "add --force-protected");
        problem.details = vec!["every kubelet".into()];
        let mut err = Vec::new();
        assert_eq!(Failure::new(Ending::Failed, problem).tell(&mut err), Ending::Failed);
        let text = String::from_utf8(err).unwrap();
        assert_eq!(
            text,
            "error[SPW0546]: group \\u{1b}[2J is protected\n  - every kubelet\nhelp: add --force-protected\n"
        );
    }
}

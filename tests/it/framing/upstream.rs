//! A kube-apiserver that trusts nothing and writes everything down.
//!
//! Over HTTP/1.1 it reads bytes, by a grammar of its own that is as strict as RFC 9112 allows and knows nothing of the
//! product's: what it cannot read in one way only is a finding. Over HTTP/2 it records what h2 hands over. Answers are
//! chosen by the test for a part of the path, as raw bytes.

// The test bed says what it expected by panicking.
#![allow(clippy::expect_used, clippy::unwrap_used)]

use std::{net::SocketAddr, path::Path, sync::Arc, thread, time::Duration};

use parking_lot::Mutex;
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use crate::cluster::Paths;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";

/// A request as the upstream saw it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) http2: bool,
    pub(crate) method: String,
    pub(crate) target: String,
    /// Names in lower case, in the order of arrival; HTTP/2's authority as `host`.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
    /// The body came to its end.
    pub(crate) complete: bool,
    /// Which of the upstream's connections.
    pub(crate) connection: usize,
}

impl Seen {
    /// It on one line.
    pub(crate) fn line(&self) -> String {
        let Self { method, target, headers, body, trailers, complete, .. } = self;
        let body = body.escape_ascii();
        format!("{method} {target} {headers:?} {body:?} {trailers:?}, complete: {complete}")
    }

    /// All values of a header.
    pub(crate) fn values(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect()
    }
}

/// How it answers a request whose target contains a word.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// These bytes over HTTP/1.1, then on with the connection.
    Raw(Vec<u8>),
    /// These bytes, and the end of the connection.
    Last(Vec<u8>),
    /// Not before the test ends.
    Never,
    /// `{}`, so much later, over both protocols.
    #[allow(dead_code, reason = "tests/it/neighbours measures")]
    After(Duration),
    /// A body of so many bytes, over both protocols.
    Bytes(usize),
    /// 101, and then everything back as it comes.
    Echo,
}

#[derive(Default)]
struct State {
    seen: Mutex<Vec<Seen>>,
    /// What could be read in two ways.
    findings: Mutex<Vec<String>>,
    replies: Mutex<Vec<(String, Reply)>>,
    connections: Mutex<usize>,
}

/// A running one. Its thread ends with the test's process.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
}

impl Upstream {
    /// Starts one with the serving certificate of `paths`, which speaks HTTP/1.1 and perhaps HTTP/2.
    pub(crate) fn start(paths: &Paths, http2: bool) -> Self {
        let config = Arc::new(server_config(paths, http2));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket option");
        let address = listener.local_addr().expect("bound");
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(accept(listener, TlsAcceptor::from(config), shared));
        });
        Self { address, state }
    }

    /// Answers targets that contain `word` in this way from now on.
    pub(crate) fn reply(&self, word: &str, reply: Reply) {
        self.state.replies.lock().insert(0, (word.to_owned(), reply));
    }

    /// Requests seen so far whose target contains `word`.
    pub(crate) fn seen(&self, word: &str) -> Vec<Seen> {
        self.state.seen.lock().iter().filter(|seen| seen.target.contains(word)).cloned().collect()
    }

    /// How many requests were seen, spillway's own probes left out.
    pub(crate) fn count(&self) -> usize {
        self.state.seen.lock().iter().filter(|seen| !is_probe(seen)).count()
    }

    /// What could not be read in one way only.
    pub(crate) fn findings(&self) -> Vec<String> {
        self.state.findings.lock().clone()
    }
}

fn is_probe(seen: &Seen) -> bool {
    ["/livez", "/readyz"].iter().any(|probe| seen.target.starts_with(probe))
        || seen.target.starts_with("/api/v1/namespaces/kube-system")
}

fn certificates(path: &Path) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(path).unwrap().map(Result::unwrap).collect()
}

fn server_config(paths: &Paths, http2: bool) -> ServerConfig {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(&paths.front_proxy_ca.cert));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .expect("a verifier");
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has them")
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            certificates(&paths.serving.cert),
            PrivateKeyDer::from_pem_file(&paths.serving.key).unwrap(),
        )
        .expect("they belong together");
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    if http2 {
        config.alpn_protocols.insert(0, b"h2".to_vec());
    }
    config
}

async fn accept(listener: std::net::TcpListener, acceptor: TlsAcceptor, state: Arc<State>) {
    let listener = TcpListener::from_std(listener).expect("a listener");
    loop {
        let (socket, _) = listener.accept().await.expect("accepting works");
        // As kube-apiserver does. Without it an answer may wait for the next request, whose packet acknowledges the last one.
        socket.set_nodelay(true).expect("a TCP option");
        let (acceptor, state) = (acceptor.clone(), Arc::clone(&state));
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(socket).await else { return };
            let number = {
                let mut connections = state.connections.lock();
                *connections += 1;
                *connections
            };
            if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                serve_http2(stream, &state, number).await;
            } else {
                serve_http1(stream, &state, number).await;
            }
        });
    }
}

impl State {
    fn reply_to(&self, target: &str) -> Reply {
        let replies = self.replies.lock();
        let found = replies.iter().find(|(word, _)| target.contains(word.as_str()));
        found.map_or_else(|| Reply::Raw(OK.to_vec()), |(_, reply)| reply.clone())
    }

    fn find(&self, what: &str, bytes: &[u8]) {
        self.findings.lock().push(format!("{what}: {}", bytes.escape_ascii()));
    }

    /// Notes a request whose body is still to come; the place of the note.
    fn note(&self, seen: Seen) -> usize {
        let mut all = self.seen.lock();
        all.push(seen);
        all.len() - 1
    }
}

async fn serve_http1(mut io: impl AsyncRead + AsyncWrite + Unpin, state: &State, connection: usize) {
    let mut unread = Vec::new();
    while let Some(head) = read_until(&mut io, &mut unread, b"\r\n\r\n").await {
        let Some((mut seen, framing)) = head_of(&head, state) else { return };
        seen.connection = connection;
        let target = seen.target.clone();
        let place = state.note(seen);
        let Some(body) = read_body(&mut io, &mut unread, framing, state).await else { return };
        {
            let mut all = state.seen.lock();
            (all[place].body, all[place].trailers) = body;
            all[place].complete = true;
        }
        let (bytes, last) = match state.reply_to(&target) {
            Reply::Raw(bytes) => (bytes, false),
            Reply::Last(bytes) => (bytes, true),
            Reply::Never => return std::future::pending().await,
            Reply::After(time) => {
                tokio::time::sleep(time).await;
                (OK.to_vec(), false)
            }
            Reply::Echo => {
                let head =
                    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
                let _ = io.write_all(&[head, &unread[..]].concat()).await;
                let _ = io.flush().await;
                let (mut read, mut write) = tokio::io::split(io);
                let _ = tokio::io::copy(&mut read, &mut write).await;
                return;
            }
            Reply::Bytes(count) => {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {count}\r\n\r\n");
                ([head.as_bytes(), &vec![b'x'; count]].concat(), false)
            }
        };
        if io.write_all(&bytes).await.is_err() || io.flush().await.is_err() || last {
            let _ = io.shutdown().await;
            return;
        }
    }
    if !unread.is_empty() {
        state.find("bytes after the last request", &unread);
    }
}

enum Framing {
    Length(usize),
    Chunked,
}

/// Reads up to and with `end`; nothing when the connection ends first.
async fn read_until(io: &mut (impl AsyncRead + Unpin), unread: &mut Vec<u8>, end: &[u8]) -> Option<Vec<u8>> {
    loop {
        if let Some(at) = unread.windows(end.len()).position(|window| window == end) {
            return Some(unread.drain(..at + end.len()).collect());
        }
        if io.read_buf(unread).await.unwrap_or(0) == 0 {
            return None;
        }
    }
}

async fn read_exactly(
    io: &mut (impl AsyncRead + Unpin),
    unread: &mut Vec<u8>,
    count: usize,
) -> Option<Vec<u8>> {
    while unread.len() < count {
        if io.read_buf(unread).await.unwrap_or(0) == 0 {
            return None;
        }
    }
    Some(unread.drain(..count).collect())
}

/// Reads a head by the strictest grammar there is.
fn head_of(head: &[u8], state: &State) -> Option<(Seen, Framing)> {
    let wrong = |what: &str| {
        state.find(what, head);
        None::<(Seen, Framing)>
    };
    let Ok(text) = std::str::from_utf8(head) else { return wrong("other than UTF-8") };
    let text = text.strip_suffix("\r\n\r\n")?;
    if text.replace("\r\n", "").bytes().any(|byte| (byte < b' ' && byte != b'\t') || byte == 127) {
        return wrong("a control character");
    }
    let mut lines = text.split("\r\n");
    let words: Vec<&str> = lines.next()?.split(' ').collect();
    let [method, target, "HTTP/1.1"] = words[..] else { return wrong("a request line") };
    let token = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
    };
    if !token(method) || !target.starts_with('/') {
        return wrong("a method or target");
    }
    let mut seen = Seen { method: method.into(), target: target.into(), ..Seen::default() };
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { return wrong("a header line") };
        if !token(name) {
            return wrong("a header name");
        }
        seen.headers.push((name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned()));
    }
    if seen.values("host").len() != 1 {
        return wrong("not one host");
    }
    let framing = match (&seen.values("content-length")[..], &seen.values("transfer-encoding")[..]) {
        ([], []) => Framing::Length(0),
        ([digits], []) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Framing::Length(digits.parse().ok()?)
        }
        ([], ["chunked"]) => Framing::Chunked,
        _ => return wrong("a length that is said twice or oddly"),
    };
    Some((seen, framing))
}

type Body = (Vec<u8>, Vec<(String, String)>);

async fn read_body(
    io: &mut (impl AsyncRead + Unpin),
    unread: &mut Vec<u8>,
    framing: Framing,
    state: &State,
) -> Option<Body> {
    if let Framing::Length(count) = framing {
        return Some((read_exactly(io, unread, count).await?, vec![]));
    }
    let mut body = Vec::new();
    loop {
        let line = read_until(io, unread, b"\r\n").await?;
        let digits = std::str::from_utf8(&line[..line.len() - 2]).unwrap_or("?");
        let Some(size) = digits
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit())
            .then(|| usize::from_str_radix(digits, 16).ok())
            .flatten()
        else {
            state.find("a chunk size", &line);
            return None;
        };
        if size == 0 {
            break;
        }
        body.extend(read_exactly(io, unread, size).await?);
        if read_exactly(io, unread, 2).await? != b"\r\n" {
            state.find("the end of a chunk", &body);
            return None;
        }
    }
    let mut trailers = Vec::new();
    loop {
        let line = read_until(io, unread, b"\r\n").await?;
        let line = String::from_utf8_lossy(&line[..line.len() - 2]).into_owned();
        match line.split_once(':') {
            None if line.is_empty() => return Some((body, trailers)),
            None => {
                state.find("a trailer", line.as_bytes());
                return None;
            }
            Some((name, value)) => trailers.push((name.to_ascii_lowercase(), value.trim().to_owned())),
        }
    }
}

async fn serve_http2(io: impl AsyncRead + AsyncWrite + Unpin, state: &Arc<State>, connection: usize) {
    let Ok(mut h2) = h2::server::handshake(io).await else { return };
    while let Some(Ok((request, mut respond))) = h2.accept().await {
        let (parts, mut body) = request.into_parts();
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let fields = move |map: &http::HeaderMap| -> Vec<(String, String)> {
            map.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
        };
        let mut headers = fields(&parts.headers);
        headers.extend(parts.uri.authority().map(|authority| ("host".to_owned(), authority.to_string())));
        let target = parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
        let seen = Seen {
            http2: true,
            method: parts.method.to_string(),
            target: target.clone(),
            headers,
            connection,
            ..Seen::default()
        };
        let place = state.note(seen);
        let state = Arc::clone(state);
        tokio::spawn(async move {
            let mut bytes = Vec::new();
            while let Some(part) = body.data().await {
                let Ok(part) = part else { return };
                let _ = body.flow_control().release_capacity(part.len());
                bytes.extend_from_slice(&part);
            }
            let Ok(trailers) = body.trailers().await else { return };
            {
                let mut all = state.seen.lock();
                all[place].body = bytes;
                all[place].trailers = trailers.as_ref().map(fields).unwrap_or_default();
                all[place].complete = true;
            }
            let size = match state.reply_to(&target) {
                Reply::Never => return std::future::pending().await,
                Reply::After(time) => {
                    tokio::time::sleep(time).await;
                    2
                }
                Reply::Bytes(size) => size,
                Reply::Raw(_) | Reply::Last(_) | Reply::Echo => 2,
            };
            let response =
                http::Response::builder().header("content-type", "application/json").body(()).unwrap();
            if let Ok(mut send) = respond.send_response(response, false) {
                let _ = send.send_data(vec![b'x'; size].into(), true);
            }
        });
    }
}

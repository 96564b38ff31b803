//! HTTP/2 by hand: frames and header blocks that no library would send.

// The test bed says what it expected by panicking.
#![allow(clippy::expect_used)]

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use crate::client::{Caller, Protocol, within};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

/// END_STREAM of DATA and HEADERS, ACK of SETTINGS and PING.
pub(crate) const END: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A header field as it goes over the wire: any bytes.
pub(crate) type Field = (Vec<u8>, Vec<u8>);

/// A frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame is short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header block of literals that touch no table.
pub(crate) fn block(fields: &[Field]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            integer(&mut block, 7, 0, text.len());
            block.extend_from_slice(text);
        }
    }
    block
}

/// An HPACK integer with a prefix of `bits`.
pub(crate) fn integer(block: &mut Vec<u8>, bits: u8, pattern: u8, value: usize) {
    let max = (1 << bits) - 1;
    if value < max {
        block.push(pattern | u8::try_from(value).expect("fits the prefix"));
        return;
    }
    block.push(pattern | u8::try_from(max).expect("fits the prefix"));
    let mut rest = value - max;
    while rest >= 0x80 {
        block.push(u8::try_from(rest & 0x7f).expect("seven bits") | 0x80);
        rest >>= 7;
    }
    block.push(u8::try_from(rest).expect("seven bits"));
}

/// One field.
pub(crate) fn field(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Field {
    (name.as_ref().to_vec(), value.as_ref().to_vec())
}

/// The pseudo-headers of an ordinary request.
pub(crate) fn request(method: &str, path: &str) -> Vec<Field> {
    vec![
        field(":method", method),
        field(":scheme", "https"),
        field(":authority", "kubernetes"),
        field(":path", path),
    ]
}

/// A whole request without a body.
pub(crate) fn ask(stream: u32, fields: &[Field]) -> Vec<u8> {
    frame(HEADERS, END | END_HEADERS, stream, &block(fields))
}

/// What the server has sent.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Received {
    /// The error of a GOAWAY or RST_STREAM.
    pub(crate) fn error(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        let bytes = self.payload.get(at..at + 4).expect("an error code");
        u32::from_be_bytes(bytes.try_into().expect("four bytes"))
    }

    /// Whether this ends its stream.
    pub(crate) fn ends(&self) -> bool {
        self.kind == RST_STREAM || matches!(self.kind, DATA | HEADERS) && self.flags & END != 0
    }

    /// The status of a HEADERS frame, as far as this reads HPACK: h2 writes `:status` first, by its index or as a
    /// literal of three digits, plain or in Huffman's code.
    pub(crate) fn status(&self) -> Option<u16> {
        if self.kind != HEADERS {
            return None;
        }
        match self.payload[..] {
            [first @ 0x88..=0x8e, ..] => {
                [200, 204, 206, 304, 400, 404, 500].get(usize::from(first - 0x88)).copied()
            }
            // A literal of a name in the table, with Huffman's code for its three digits.
            [0x08 | 0x18 | 0x48, length @ 0x82..=0x83, ref rest @ ..] => {
                digits(rest.get(..usize::from(length & 0x7f))?)
            }
            _ => None,
        }
    }
}

/// Three digits in Huffman's code: 0, 1 and 2 take five bits, the others six.
fn digits(code: &[u8]) -> Option<u16> {
    let bits = code.iter().fold(0_u32, |bits, byte| (bits << 8) | u32::from(*byte));
    let mut left = 8 * code.len();
    let mut status = 0;
    for _ in 0..3 {
        let short = (bits >> left.checked_sub(5)?) & 0x1f;
        let digit = if short < 3 {
            left -= 5;
            short
        } else {
            left = left.checked_sub(6)?;
            ((bits >> left) & 0x3f).checked_sub(0x19)? + 3
        };
        status = status * 10 + u16::try_from(digit).ok()?;
    }
    Some(status)
}

/// A connection that speaks frames.
pub(crate) struct Raw {
    io: TlsStream<TcpStream>,
    /// Read and not yet understood.
    unread: Vec<u8>,
}

impl Raw {
    /// Connects, and says what every client says first.
    pub(crate) async fn connect(caller: &Caller) -> Self {
        Self::connect_with(caller, &[]).await
    }

    /// The same with settings of its own: identifier and value.
    pub(crate) async fn connect_with(caller: &Caller, settings: &[(u16, u32)]) -> Self {
        let raw = Self::try_connect_with(caller, settings).await;
        raw.unwrap_or_else(|error| panic!("expected a connection: {error}"))
    }

    /// The same, where being turned away is an answer.
    pub(crate) async fn try_connect_with(caller: &Caller, settings: &[(u16, u32)]) -> std::io::Result<Self> {
        let mut raw = Self { io: caller.try_socket(Protocol::Http2).await?, unread: Vec::new() };
        let payload: Vec<u8> = settings
            .iter()
            .flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()[..]].concat())
            .collect();
        raw.send(&[PREFACE, &frame(SETTINGS, 0, 0, &payload)].concat()).await;
        Ok(raw)
    }

    /// Sends bytes; a server that has gone is no error here.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> bool {
        let sent = async { self.io.write_all(bytes).await.is_ok() && self.io.flush().await.is_ok() };
        within("the bytes to be taken", sent).await
    }

    /// Whether the bytes are taken within a short time; a server that is busy closing takes none.
    pub(crate) async fn try_send(&mut self, bytes: &[u8], patience: std::time::Duration) -> bool {
        tokio::time::timeout(patience, self.send(bytes)).await.unwrap_or(false)
    }

    /// The next frame; `None` at the end of the connection.
    pub(crate) async fn next(&mut self) -> Option<Received> {
        loop {
            if let Some(received) = self.take() {
                return Some(received);
            }
            let read = within("a frame", self.io.read_buf(&mut self.unread)).await;
            if !read.is_ok_and(|count| count > 0) {
                return None;
            }
        }
    }

    /// The next frame, if it comes within `patience`.
    pub(crate) async fn next_within(&mut self, patience: std::time::Duration) -> Option<Received> {
        tokio::time::timeout(patience, self.next()).await.ok().flatten()
    }

    fn take(&mut self) -> Option<Received> {
        let head: [u8; 9] = self.unread.get(..9)?.try_into().ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let payload = self.unread.get(9..9 + length)?.to_vec();
        self.unread.drain(..9 + length);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some(Received { kind: head[3], flags: head[4], stream, payload })
    }

    /// Reads until the server closes; the frames it sent.
    pub(crate) async fn rest(&mut self) -> Vec<Received> {
        let mut frames = Vec::new();
        while let Some(received) = self.next().await {
            frames.push(received);
        }
        frames
    }

    /// Reads until `stream` has ended or the connection has. What came for it, and the GOAWAY if one came.
    pub(crate) async fn end_of(&mut self, stream: u32) -> Vec<Received> {
        let mut frames = Vec::new();
        while let Some(received) = self.next().await {
            if received.kind == SETTINGS && received.flags & END == 0 {
                self.send(&frame(SETTINGS, END, 0, &[])).await;
            }
            if received.stream == stream || received.kind == GOAWAY {
                let over = received.ends() || received.kind == GOAWAY;
                frames.push(received);
                if over {
                    break;
                }
            }
        }
        frames
    }
}

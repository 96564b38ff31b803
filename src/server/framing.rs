//! Is this HTTP/1.1 stream framed in exactly one way?
//!
//! hyper reads what RFC 9112 lets a lenient reader read: a length beside chunks, lines that end in a bare line feed,
//! two equal lengths. Each of them has at some time meant one request to one reader and two to the next, which is how
//! requests are smuggled. So every byte of an HTTP/1.1 client passes this grammar before hyper sees it. It knows just
//! enough to find where a request ends, and it only refuses: a mistake here can close a connection, and never lets
//! anything through that hyper would not have taken anyway. hyper learns of a refusal as a zero byte in the place
//! of the offending one, which it answers with 400 and a close.
//!
//! Left out: what a header means ([`crate::gateway`]), how many there are and how long they may be (hyper).

/// Empty lines before a request line: one is allowed for clients that end a body with a line too many.
const EMPTY_LINES_MAX: u8 = 4;
/// Bytes of extensions of one chunk. Nobody sends any; each is parsed and thrown away.
const EXTENSION_BYTES_MAX: u16 = 256;
/// Trailer fields of one request.
const TRAILERS_MAX: u8 = 64;
/// Longest name that matters here, `transfer-encoding`, and one byte to be longer than it.
const NAME_BYTES: usize = 18;
/// `HTTP/1.1`, and `chunked` with one byte to be longer than it.
const WORD_BYTES: usize = 8;

/// Why the stream is not framed in exactly one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Violation {
    /// Position of the first byte that must not be passed on.
    pub(super) at: usize,
    /// What is wrong, for the log.
    pub(super) what: &'static str,
}

/// The reader's place in the stream of one connection.
#[derive(Debug)]
pub(super) struct Framing {
    state: State,
    head: Head,
}

/// What is known of the request whose head is being read.
#[derive(Debug, Default)]
struct Head {
    empty_lines: u8,
    /// Spaces in the request line so far.
    spaces: u8,
    word: Word<WORD_BYTES>,
    name: Word<NAME_BYTES>,
    is_http_10: bool,
    length: Option<u64>,
    chunked: bool,
    trailers: u8,
}

/// The beginning of a word, in lower case, and how long it was.
#[derive(Debug)]
struct Word<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before a request line.
    Start,
    StartCr,
    RequestLine,
    RequestLineCr,
    /// At the beginning of a header line.
    Line,
    Name,
    Value(Field, Part),
    ValueCr(Field),
    HeadCr,
    /// So many bytes of a body of known length to come.
    Body(u64),
    ChunkSize {
        digits: u8,
        size: u64,
    },
    ChunkExtension {
        bytes: u16,
        size: u64,
    },
    ChunkSizeCr(u64),
    ChunkBody(u64),
    ChunkBodyEnd,
    ChunkBodyCr,
    /// At the beginning of a trailer line.
    Trailer,
    TrailerLine,
    TrailerCr,
    TrailersCr,
    /// Refused: nothing passes any more.
    Refused,
}

/// Which header a line holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Length,
    Encoding,
    Other,
}

/// Where in a value that must be one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Before,
    Within,
    After,
}

impl<const N: usize> Default for Word<N> {
    fn default() -> Self {
        Self { bytes: [0; N], length: 0 }
    }
}

impl<const N: usize> Word<N> {
    fn clear(&mut self) {
        self.length = 0;
    }

    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.length) {
            *place = byte.to_ascii_lowercase();
        }
        self.length = self.length.saturating_add(1);
    }

    fn is(&self, word: &[u8]) -> bool {
        self.length == word.len() && self.bytes.get(..self.length) == Some(word)
    }
}

impl Framing {
    /// At the beginning of a connection.
    pub(super) fn new() -> Self {
        Self { state: State::Start, head: Head::default() }
    }

    /// Reads on. After a violation everything is one.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            if let State::Body(left) | State::ChunkBody(left) = self.state {
                let skipped = left.min((bytes.len() - at) as u64);
                self.state = self.after_body(left - skipped);
                // At most what is left of a slice.
                at += usize::try_from(skipped).unwrap_or(usize::MAX);
                continue;
            }
            match self.step(byte) {
                Ok(next) => self.state = next,
                Err(what) => {
                    self.state = State::Refused;
                    return Err(Violation { at, what });
                }
            }
            at += 1;
        }
        Ok(())
    }

    fn after_body(&self, left: u64) -> State {
        match (self.state, left) {
            (State::Body(_), 0) => State::Start,
            (State::Body(_), left) => State::Body(left),
            (_, 0) => State::ChunkBodyEnd,
            (_, left) => State::ChunkBody(left),
        }
    }

    fn step(&mut self, byte: u8) -> Result<State, &'static str> {
        match self.state {
            State::Start | State::StartCr | State::RequestLine | State::RequestLineCr => {
                self.request_line(byte)
            }
            State::Line
            | State::Name
            | State::Value(..)
            | State::ValueCr(_)
            | State::HeadCr
            | State::Body(_)
            | State::Refused => self.header(byte),
            State::ChunkSize { .. }
            | State::ChunkExtension { .. }
            | State::ChunkSizeCr(_)
            | State::ChunkBody(_)
            | State::ChunkBodyEnd
            | State::ChunkBodyCr => self.chunk(byte),
            State::Trailer | State::TrailerLine | State::TrailerCr | State::TrailersCr => self.trailer(byte),
        }
    }

    fn request_line(&mut self, byte: u8) -> Result<State, &'static str> {
        let head = &mut self.head;
        match (self.state, byte) {
            (State::Start, b'\r') => Ok(State::StartCr),
            (State::Start, b'!'..=b'~') => {
                *head = Head::default();
                Ok(State::RequestLine)
            }
            (State::StartCr, b'\n') if head.empty_lines < EMPTY_LINES_MAX => {
                head.empty_lines += 1;
                Ok(State::Start)
            }
            (State::RequestLine, b' ') => {
                head.spaces = head.spaces.saturating_add(1);
                head.word.clear();
                Ok(State::RequestLine)
            }
            (State::RequestLine, b'\r') => {
                head.is_http_10 = head.word.is(b"http/1.0");
                let known = head.is_http_10 || head.word.is(b"http/1.1");
                if head.spaces == 2 && known { Ok(State::RequestLineCr) } else { Err("request line") }
            }
            // A fragment never travels; hyper would cut it off where the apiserver takes it for a part of the path.
            (State::RequestLine, b'#') if head.spaces == 1 => Err("fragment in the request target"),
            (State::RequestLine, 0..=b' ' | 0x7f) => Err("control character in the request line"),
            (State::RequestLine, byte) => {
                head.word.push(byte);
                Ok(State::RequestLine)
            }
            (State::RequestLineCr, b'\n') => Ok(State::Line),
            _ => Err("line end before or in the request line"),
        }
    }

    fn header(&mut self, byte: u8) -> Result<State, &'static str> {
        match (self.state, byte) {
            (State::Line, b'\r') => Ok(State::HeadCr),
            (State::Line, b' ' | b'\t') => Err("folded header"),
            (State::Line | State::Name, byte) if is_token(byte) => {
                if self.state == State::Line {
                    self.head.name.clear();
                }
                self.head.name.push(byte);
                Ok(State::Name)
            }
            (State::Name, b':') => self.field().map(|field| State::Value(field, Part::Before)),
            (State::Line | State::Name, _) => Err("header name"),
            (State::Value(field, _), b'\r') => Ok(State::ValueCr(field)),
            (State::Value(..), 0..=8 | 10..=31 | 127) => Err("control character in a header"),
            (State::Value(Field::Other, _), _) => Ok(self.state),
            (State::Value(field, part), byte) => self.word(field, part, byte),
            (State::ValueCr(field), b'\n') => self.line_ends(field).map(|()| State::Line),
            (State::HeadCr, b'\n') => self.head_ends(),
            (State::Refused, _) => Err("after a refusal"),
            _ => Err("line end in a header"),
        }
    }

    /// The name of a header is complete.
    fn field(&mut self) -> Result<Field, &'static str> {
        let head = &mut self.head;
        let field = match () {
            () if head.name.is(b"content-length") => Field::Length,
            () if head.name.is(b"transfer-encoding") => Field::Encoding,
            () => Field::Other,
        };
        head.word.clear();
        if field != Field::Other && (head.length.is_some() || head.chunked) {
            return Err("the length is said twice");
        }
        Ok(field)
    }

    /// A byte of a value that must be one word.
    fn word(&mut self, field: Field, part: Part, byte: u8) -> Result<State, &'static str> {
        let blank = byte == b' ' || byte == b'\t';
        match (part, blank) {
            (Part::Before, true) => Ok(self.state),
            (Part::Within | Part::After, true) => Ok(State::Value(field, Part::After)),
            (Part::After, false) => Err("Content-Length or Transfer-Encoding is not one word"),
            (Part::Before | Part::Within, false) => {
                let head = &mut self.head;
                if field == Field::Length {
                    let digit = char::from(byte).to_digit(10).ok_or("Content-Length is not a number")?;
                    let length = head.length.unwrap_or(0).checked_mul(10);
                    let length = length.and_then(|length| length.checked_add(u64::from(digit)));
                    head.length = Some(length.ok_or("Content-Length is too large")?);
                } else {
                    head.word.push(byte);
                }
                Ok(State::Value(field, Part::Within))
            }
        }
    }

    fn line_ends(&mut self, field: Field) -> Result<(), &'static str> {
        let head = &mut self.head;
        match field {
            Field::Length if head.length.is_none() => Err("Content-Length is empty"),
            Field::Encoding if head.is_http_10 => Err("Transfer-Encoding in HTTP/1.0"),
            Field::Encoding if !head.word.is(b"chunked") => Err("Transfer-Encoding is not chunked"),
            Field::Encoding => {
                head.chunked = true;
                Ok(())
            }
            Field::Length | Field::Other => Ok(()),
        }
    }

    fn head_ends(&mut self) -> Result<State, &'static str> {
        Ok(match (self.head.chunked, self.head.length) {
            (true, _) => State::ChunkSize { digits: 0, size: 0 },
            (false, None | Some(0)) => State::Start,
            (false, Some(length)) => State::Body(length),
        })
    }

    fn chunk(&mut self, byte: u8) -> Result<State, &'static str> {
        match (self.state, byte) {
            (State::ChunkSize { digits, size }, _) if byte.is_ascii_hexdigit() => {
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                // Sixteen digits fill 64 bits, leading zeros included.
                if digits == 16 {
                    return Err("chunk size");
                }
                Ok(State::ChunkSize { digits: digits + 1, size: (size << 4) | u64::from(digit) })
            }
            (State::ChunkSize { digits: 1.., size }, b'\r') => Ok(State::ChunkSizeCr(size)),
            (State::ChunkSize { digits: 1.., size }, b';') => Ok(State::ChunkExtension { bytes: 0, size }),
            (State::ChunkExtension { size, .. }, b'\r') => Ok(State::ChunkSizeCr(size)),
            (State::ChunkExtension { .. }, 0..=8 | 10..=31 | 127) => {
                Err("control character in a chunk extension")
            }
            (State::ChunkExtension { bytes, size }, _) if bytes < EXTENSION_BYTES_MAX => {
                Ok(State::ChunkExtension { bytes: bytes + 1, size })
            }
            (State::ChunkSizeCr(0), b'\n') => Ok(State::Trailer),
            (State::ChunkSizeCr(size), b'\n') => Ok(State::ChunkBody(size)),
            (State::ChunkBodyEnd, b'\r') => Ok(State::ChunkBodyCr),
            (State::ChunkBodyCr, b'\n') => Ok(State::ChunkSize { digits: 0, size: 0 }),
            _ => Err("chunk"),
        }
    }

    fn trailer(&mut self, byte: u8) -> Result<State, &'static str> {
        match (self.state, byte) {
            (State::Trailer, b'\r') => Ok(State::TrailersCr),
            (State::Trailer, _) if is_token(byte) && self.head.trailers < TRAILERS_MAX => {
                self.head.trailers += 1;
                Ok(State::TrailerLine)
            }
            (State::TrailerLine, b'\r') => Ok(State::TrailerCr),
            (State::TrailerLine, 0..=8 | 10..=31 | 127) => Err("control character in a trailer"),
            (State::TrailerLine, _) => Ok(State::TrailerLine),
            (State::TrailerCr, b'\n') => Ok(State::Trailer),
            (State::TrailersCr, b'\n') => Ok(State::Start),
            _ => Err("trailer"),
        }
    }
}

/// RFC 9110's token: what names are made of.
const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<State, &'static str> {
        let mut framing = Framing::new();
        framing.read(text.as_bytes()).map_err(|violation| violation.what)?;
        Ok(framing.state)
    }

    fn with(lines: &str) -> Result<State, &'static str> {
        read(&format!("POST /a HTTP/1.1\r\nHost: b\r\n{lines}"))
    }

    #[test]
    fn well_framed_requests_pass_one_after_the_other() {
        let requests = [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "\r\nGET /a?b=c%2F HTTP/1.0\r\nX-Odd: \tv\u{fc} \r\nEmpty:\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 5 \r\n\r\n\nGET ",
            "POST / HTTP/1.1\r\ncontent-length:0\r\n\r\n",
            "POST / HTTP/1.1\r\nTRANSFER-ENCODING:  Chunked\r\n\r\n3\r\n\r\n\n\r\nA;x=\"y\"\r\n0123456789\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n00\r\nX-Sum: 1\r\nY: 2\r\n\r\n",
        ];
        for request in requests {
            assert_eq!(read(request), Ok(State::Start), "{request:?}");
        }
        assert_eq!(read(&requests.concat()), Ok(State::Start));
    }

    #[test]
    fn whatever_can_be_read_in_two_ways_is_refused() {
        for lines in [
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
            "Content-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "Transfer-Encoding: xchunked\r\n\r\n",
            "Transfer-Encoding: gzip, chunked\r\n\r\n",
            "Transfer-Encoding: chunked, identity\r\n\r\n",
            "Transfer-Encoding: \"chunked\"\r\n\r\n",
            "Transfer-Encoding: chunked;q=1\r\n\r\n",
            "Transfer-Encoding:\r\n\r\n",
            "Transfer-Encoding : chunked\r\n\r\n",
            "Content-Length: +1\r\n\r\n",
            "Content-Length: 0x1\r\n\r\n",
            "Content-Length: 1,1\r\n\r\n",
            "Content-Length: 1 1\r\n\r\n",
            "Content-Length:\r\n\r\n",
            "Content-Length: 99999999999999999999\r\n\r\n",
            "X: a\n\r\n",
            "X: a\r\r\n\r\n",
            "X: a\r\n b\r\n\r\n",
            "X: a\0b\r\n\r\n",
            "X\r\n\r\n",
            ": a\r\n\r\n",
            "\n",
            "Transfer-Encoding: chunked\r\n\r\n1 \r\na\r\n0\r\n\r\n",
            "Transfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n",
            "Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
            "Transfer-Encoding: chunked\r\n\r\n1;a\nb\r\na\r\n0\r\n\r\n",
            "Transfer-Encoding: chunked\r\n\r\n\r\n",
            "Transfer-Encoding: chunked\r\n\r\n10000000000000001\r\n",
            "Transfer-Encoding: chunked\r\n\r\n0\r\n X: a\r\n\r\n",
            "Transfer-Encoding: chunked\r\n\r\n0\r\nX: a\n\r\n",
        ] {
            assert!(with(lines).is_err(), "{lines:?}");
        }
        for line in [
            "GET /\r\n",
            "GET / HTTP/2.0\r\n",
            "GET / HTTP/1.1 \r\n",
            "GET  / HTTP/1.1\r\n",
            "GET / HTTP/1.1\n",
            "GET\t/ HTTP/1.1\r\n",
            "GET /#a HTTP/1.1\r\n",
            " GET / HTTP/1.1\r\n",
            "\nGET / HTTP/1.1\r\n",
            "\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\n",
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n",
        ] {
            assert!(read(line).is_err(), "{line:?}");
        }
    }

    #[test]
    fn extensions_and_trailers_are_bounded() {
        let chunked = |rest: &str| with(&format!("Transfer-Encoding: chunked\r\n\r\n{rest}"));
        let extension = |bytes: usize| chunked(&format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(bytes))).is_ok();
        assert!(extension(256) && !extension(257));
        let trailers = |count: usize| chunked(&format!("0\r\n{}\r\n", "X: a\r\n".repeat(count))).is_ok();
        assert!(trailers(64) && !trailers(65));
    }

    #[test]
    fn nothing_passes_after_a_violation() {
        let mut framing = Framing::new();
        assert_eq!(framing.read(b"GET / HTTP/1.1\n").map_err(|violation| violation.at), Err(14));
        assert_eq!(framing.read(b"GET / HTTP/1.1\r\n").map_err(|violation| violation.at), Err(0));
    }

    proptest! {
        /// Where the network cuts the stream changes nothing.
        #[test]
        fn pieces_mean_what_the_whole_means(
            parts in proptest::collection::vec(prop_oneof![
                Just("GET / HTTP/1.1\r\n"), Just("Content-Length: 3\r\n"), Just("Transfer-Encoding: chunked\r\n"),
                Just("\r\n"), Just("\n"), Just("abc"), Just("3\r\n"), Just("0\r\n"), Just("X: y\r\n"), Just(" "),
            ], 0..12),
            cuts in proptest::collection::vec(0usize..80, 0..6),
        ) {
            let text = parts.concat();
            let mut whole = Framing::new();
            let expected = whole.read(text.as_bytes());
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let mut framing = Framing::new();
            let mut read = Ok(());
            for pair in cuts.windows(2) {
                let piece = framing.read(&text.as_bytes()[pair[0]..pair[1]]);
                if let (Ok(()), Err(violation)) = (read, piece) {
                    read = Err(Violation { at: violation.at + pair[0], ..violation });
                }
            }
            prop_assert_eq!(read, expected);
            prop_assert_eq!(framing.state, whole.state);
        }

        /// No input makes it fail in another way.
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Framing::new().read(&bytes);
        }
    }
}

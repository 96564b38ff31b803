//! Does an HTTP/2 client send more than a conversation needs?
//!
//! h2 bounds what a client may make it remember, and answers everything else for ever: PINGs, SETTINGS, priorities,
//! window updates and unknown frames cost a client nine bytes and us a decision each, and a stream that is opened and
//! reset at once costs a whole request. So the heads of a client's frames are read on their way to h2, and each kind
//! has a bucket: full at first, refilled with time (and, for window updates, with what we send). A client that
//! empties one is told ENHANCE_YOUR_CALM. h2 has no call for that, so it is handed a header block in more
//! pieces than it accepts, which is one of the things it says so itself for.
//!
//! Honest clients are far from it: Go pings twice a minute, and sends a window update for each 4 KiB that it reads.

use tokio::time::Instant;

use super::hpack::Fields;
use super::turn;

/// `PRI * HTTP/2.0` and so on: no frame.
const PREFACE_BYTES: u32 = 24;
/// Length, type, flags and stream of a frame.
const HEAD_BYTES: usize = 9;
/// Where in it the type is.
const KIND_AT: usize = 3;
/// Header fields of one block, beyond which the whole connection is ended: a request that is only somewhat above
/// [`super::Limits::header_fields`] gets its 431.
const FIELDS_PER_LIMIT: u32 = 2;
/// Payload of a DATA frame that is not worth its head, in bytes. The last of a body may be as short as it likes.
const TINY_BYTES: u32 = 32;
/// Sent bytes that are worth one more window update: clients acknowledge what they read, some of them each frame.
const BYTES_PER_UPDATE: usize = 16;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
/// GOAWAY, PUSH_PROMISE: h2 knows what to do, and it is not for long.
const ENDS: [u8; 2] = [5, 7];

const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const WITH_PRIORITY: u8 = 0x20;

/// What a client sent too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flood {
    Ping,
    Settings,
    Reset,
    WindowUpdate,
    Priority,
    TinyData,
    Unknown,
    Fields,
}

/// How many frames of a kind at once, and how many a second for as long as they like.
#[derive(Debug)]
struct Bucket {
    left: u32,
    burst: u32,
    per_second: u32,
    filled: Instant,
}

impl Bucket {
    fn new(burst: u32, per_second: u32) -> Self {
        Self { left: burst, burst, per_second, filled: Instant::now() }
    }

    /// Takes one; false when there is none. The clock is only read when the bucket looks empty.
    fn take(&mut self) -> bool {
        if self.left == 0 {
            let elapsed = self.filled.elapsed();
            let earned = elapsed.as_millis().saturating_mul(u128::from(self.per_second)) / 1_000;
            let earned = u32::try_from(earned).unwrap_or(u32::MAX).min(self.burst);
            if earned == 0 {
                return false;
            }
            self.filled += elapsed;
            self.left = earned;
        }
        self.left -= 1;
        true
    }

    fn give(&mut self, more: u32) {
        self.left = self.left.saturating_add(more).min(self.burst);
    }
}

/// The reader's place in the frames of one client.
#[derive(Debug)]
pub(super) struct Frames {
    /// Of the preface or of the present frame's payload.
    skip: u32,
    head: [u8; HEAD_BYTES],
    have: usize,
    block: Option<Block>,
    fields_max: u32,
    sent: usize,
    pings: Bucket,
    settings: Bucket,
    resets: Bucket,
    updates: Bucket,
    priorities: Bucket,
    tiny: Bucket,
    unknown: Bucket,
    refused_heads: Bucket,
    flood: Option<Flood>,
    effort: usize,
}

/// A header block that has begun.
#[derive(Debug, Default)]
struct Block {
    fields: Fields,
    /// Bytes of the present frame before, in and after its piece of the block.
    before: u32,
    piece: u32,
    padded: bool,
    ends: bool,
}

impl Frames {
    /// At the beginning of a connection of a client that may have `streams` at a time, with `fields` in each head.
    pub(super) fn new(streams: u32, fields: usize) -> Self {
        let fields = u32::try_from(fields).unwrap_or(u32::MAX);
        Self {
            skip: PREFACE_BYTES,
            head: [0; HEAD_BYTES],
            have: 0,
            block: None,
            fields_max: fields.saturating_mul(FIELDS_PER_LIMIT),
            sent: 0,
            pings: Bucket::new(200, 20),
            settings: Bucket::new(50, 2),
            // A client that leaves may reset everything it has, twice.
            resets: Bucket::new(streams.saturating_mul(2), 50),
            updates: Bucket::new(2_000, 200),
            priorities: Bucket::new(200, 20),
            tiny: Bucket::new(1_000, 100),
            unknown: Bucket::new(100, 10),
            // Who is told that its heads are too many may have sent what one window of requests holds before it hears of it.
            refused_heads: Bucket::new(32, 2),
            flood: None,
            effort: 0,
        }
    }

    /// What was too much, once something was.
    pub(super) const fn flood(&self) -> Option<Flood> {
        self.flood
    }

    /// Whether a header block has begun and not ended.
    pub(super) const fn is_in_block(&self) -> bool {
        self.block.is_some()
    }

    /// How many bytes of a body are certain to come next.
    pub(super) const fn body_left(&self) -> u32 {
        if self.head[KIND_AT] == DATA { self.skip } else { 0 }
    }

    /// So many of its requests were refused because their heads together hold too much ([`super::heads`]).
    pub(super) fn heads_refused(&mut self, count: u32) {
        if self.flood.is_none() && !(0..count).all(|_| self.refused_heads.take()) {
            self.flood = Some(Flood::Fields);
        }
    }

    /// What was read since this was last asked, as [`super::turn`] counts it.
    pub(super) const fn effort(&mut self) -> usize {
        std::mem::replace(&mut self.effort, 0)
    }

    /// So many bytes were sent to the client.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.sent += bytes;
        let worth = self.sent / BYTES_PER_UPDATE;
        self.sent %= BYTES_PER_UPDATE;
        self.updates.give(u32::try_from(worth).unwrap_or(u32::MAX));
    }

    /// Reads on. The answer is how many bytes may pass: all, or, after a flood, those up to the end of the frame that
    /// was one too many, so that what follows in their place stands where a frame begins.
    pub(super) fn read(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            if self.skip > 0 {
                let here = u32::try_from(bytes.len() - at).unwrap_or(u32::MAX).min(self.skip);
                let end = at + here as usize;
                let each = if self.block.is_some() { turn::BLOCK_BYTE } else { turn::BYTE };
                self.effort += each * here as usize;
                self.payload(&bytes[at..end]);
                self.skip -= here;
                at = end;
            } else if self.flood.is_some() && self.have == 0 {
                return at;
            } else {
                self.head[self.have] = bytes[at];
                self.have += 1;
                self.effort += turn::BYTE;
                at += 1;
                if self.have == HEAD_BYTES {
                    self.have = 0;
                    self.frame();
                }
            }
        }
        at
    }

    /// Whether everything after what passed last is to be replaced.
    pub(super) const fn is_over(&self) -> bool {
        self.flood.is_some() && self.skip == 0 && self.have == 0
    }

    fn frame(&mut self) {
        let [high, middle, low, kind, flags, ..] = self.head;
        let length = u32::from_be_bytes([0, high, middle, low]);
        self.skip = length;
        let (enough, flood) = match kind {
            DATA if length <= TINY_BYTES && flags & END_STREAM == 0 => (self.tiny.take(), Flood::TinyData),
            HEADERS | CONTINUATION => return self.piece(kind, flags, length),
            PRIORITY => (self.priorities.take(), Flood::Priority),
            RST_STREAM => (self.resets.take(), Flood::Reset),
            SETTINGS => (self.settings.take(), Flood::Settings),
            PING => (self.pings.take(), Flood::Ping),
            WINDOW_UPDATE => (self.updates.take(), Flood::WindowUpdate),
            DATA => return,
            kind if ENDS.contains(&kind) => return,
            _ => (self.unknown.take(), Flood::Unknown),
        };
        if !enough {
            self.flood = Some(flood);
        }
    }

    /// A frame that carries a piece of a header block begins.
    fn piece(&mut self, kind: u8, flags: u8, length: u32) {
        let mut block = match kind {
            HEADERS => Block::default(),
            // Without a beginning h2 will say that it is none.
            _ => match self.block.take() {
                Some(block) => block,
                None => return,
            },
        };
        block.padded = kind == HEADERS && flags & PADDED != 0;
        block.before = if kind == HEADERS && flags & WITH_PRIORITY != 0 { 5 } else { 0 };
        block.piece = length.saturating_sub(block.before);
        block.ends = flags & END_HEADERS != 0;
        self.block = if length == 0 && block.ends { None } else { Some(block) };
    }

    fn payload(&mut self, bytes: &[u8]) {
        let Some(block) = &mut self.block else { return };
        let mut rest = bytes;
        if block.padded
            && let Some((&padding, after)) = rest.split_first()
        {
            block.padded = false;
            block.piece = block.piece.saturating_sub(1 + u32::from(padding));
            rest = after;
        }
        let before = rest.len().min(block.before as usize);
        block.before -= u32::try_from(before).unwrap_or(0);
        rest = &rest[before..];
        let piece = &rest[..rest.len().min(block.piece as usize)];
        block.piece -= u32::try_from(piece.len()).unwrap_or(0);
        if block.fields.read(piece) > self.fields_max {
            self.flood = Some(Flood::Fields);
        }
        if block.ends && bytes.len() as u64 == u64::from(self.skip) {
            self.block = None;
        }
    }
}

/// What is read instead of a client that sent too much: a header block, and no end of its pieces.
#[derive(Debug, Default)]
pub(super) struct TooManyPieces {
    at: usize,
}

impl TooManyPieces {
    /// Stream 1 began long ago; it is never looked at before the block has ended.
    const FIRST: [u8; HEAD_BYTES] = [0, 0, 0, HEADERS, 0, 0, 0, 0, 1];
    const NEXT: [u8; HEAD_BYTES] = [0, 0, 0, CONTINUATION, 0, 0, 0, 0, 1];

    /// The next byte.
    pub(super) fn next(&mut self) -> u8 {
        let (frame, place) = (self.at / HEAD_BYTES, self.at % HEAD_BYTES);
        // The second frame again and again.
        self.at = if self.at + 1 == 2 * HEAD_BYTES { HEAD_BYTES } else { self.at + 1 };
        if frame == 0 { Self::FIRST[place] } else { Self::NEXT[place] }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn conversation() -> Frames {
        let mut frames = Frames::new(250, 100);
        frames.read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        frames
    }

    /// What is left of `count` frames, piece by piece.
    fn flood(frames: &mut Frames, frame: &[u8], count: usize) -> Option<Flood> {
        let all = frame.repeat(count);
        for piece in all.chunks(7) {
            if frames.is_over() {
                break;
            }
            let passed = frames.read(piece);
            assert!(passed == piece.len() || frames.is_over());
        }
        frames.flood()
    }

    #[tokio::test(start_paused = true)]
    async fn each_kind_has_a_bucket_that_time_refills() {
        let cases = [
            (frame(PING, 0, &[0; 8]), 200, Flood::Ping),
            (frame(SETTINGS, 0, &[]), 50, Flood::Settings),
            (frame(RST_STREAM, 0, &[0; 4]), 500, Flood::Reset),
            (frame(WINDOW_UPDATE, 0, &[0; 4]), 2_000, Flood::WindowUpdate),
            (frame(PRIORITY, 0, &[0; 5]), 200, Flood::Priority),
            (frame(DATA, 0, b"x"), 1_000, Flood::TinyData),
            (frame(200, 0, b"grease"), 100, Flood::Unknown),
        ];
        for (frame, burst, kind) in cases {
            let mut frames = conversation();
            assert_eq!(flood(&mut frames, &frame, burst), None, "{kind:?}");
            tokio::time::advance(Duration::from_secs(1)).await;
            assert_eq!(flood(&mut frames, &frame, 1), None, "{kind:?}: a second later");
            assert_eq!(flood(&mut frames, &frame, burst), Some(kind), "{kind:?}");
            assert!(frames.is_over(), "{kind:?}: its last frame is whole");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_honest_conversation_goes_on_for_ever() {
        let mut frames = conversation();
        for _ in 0..1_000 {
            let request = frame(HEADERS, END_HEADERS, &[0x82; 12]);
            let body = frame(DATA, 0, &[b'x'; 1_000]);
            let last = frame(DATA, END_STREAM, b"x");
            for part in [request, body, last] {
                assert_eq!(frames.read(&part), part.len());
            }
            // An answer of 100 KiB, acknowledged twice for each 4 KiB.
            frames.sent(100 << 10);
            assert_eq!(flood(&mut frames, &frame(WINDOW_UPDATE, 0, &[0; 4]), 50), None);
        }
    }

    #[test]
    fn fields_are_counted_over_the_pieces_and_without_padding() {
        let mut frames = conversation();
        let padded = [&[3, 0, 0, 0, 0, 0][..], &[0x82; 100], &[0x82; 3]].concat();
        frames.read(&frame(HEADERS, PADDED | WITH_PRIORITY, &padded));
        assert!(frames.is_in_block());
        frames.read(&frame(CONTINUATION, 0, &[0x82; 100]));
        assert_eq!(frames.flood(), None, "two hundred are allowed");
        frames.read(&frame(CONTINUATION, END_HEADERS, &[0x82]));
        assert_eq!(frames.flood(), Some(Flood::Fields));
    }

    #[test]
    fn each_head_is_counted_for_itself() {
        let mut frames = conversation();
        for _ in 0..100 {
            frames.read(&frame(HEADERS, END_HEADERS, &[0x82; 150]));
            assert!(!frames.is_in_block());
            frames.read(&frame(HEADERS, 0, &[0x82; 150]));
            frames.read(&frame(CONTINUATION, END_HEADERS, &[]));
            assert!(!frames.is_in_block());
        }
        assert_eq!(frames.flood(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_on_sending_heads_that_are_refused_is_cut_off() {
        let mut frames = conversation();
        frames.heads_refused(32);
        assert_eq!(frames.flood(), None);
        tokio::time::advance(Duration::from_secs(1)).await;
        frames.heads_refused(2);
        assert!(!frames.is_over());
        frames.heads_refused(1);
        assert_eq!(frames.flood(), Some(Flood::Fields));
        assert!(frames.is_over());
    }

    #[test]
    fn header_blocks_take_more_effort_than_anything_else() {
        let mut frames = conversation();
        frames.effort();
        frames.read(&frame(DATA, 0, &[0; 1_600]));
        assert_eq!(frames.effort(), (HEAD_BYTES + 1_600) * turn::BYTE);
        frames.read(&frame(HEADERS, END_HEADERS, &[0x82; 100]));
        assert_eq!(frames.effort(), HEAD_BYTES * turn::BYTE + 100 * turn::BLOCK_BYTE);
        assert_eq!(frames.body_left(), 0);
        frames.read(&frame(DATA, 0, &[0; 1_600])[..600]);
        assert_eq!(frames.body_left(), 1_009);
    }

    #[test]
    fn too_many_pieces_are_frames() {
        let mut pieces = TooManyPieces::default();
        let bytes: Vec<u8> = std::iter::repeat_with(|| pieces.next()).take(5 * HEAD_BYTES).collect();
        let heads: Vec<u8> = bytes.chunks(HEAD_BYTES).map(|head| head[3]).collect();
        assert_eq!(heads, [HEADERS, CONTINUATION, CONTINUATION, CONTINUATION, CONTINUATION]);
    }
}

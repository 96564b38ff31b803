//! Has a watch delivered its initial events yet?
//!
//! A watch with `sendInitialEvents=true` is a LIST in disguise: its burst ends with a bookmark that carries the
//! annotation `k8s.io/initial-events-end`. The text stands in it as it is, in JSON and in protobuf, so the bytes that
//! pass are searched for it instead of being decoded; a search that skips (Horspool) looks at every twentieth byte.
//! An object that carries the same text ends the burst early: its client's seats come back sooner, no more.

/// The annotation's key.
const MARK: &[u8; LENGTH] = b"k8s.io/initial-events-end";
const LENGTH: usize = 25;

/// How far the search may move on after a last byte, by that byte.
const SKIP: [u8; 256] = {
    let mut skip = [LENGTH as u8; 256];
    let mut at = 0;
    while at + 1 < LENGTH {
        skip[MARK[at] as usize] = (LENGTH - 1 - at) as u8;
        at += 1;
    }
    skip
};

/// Looks for the mark in a stream of frames, also where it lies across the border of two.
#[derive(Debug, Default)]
pub(super) struct Search {
    /// The last bytes seen, one less than the mark has.
    tail: Vec<u8>,
}

impl Search {
    /// Whether the mark ends in this frame.
    pub(super) fn found_in(&mut self, frame: &[u8]) -> bool {
        const KEPT: usize = LENGTH - 1;
        let before = self.tail.len();
        self.tail.extend_from_slice(&frame[..frame.len().min(KEPT)]);
        if contains(&self.tail) || contains(frame) {
            return true;
        }
        if frame.len() >= KEPT {
            self.tail.clear();
            self.tail.extend_from_slice(&frame[frame.len() - KEPT..]);
        } else {
            let surplus = (before + frame.len()).saturating_sub(KEPT);
            self.tail.drain(..surplus);
        }
        false
    }
}

fn contains(text: &[u8]) -> bool {
    let mut end = LENGTH;
    while end <= text.len() {
        if text[end - LENGTH..end] == MARK[..] {
            return true;
        }
        end += usize::from(SKIP[usize::from(text[end - 1])]);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOKMARK: &str =
        r#"{"type":"BOOKMARK","object":{"metadata":{"annotations":{"k8s.io/initial-events-end":"true"}}}}"#;

    fn found(frames: &[&[u8]]) -> bool {
        let mut search = Search::default();
        frames.iter().any(|frame| search.found_in(frame))
    }

    #[test]
    fn the_mark_is_found_wherever_a_frame_ends() {
        let bytes = BOOKMARK.as_bytes();
        for border in 0..=bytes.len() {
            let (left, right) = bytes.split_at(border);
            assert!(found(&[b"{}\n", left, right]), "border at {border}");
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert!(found(&single));
    }

    #[test]
    fn other_bookmarks_and_near_misses_are_not_the_end() {
        let plain = BOOKMARK.replace("initial-events-end", "initial-events-enx");
        assert!(!found(&[plain.as_bytes(), b"", b"k8s.io/initial-events-en", b"x"]));
        assert!(!found(&[]));
        // Bytes that are not next to each other in the stream are not joined.
        assert!(!found(&[b"k8s.io/initial-", b"----------------------------", b"events-end"]));
    }

    #[test]
    fn the_search_agrees_with_a_plain_one() {
        let mut text = b"k8s.io/initial-events-".repeat(40);
        text.extend_from_slice(MARK);
        for start in 0..text.len() {
            let plain = text[start..].windows(LENGTH).any(|part| part == MARK);
            assert_eq!(contains(&text[start..]), plain, "from {start}");
        }
    }
}

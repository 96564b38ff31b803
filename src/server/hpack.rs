//! How many header fields does an HPACK block hold, before anybody has made them?
//!
//! One byte of a block can stand for a whole field of the table, so two thousand bytes become two thousand fields and
//! some hundred kilobytes of a header map, before hyper hands over a request whose fields can be counted. This reads
//! only the shape of a block (RFC 7541, section 6): which representation, how long the integers and strings are. It
//! keeps no table and decodes nothing, so it cannot disagree with h2 about anything but malformed blocks, and
//! those end the connection in h2 anyway.

/// Bytes of one integer after its prefix: five hold 32 bits, and h2 takes no more.
const INTEGER_BYTES_MAX: u8 = 5;

/// A count of fields that goes on over the pieces of a block.
#[derive(Debug, Default)]
pub(super) struct Fields {
    next: Next,
    count: u32,
}

/// What the next byte is.
#[derive(Clone, Copy, Debug, Default)]
enum Next {
    /// The first of a representation.
    #[default]
    Representation,
    /// Part of an integer that says nothing here: an index or a table size. So many strings follow.
    Index { bytes: u8, strings: u8 },
    /// The first of a string's length. So many strings, with this one.
    String { strings: u8 },
    /// Part of a string's length.
    Length { bytes: u8, value: u32, strings: u8 },
    /// So many bytes of a string.
    Skip { bytes: u32, strings: u8 },
}

impl Fields {
    /// Reads on, and says how many fields have begun.
    pub(super) fn read(&mut self, block: &[u8]) -> u32 {
        let mut at = 0;
        while let Some(&byte) = block.get(at) {
            if let Next::Skip { bytes, strings } = self.next {
                let here = u32::try_from(block.len() - at).unwrap_or(u32::MAX).min(bytes);
                self.next = after_string(bytes - here, strings);
                at += here as usize;
                continue;
            }
            self.step(byte);
            at += 1;
        }
        self.count
    }

    fn step(&mut self, byte: u8) {
        self.next = match self.next {
            Next::Representation => self.representation(byte),
            Next::Index { bytes, strings } => {
                if byte & 0x80 != 0 && bytes < INTEGER_BYTES_MAX {
                    Next::Index { bytes: bytes + 1, strings }
                } else {
                    after_index(strings)
                }
            }
            Next::String { strings } => match byte & 0x7f {
                0x7f => Next::Length { bytes: 0, value: 0x7f, strings },
                length => after_string(u32::from(length), strings),
            },
            Next::Length { bytes, value, strings } => {
                let value = value.saturating_add(u32::from(byte & 0x7f).saturating_mul(1 << (7 * bytes)));
                if byte & 0x80 != 0 && bytes + 1 < INTEGER_BYTES_MAX {
                    Next::Length { bytes: bytes + 1, value, strings }
                } else {
                    after_string(value, strings)
                }
            }
            // Taken care of by the caller.
            Next::Skip { .. } => Next::Representation,
        };
    }

    fn representation(&mut self, byte: u8) -> Next {
        let (prefix, strings) = match byte {
            0x80.. => (0x7f, 0),
            0x40.. => (0x3f, 1),
            // A change of the table's size is no field.
            0x20.. => (0x1f, 0),
            _ => (0x0f, 1),
        };
        if !(0x20..0x40).contains(&byte) {
            self.count = self.count.saturating_add(1);
        }
        let index = byte & prefix;
        // Index zero of a literal: its name is a string, too.
        let strings = if strings == 1 && index == 0 { 2 } else { strings };
        if index == prefix { Next::Index { bytes: 0, strings } } else { after_index(strings) }
    }
}

const fn after_index(strings: u8) -> Next {
    if strings == 0 { Next::Representation } else { Next::String { strings } }
}

const fn after_string(left: u32, strings: u8) -> Next {
    match (left, strings) {
        (0, 0 | 1) => Next::Representation,
        (0, strings) => Next::String { strings: strings - 1 },
        (bytes, strings) => Next::Skip { bytes, strings },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(block: &[u8]) -> u32 {
        let whole = Fields::default().read(block);
        let mut piecewise = Fields::default();
        let last = block.iter().map(|byte| piecewise.read(std::slice::from_ref(byte))).last().unwrap_or(0);
        assert_eq!(whole, last, "the pieces mean what the whole means");
        whole
    }

    /// The examples of RFC 7541, appendix C, and what else there is.
    #[test]
    fn fields_are_counted_whatever_their_representation() {
        let literal = b"\x40\x0acustom-key\x0dcustom-header";
        let unindexed = b"\x04\x0c/sample/path";
        let secret = b"\x10\x08password\x06secret";
        assert_eq!(count(literal), 1);
        assert_eq!(count(unindexed), 1);
        assert_eq!(count(secret), 1);
        assert_eq!(count(b"\x82\x86\x84\x41\x0fwww.example.com"), 4);
        assert_eq!(count(b"\x82\x86\x84\xbe\x58\x08no-cache"), 5);
        assert_eq!(count(b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff"), 4);
        assert_eq!(count(&[0x20, 0x3f, 0xe1, 0x1f, 0x82]), 1, "table sizes are no fields");
        assert_eq!(count(&[0xff, 0x80, 0x01, 0x82]), 2, "an index of several bytes");
        assert_eq!(count(&[0xbe; 2_000]), 2_000);
        assert_eq!(count(&[literal.as_slice(), unindexed, secret, b"\x82"].concat()), 4);
    }

    #[test]
    fn a_long_string_is_no_field() {
        let mut block = vec![0x00, 0x01, b'a', 0x7f, 0xe9, 0x3f];
        // 127 + 105 + 63 * 128 bytes that would all be fields.
        block.extend([0x82; 8_296]);
        assert_eq!(count(&block), 1);
        block.push(0x82);
        assert_eq!(count(&block), 2);
    }

    #[test]
    fn empty_strings_and_absurd_lengths_end_somewhere() {
        assert_eq!(count(&[0x00, 0x00, 0x00, 0x82]), 2);
        assert_eq!(count(&[0x00, 0x01, b'a', 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0x82, 0x82]), 1);
    }
}

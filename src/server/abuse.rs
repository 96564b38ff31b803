//! For what is a connection ended that its client brought upon itself?
//!
//! A closed set of reasons, so that they can be counted. Some are found here ([`super::framing`], [`super::frames`]),
//! some by h2, which tells them to the client; what it does not tell counts as a protocol error.

use std::error::Error as _;

use super::frames::Flood;

/// A reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Abuse {
    /// HTTP/1.1 that can be read in more than one way, or in none.
    Framing = 0,
    /// Too many PINGs.
    Pings,
    /// Too many SETTINGS.
    Settings,
    /// Too many streams opened and reset.
    Resets,
    /// More window updates than there was anything to read.
    WindowUpdates,
    /// Too many priorities.
    Priorities,
    /// Bodies in crumbs.
    TinyFrames,
    /// Too many frames that nobody knows.
    UnknownFrames,
    /// One head with far too many fields.
    HeaderFields,
    /// One head with far too many bytes.
    HeaderBytes,
    /// One head in too many pieces.
    Continuations,
    /// Too many streams that broke the protocol.
    StreamErrors,
    /// Gone with many answers that it had asked for and did not read.
    Unread,
    /// Anything else against HTTP/2.
    Protocol,
}

impl Abuse {
    /// How many reasons there are.
    pub const COUNT: usize = 14;

    /// All of them.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Framing,
        Self::Pings,
        Self::Settings,
        Self::Resets,
        Self::WindowUpdates,
        Self::Priorities,
        Self::TinyFrames,
        Self::UnknownFrames,
        Self::HeaderFields,
        Self::HeaderBytes,
        Self::Continuations,
        Self::StreamErrors,
        Self::Unread,
        Self::Protocol,
    ];

    /// An index into tables by reason.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// A label for metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Framing => "framing",
            Self::Pings => "pings",
            Self::Settings => "settings",
            Self::Resets => "resets",
            Self::WindowUpdates => "window_updates",
            Self::Priorities => "priorities",
            Self::TinyFrames => "tiny_frames",
            Self::UnknownFrames => "unknown_frames",
            Self::HeaderFields => "header_fields",
            Self::HeaderBytes => "header_bytes",
            Self::Continuations => "continuations",
            Self::StreamErrors => "stream_errors",
            Self::Unread => "unread",
            Self::Protocol => "protocol",
        }
    }

    /// The reason for which hyper or h2 ended a connection, if it was the client's doing. h2 keeps its words to itself.
    pub(super) fn of(error: &hyper::Error) -> Option<Self> {
        if error.is_parse() {
            return Some(Self::Framing);
        }
        let error = error.source()?.downcast_ref::<h2::Error>()?;
        let ours = error.is_go_away() && error.is_library() && error.reason() != Some(h2::Reason::NO_ERROR);
        ours.then_some(Self::Protocol)
    }

    /// The reason that h2 tells the client in its GOAWAY, whose last bytes are its words and the last that is sent.
    pub(super) fn told(sent: &[u8]) -> Option<Self> {
        const WORDS: [(&[u8], Abuse); 5] = [
            (b"too_many_resets", Abuse::Resets),
            (b"too_many_internal_resets", Abuse::StreamErrors),
            (b"too_many_continuations", Abuse::Continuations),
            (b"header_list_way_too_large", Abuse::HeaderBytes),
            (b"too_many_data_frames", Abuse::TinyFrames),
        ];
        let (_, abuse) = WORDS.into_iter().find(|(words, _)| sent.ends_with(words))?;
        Some(abuse)
    }
}

impl From<Flood> for Abuse {
    fn from(flood: Flood) -> Self {
        match flood {
            Flood::Ping => Self::Pings,
            Flood::Settings => Self::Settings,
            Flood::Reset => Self::Resets,
            Flood::WindowUpdate => Self::WindowUpdates,
            Flood::Priority => Self::Priorities,
            Flood::TinyData => Self::TinyFrames,
            Flood::Unknown => Self::UnknownFrames,
            Flood::Fields => Self::HeaderFields,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_of_a_reason_is_its_place_and_no_two_share_a_label() {
        let labels: std::collections::BTreeSet<_> = Abuse::ALL.iter().map(|abuse| abuse.as_str()).collect();
        assert_eq!(labels.len(), Abuse::COUNT);
        for (place, abuse) in Abuse::ALL.into_iter().enumerate() {
            assert_eq!(abuse.index(), place);
        }
    }
}

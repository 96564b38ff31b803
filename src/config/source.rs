//! Where in which file? Byte ranges of a text, and the lines and columns people count in.

use std::ops::Range;
use std::path::{Path, PathBuf};

/// One file's text and its name.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// As it was given on the command line.
    pub(super) name: String,
    pub(super) text: String,
    /// Relative paths in the text start here.
    folder: PathBuf,
}

/// A byte range of a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
}

/// A place in a file, with the line it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file, as it was named.
    pub file: String,
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
    /// Column after the last character; always on the same line.
    pub end_column: usize,
    /// The line's text.
    pub excerpt: String,
}

impl Source {
    pub(super) fn new(path: &Path, text: String) -> Self {
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        Self { name: path.display().to_string(), text, folder }
    }

    /// A path that the text names, relative to the file it stands in.
    pub(super) fn resolve(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }

    pub(super) fn slice(&self, span: Span) -> &str {
        self.text.get(span.start..span.end).unwrap_or("")
    }

    /// The byte where the `count`th character begins.
    pub(super) fn byte_of_char(&self, count: usize) -> usize {
        self.text.char_indices().nth(count).map_or(self.text.len(), |(at, _)| at)
    }

    /// The place of `span`, cut at the end of its first line.
    pub(super) fn place(&self, span: Span) -> Place {
        let start = floor_char_boundary(&self.text, span.start);
        let line_start = self.text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = self.text[start..].find('\n').map_or(self.text.len(), |at| start + at);
        let excerpt = self.text[line_start..line_end].trim_end();
        let end = floor_char_boundary(&self.text, span.end).clamp(start, line_end.max(start));
        let columns = |range: Range<usize>| self.text[range].chars().count();
        let column = columns(line_start..start) + 1;
        Place {
            file: self.name.clone(),
            line: self.text[..line_start].matches('\n').count() + 1,
            column,
            end_column: column + columns(start..end).max(1),
            excerpt: excerpt.to_owned(),
        }
    }
}

fn floor_char_boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

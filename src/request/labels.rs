//! Can kube-apiserver read this label selector?
//!
//! What it selects is of no use here. But if it cannot be read, kube-apiserver forgets the name in the field selector
//! beside it, and the request is a list of everything again (until it is answered with 400). So this is the grammar of
//! `labels.Parse` of kubernetes/apimachinery, with its oddities: `in` is a key where a key is expected, a set may have
//! empty values, and a NUL byte ends a word, or the selector.

/// Bytes of a name or a value.
const NAME_BYTES_MAX: usize = 63;
/// Bytes of the domain before a key's slash.
const DOMAIN_BYTES_MAX: usize = 253;

/// Whether kube-apiserver can read it.
pub(super) fn is_readable(selector: &[u8]) -> bool {
    Reader { rest: selector, ahead: None }.selector().is_some()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    End,
    Open,
    Closed,
    Comma,
    Not,
    /// `=`, `==` or `!=`.
    Equality,
    /// `<` or `>`.
    Order,
    /// A key, a value, or one of the operators `in` and `notin`.
    Word(&'a [u8]),
}

struct Reader<'a> {
    rest: &'a [u8],
    /// A token that was looked at and not taken.
    ahead: Option<Token<'a>>,
}

/// Each reads its part, or says `None` when it is something else.
impl<'a> Reader<'a> {
    fn selector(&mut self) -> Option<()> {
        loop {
            match self.look() {
                Token::End => return Some(()),
                Token::Word(_) | Token::Not => self.requirement()?,
                _ => return None,
            }
            match self.take() {
                Token::End => return Some(()),
                Token::Comma if matches!(self.look(), Token::Word(_) | Token::Not) => {}
                _ => return None,
            }
        }
    }

    fn requirement(&mut self) -> Option<()> {
        let negated = self.look() == Token::Not;
        if negated {
            self.take();
        }
        let Token::Word(key) = self.take() else { return None };
        if !is_key(key) {
            return None;
        }
        if negated || matches!(self.look(), Token::End | Token::Comma) {
            return Some(());
        }
        match self.take() {
            Token::Word(b"in" | b"notin") => self.set(),
            Token::Equality => self.value().map(|_| ()),
            Token::Order => std::str::from_utf8(self.value()?).ok()?.parse::<i64>().ok().map(|_| ()),
            _ => None,
        }
    }

    /// The one value behind an operator; it may be missing.
    fn value(&mut self) -> Option<&'a [u8]> {
        if matches!(self.look(), Token::End | Token::Comma) {
            return Some(b"");
        }
        match self.take() {
            Token::Word(value) if is_value(value) => Some(value),
            _ => None,
        }
    }

    /// Values in parentheses, any of which may be missing; but two commas before the end are one too many.
    fn set(&mut self) -> Option<()> {
        if self.take() != Token::Open {
            return None;
        }
        let mut is_over = self.look() == Token::Closed;
        while !is_over {
            is_over = match (self.take(), self.look()) {
                (Token::Word(value), next @ (Token::Comma | Token::Closed)) if is_value(value) => {
                    next == Token::Closed
                }
                // Behind the second of two commas the set must go on.
                (Token::Comma, Token::Comma) => self.take() != Token::Comma,
                (Token::Comma, next) => next == Token::Closed,
                _ => return None,
            };
        }
        self.take();
        Some(())
    }

    fn look(&mut self) -> Token<'a> {
        let token = self.take();
        self.ahead = Some(token);
        token
    }

    fn take(&mut self) -> Token<'a> {
        if let Some(token) = self.ahead.take() {
            return token;
        }
        let blanks = self.rest.iter().take_while(|byte| is_blank(**byte)).count();
        self.rest = &self.rest[blanks..];
        match self.rest {
            // A NUL ends it, whatever follows.
            [] | [0, ..] => {
                self.rest = &[];
                Token::End
            }
            [b'=', b'=', ..] | [b'!', b'=', ..] => self.symbol(2, Token::Equality),
            [b'=', ..] => self.symbol(1, Token::Equality),
            [b'!', ..] => self.symbol(1, Token::Not),
            [b'<' | b'>', ..] => self.symbol(1, Token::Order),
            [b'(', ..] => self.symbol(1, Token::Open),
            [b')', ..] => self.symbol(1, Token::Closed),
            [b',', ..] => self.symbol(1, Token::Comma),
            _ => {
                let ends = |byte: &u8| *byte == 0 || is_blank(*byte) || b"=!(),<>".contains(byte);
                let end = self.rest.iter().position(ends).unwrap_or(self.rest.len());
                let word = &self.rest[..end];
                self.symbol(end, Token::Word(word))
            }
        }
    }

    /// Goes on behind the next `length` bytes, and behind the NUL that ended them.
    fn symbol(&mut self, length: usize, token: Token<'a>) -> Token<'a> {
        let rest = &self.rest[length..];
        self.rest = rest.strip_prefix(b"\0").unwrap_or(rest);
        token
    }
}

const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// `[DOMAIN/]NAME`.
fn is_key(key: &[u8]) -> bool {
    let mut parts = key.split(|byte| *byte == b'/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(name), None, _) => is_name(name),
        (Some(domain), Some(name), None) => is_domain(domain) && is_name(name),
        _ => false,
    }
}

fn is_value(value: &[u8]) -> bool {
    value.is_empty() || is_name(value)
}

fn is_name(name: &[u8]) -> bool {
    let inner = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    let outer = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    name.len() <= NAME_BYTES_MAX && outer(name.first()) && outer(name.last()) && name.iter().all(inner)
}

fn is_domain(domain: &[u8]) -> bool {
    let outer = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_label = |label: &[u8]| {
        let ends = [label.first(), label.last()];
        ends.into_iter().all(|byte| byte.is_some_and(|byte| outer(*byte)))
            && label.iter().all(|byte| outer(*byte) || *byte == b'-')
    };
    domain.len() <= DOMAIN_BYTES_MAX && domain.split(|byte| *byte == b'.').all(is_label)
}

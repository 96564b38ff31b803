//! What does the path say once its percent escapes are undone?
//!
//! Decoded exactly once, before it is split: `pods/x%2Fexec` is an exec, as kube-apiserver reads it. `+` is a plus.

use std::borrow::Cow;

/// A path after percent-decoding, as Go's `URL.Path`.
///
/// Bytes that are not UTF-8 become U+FFFD: Go keeps them, but no Kubernetes name can contain them, so both readings
/// match nothing.
///
/// ```
/// use spillway::request::DecodedPath;
///
/// assert_eq!(DecodedPath::new("/api/v1/%70ods").unwrap().as_str(), "/api/v1/pods");
/// assert!(DecodedPath::new("/api/%zz").is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodedPath<'a>(Cow<'a, str>);

/// A `%` that two hexadecimal digits do not follow. Go's server answers 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid escape in the request path: two hexadecimal digits must follow every %")]
pub struct BadEscape;

impl<'a> DecodedPath<'a> {
    /// Decodes the path of a request target (without its query).
    ///
    /// # Errors
    /// [`BadEscape`] where Go's server answers 400.
    pub fn new(raw: &'a str) -> Result<Self, BadEscape> {
        if !raw.contains('%') {
            return Ok(Self(Cow::Borrowed(raw)));
        }
        let bytes = unescape(raw.as_bytes(), b'+').ok_or(BadEscape)?;
        Ok(Self(Cow::Owned(text(Cow::Owned(bytes)).into_owned())))
    }

    /// The decoded text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Undoes percent escapes and writes `plus` for each `+`. `None` on a bad escape.
pub(super) fn unescape(raw: &[u8], plus: u8) -> Option<Vec<u8>> {
    let digit =
        |byte: Option<&u8>| char::from(*byte?).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let mut bytes = raw.iter();
    let mut decoded = Vec::with_capacity(raw.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => digit(bytes.next())? << 4 | digit(bytes.next())?,
            b'+' => plus,
            other => *other,
        });
    }
    Some(decoded)
}

/// The bytes as text; what is not UTF-8 becomes U+FFFD.
pub(super) fn text(bytes: Cow<'_, [u8]>) -> Cow<'_, str> {
    match bytes {
        Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
        Cow::Owned(bytes) => Cow::Owned(
            String::from_utf8(bytes)
                .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()),
        ),
    }
}

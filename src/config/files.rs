//! Are the files that a configuration names there, readable, and of the right kind?
//!
//! A missing key file is found here, by `spillway validate` and before anything is started, with the place in the
//! YAML that names it. Whether a certificate fits its key, is valid today or has the right names is for the parts
//! that use it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustls_pki_types::pem::{self, PemObject, SectionKind};

use super::diagnostic::{Code, Diagnostic};
use super::source::Place;

/// The largest file that is read: the biggest CA bundles in use are a fifth of it.
pub(super) const FILE_BYTES_MAX: u64 = 1 << 20;

/// What a file must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// At least one PEM certificate.
    Certificates,
    /// A PEM private key.
    PrivateKey,
    /// At least one PEM public key.
    PublicKeys,
    /// PEM public keys of Ed25519, and no others.
    GrantKeys,
    /// A JSON Web Key Set with at least one key.
    KeySet,
    /// Lines that the part that uses them understands.
    Lines,
}

/// A file, and the place in the configuration that names it.
#[derive(Clone, Debug)]
pub(super) struct FileUse {
    pub(super) path: PathBuf,
    pub(super) content: Content,
    /// The key's way through the document, `listeners[0].tls.keyFile`.
    pub(super) key: String,
    pub(super) place: Place,
}

impl Content {
    const fn expected(self) -> &'static str {
        match self {
            Self::Certificates => "a PEM certificate",
            Self::PrivateKey => "a PEM private key",
            Self::PublicKeys => "a PEM public key",
            Self::GrantKeys => "a PEM public key of Ed25519",
            Self::KeySet => "a JSON Web Key Set",
            Self::Lines => "a text file",
        }
    }

    const fn admits(self, kind: SectionKind) -> bool {
        match self {
            Self::Certificates => matches!(kind, SectionKind::Certificate),
            Self::PrivateKey => {
                matches!(
                    kind,
                    SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey
                )
            }
            Self::PublicKeys | Self::GrantKeys => matches!(kind, SectionKind::PublicKey),
            Self::KeySet | Self::Lines => false,
        }
    }
}

/// Checks every file once a use; each is read once.
pub(super) fn check(uses: &[FileUse]) -> Vec<Diagnostic> {
    let mut read: HashMap<&Path, Result<Vec<u8>, io::Error>> = HashMap::new();
    let mut found = Vec::new();
    for wanted in uses {
        let text = read.entry(&wanted.path).or_insert_with(|| read_bounded(&wanted.path));
        match text {
            Err(error) => found.push(cannot_read(wanted, error)),
            Ok(text) => found.extend(check_content(wanted, text)),
        }
        if wanted.content == Content::PrivateKey
            && let Some(who) = exposed_to(&wanted.path)
        {
            let path = wanted.path.display();
            found.push(
                Diagnostic::new(Code::KeyExposed, format!("{who} may read or change the private key {path}"))
                    .at(wanted.place.clone())
                    .label("named here")
                    .note("allowed: 0600 and less, and 0640 where root owns the file")
                    .help(format!("chmod 0600 {path}; where it is a Secret's volume: defaultMode: 0400")),
            );
        }
    }
    found
}

/// Reads a whole file, up to [`FILE_BYTES_MAX`].
pub(super) fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let mut text = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(text)
}

/// The code and the words for a file that cannot be read: what failed, and what to try.
pub(super) fn describe(path: &Path, error: &io::Error) -> (Code, String, String) {
    let path = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => (
            Code::FileMissing,
            format!("there is no file {path}"),
            "check the path; a relative one starts at the file that names it".to_owned(),
        ),
        io::ErrorKind::PermissionDenied => (
            Code::FileUnreadable,
            format!("{path} may not be read by this user"),
            format!("check owner and mode with `ls -l {path}`, and those of its folders"),
        ),
        io::ErrorKind::FileTooLarge => (
            Code::FileTooLarge,
            format!("{path} is larger than {} MiB", FILE_BYTES_MAX >> 20),
            "check that it is the right file".to_owned(),
        ),
        io::ErrorKind::IsADirectory => {
            (Code::FileUnreadable, format!("{path} is a folder"), "name the file in it".to_owned())
        }
        _ => (Code::FileUnreadable, format!("{path} cannot be read: {error}"), format!("try `cat {path}`")),
    }
}

fn cannot_read(wanted: &FileUse, error: &io::Error) -> Diagnostic {
    let (code, message, help) = describe(&wanted.path, error);
    Diagnostic::new(code, message)
        .at(wanted.place.clone())
        .label(format!("`{}` needs {}", wanted.key, wanted.content.expected()))
        .help(help)
}

fn check_content(wanted: &FileUse, text: &[u8]) -> Option<Diagnostic> {
    let found = match wanted.content {
        Content::KeySet => key_set(text),
        Content::Lines => Ok(()),
        Content::GrantKeys => pem_sections(wanted.content, text).and_then(|()| only_ed25519(text)),
        content => pem_sections(content, text),
    };
    let found = found.err()?;
    let path = wanted.path.display();
    let content = wanted.content.expected();
    Some(
        Diagnostic::new(Code::FileContent, format!("there is no usable {} in {path}", &content[2..]))
            .at(wanted.place.clone())
            .label(format!("`{}` needs {content}", wanted.key))
            .note(format!("found {found}"))
            .help(match wanted.content {
                Content::GrantKeys => "use the .pub that `spillway break-glass grant-key` wrote".to_owned(),
                Content::KeySet => format!("try `kubectl get --raw /openid/v1/jwks > {path}`"),
                _ => format!("try `openssl storeutl -noout -text {path}`"),
            }),
    )
}

/// What is in the file instead, when nothing in it is wanted. Never its text: it may be a key.
fn pem_sections(content: Content, text: &[u8]) -> Result<(), String> {
    let mut others = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text) {
        match section {
            Ok((kind, _)) if content.admits(kind) => return Ok(()),
            Ok((kind, _)) => others.push(section_name(kind)),
            Err(pem::Error::MissingSectionEnd { .. }) => {
                return Err("a PEM section without its END line".to_owned());
            }
            Err(pem::Error::Base64Decode(_)) => return Err("a PEM section that is not base64".to_owned()),
            Err(_) => return Err("a damaged PEM section".to_owned()),
        }
    }
    others.dedup();
    if others.is_empty() {
        Err("no PEM section that is known here".to_owned())
    } else {
        Err(format!("only {}", others.join(", ")))
    }
}

/// Grants are signed with one kind of key; one of another kind beside it would be ignored in silence.
fn only_ed25519(text: &[u8]) -> Result<(), String> {
    /// What such a key begins with, as DER.
    const BEGIN: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    let mut keys = <(SectionKind, Vec<u8>)>::pem_slice_iter(text).flatten();
    match keys.all(|(kind, der)| kind != SectionKind::PublicKey || der.starts_with(&BEGIN)) {
        true => Ok(()),
        false => Err("a public key of another kind".to_owned()),
    }
}

const fn section_name(kind: SectionKind) -> &'static str {
    match kind {
        SectionKind::Certificate => "a certificate",
        SectionKind::PublicKey => "a public key",
        SectionKind::RsaPrivateKey | SectionKind::PrivateKey | SectionKind::EcPrivateKey => "a private key",
        SectionKind::Crl => "a revocation list",
        SectionKind::Csr => "a signing request",
        _ => "another PEM section",
    }
}

fn key_set(text: &[u8]) -> Result<(), String> {
    let set: serde_json::Value = serde_json::from_slice(text).map_err(|error| format!("no JSON: {error}"))?;
    match set.get("keys").and_then(serde_json::Value::as_array) {
        Some(keys) if !keys.is_empty() => Ok(()),
        Some(_) => Err("an empty `keys` list".to_owned()),
        None => Err("JSON without a `keys` list".to_owned()),
    }
}

/// Who else than its owner may read or change a private key. A group may read what root has given it (0640): that is
/// how a process without root gets its key.
#[cfg(unix)]
fn exposed_to(path: &Path) -> Option<&'static str> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    const OTHERS: u32 = 0o007;
    const GROUP: u32 = 0o070;
    const GROUP_READ: u32 = 0o040;
    let facts = std::fs::metadata(path).ok()?;
    let mode = facts.permissions().mode();
    let group = mode & GROUP;
    if mode & OTHERS != 0 {
        Some("everyone on this machine")
    } else if group == 0 || group == GROUP_READ && facts.uid() == 0 {
        None
    } else {
        Some("its group")
    }
}

#[cfg(not(unix))]
fn exposed_to(_: &Path) -> Option<&'static str> {
    None
}

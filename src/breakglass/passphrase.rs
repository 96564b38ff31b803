//! How does the break-glass CA's key lie on a disk?
//!
//! As encrypted PKCS#8 (PBES2: PBKDF2 with HMAC-SHA-256, AES-256-CBC), which every `openssl pkey` can read as well: a
//! key that only one program can open is one lost program away from a lock-out. The passphrase comes from a terminal
//! or a file, never from an argument or the environment, which other processes can read.

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use pkcs8::pkcs5::pbes2;
use pkcs8::{EncryptedPrivateKeyInfo, LineEnding, PrivateKeyInfo, SecretDocument};

/// Rounds of PBKDF2: what OWASP asks of HMAC-SHA-256. A fifth of a second for its owner, and as much for each guess.
const ROUNDS: u32 = 600_000;
/// The PEM label of PKCS#8 that is encrypted.
const LABEL: &str = "ENCRYPTED PRIVATE KEY";

/// What opens the CA's key. It is never printed.
pub struct Passphrase(String);

/// The key cannot be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// Too easy to guess.
    #[error(
        "the passphrase has {0} characters, expected {min} or more: whoever gets the file can try as often as they like",
        min = Passphrase::CHARACTERS_MIN
    )]
    TooShort(usize),
    /// Not the file it should be.
    #[error("there is no encrypted private key in it ({0}); expected a PEM block `{LABEL}`")]
    NotSealed(String),
    /// The usual mistake.
    #[error("the passphrase does not open the key; try again, or look at the sealed copy of it")]
    WrongPassphrase,
    /// The library refused to encrypt.
    #[error("the key cannot be encrypted: {0}; this build or machine is broken, use another")]
    Unsealable(String),
}

impl Passphrase {
    /// Fewest characters: four random words have twice as many.
    pub const CHARACTERS_MIN: usize = 12;

    /// A passphrase as it was typed, or as it stands in a file: the line feed at its end does not count.
    ///
    /// # Errors
    /// When it is shorter than [`Self::CHARACTERS_MIN`].
    pub fn new(text: &str) -> Result<Self, SealError> {
        let text = text.trim_end_matches(['\r', '\n']);
        match text.chars().count() {
            short if short < Self::CHARACTERS_MIN => Err(SealError::TooShort(short)),
            _ => Ok(Self(text.to_owned())),
        }
    }

    /// Encrypts a PKCS#8 key; the answer is PEM.
    ///
    /// # Errors
    /// When the libraries fail: a defect.
    pub fn seal(&self, pkcs8: &[u8]) -> Result<String, SealError> {
        let unsealable = |why: String| SealError::Unsealable(why);
        let (mut salt, mut iv) = ([0; 16], [0; 16]);
        let random = SystemRandom::new();
        random
            .fill(&mut salt)
            .and_then(|()| random.fill(&mut iv))
            .map_err(|_| unsealable("no randomness".into()))?;
        let parameters = pbes2::Parameters::pbkdf2_sha256_aes256cbc(ROUNDS, &salt, &iv)
            .map_err(|error| unsealable(error.to_string()))?;
        let key = PrivateKeyInfo::try_from(pkcs8).map_err(|error| unsealable(error.to_string()))?;
        let sealed = key
            .encrypt_with_params(parameters, self.0.as_bytes())
            .map_err(|error| unsealable(error.to_string()))?;
        let pem = sealed.to_pem(LABEL, LineEnding::LF).map_err(|error| unsealable(error.to_string()))?;
        Ok(pem.to_string())
    }

    /// Decrypts what [`Self::seal`] made; the answer is PKCS#8.
    ///
    /// # Errors
    /// When it is something else, or the passphrase is another.
    pub fn open(&self, pem: &str) -> Result<Vec<u8>, SealError> {
        let (label, document) =
            SecretDocument::from_pem(pem).map_err(|error| SealError::NotSealed(error.to_string()))?;
        if label != LABEL {
            return Err(SealError::NotSealed(format!("it is a `{label}`")));
        }
        let sealed = EncryptedPrivateKeyInfo::try_from(document.as_bytes())
            .map_err(|error| SealError::NotSealed(error.to_string()))?;
        let opened = sealed.decrypt(self.0.as_bytes()).map_err(|_| SealError::WrongPassphrase)?;
        Ok(opened.as_bytes().to_vec())
    }
}

impl std::fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passphrase")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_passphrase_opens_what_it_sealed() {
        let key = rcgen::KeyPair::generate().unwrap().serialize_der();
        let sealed = Passphrase::new("correct horse battery\n").unwrap().seal(&key).unwrap();
        assert!(sealed.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----\n"), "{sealed}");
        assert_eq!(Passphrase::new("correct horse battery").unwrap().open(&sealed).unwrap(), key);
        let other = Passphrase::new("correct horse batterY").unwrap();
        assert!(matches!(other.open(&sealed), Err(SealError::WrongPassphrase)));
    }

    #[test]
    fn a_key_that_is_not_sealed_is_no_sealed_key() {
        let plain = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let passphrase = Passphrase::new("correct horse battery").unwrap();
        for text in [
            plain.as_str(),
            "",
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
        ] {
            assert!(matches!(passphrase.open(text), Err(SealError::NotSealed(_))), "{text}");
        }
        assert!(matches!(Passphrase::new("short"), Err(SealError::TooShort(5))));
    }
}

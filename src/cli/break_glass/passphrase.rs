//! Where does the passphrase of the CA's key come from?

use std::io::IsTerminal as _;
use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::Failure;
use crate::breakglass::{Passphrase, read_text};

/// Bytes of a passphrase file.
const FILE_BYTES_MAX: u64 = 4_096;

/// Where it comes from.
#[derive(Debug, ClapArgs)]
pub(super) struct Source {
    /// File with the passphrase of the CA's key; without it, the terminal is asked
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl Source {
    /// The passphrase of a key that exists.
    pub(super) fn ask(&self) -> Result<Passphrase, Failure> {
        self.read("passphrase of the break-glass CA's key: ").and_then(|text| passphrase(&text))
    }

    /// A passphrase for a new key: typed twice, because a mistyped one is found out in the emergency.
    pub(super) fn choose(&self) -> Result<Passphrase, Failure> {
        let text = self.read("new passphrase for the break-glass CA's key: ")?;
        if self.passphrase_file.is_none() && self.read("the same again: ")? != text {
            return Err(Failure::new("the two passphrases differ; nothing was made, try again"));
        }
        passphrase(&text)
    }

    fn read(&self, prompt: &str) -> Result<String, Failure> {
        if let Some(file) = &self.passphrase_file {
            return Ok(read_text(file, FILE_BYTES_MAX)?);
        }
        if !std::io::stdin().is_terminal() {
            return Err(Failure::usage(
                "there is no terminal to ask for the passphrase; name a file with --passphrase-file",
            ));
        }
        rpassword::prompt_password(prompt)
            .map_err(|error| Failure::new(format!("cannot read the passphrase from the terminal: {error}")))
    }
}

fn passphrase(text: &str) -> Result<Passphrase, Failure> {
    Passphrase::new(text).map_err(Failure::new)
}

//! `spillway completion`, `man` and `version`: what a shell, a manual and a ticket want to know about this binary.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args as ClapArgs, CommandFactory as _};
use clap_complete::Shell;
use serde_json::json;

use super::isolate::ended;
use super::shown::{Output, for_programs};
use super::socket::Where;
use super::{Cli, Ending};
use crate::admin::wire::Status;
use crate::config::API_VERSION;

/// Prints a completion script.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  source <(spillway completion bash)
  spillway completion zsh > \"${fpath[1]}/_spillway\"
  spillway completion fish > ~/.config/fish/completions/spillway.fish")]
pub struct CompletionArgs {
    /// Which shell
    shell: Shell,
}

/// Prints or writes manual pages.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  spillway man | man -l -
  spillway man isolate | man -l -
  spillway man --dir /usr/local/share/man/man1")]
pub struct ManArgs {
    /// Of this command; again for its own commands
    command: Vec<String>,
    /// Write the pages of all commands into this folder
    #[arg(long, conflicts_with = "command")]
    dir: Option<PathBuf>,
}

/// Prints the version.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  spillway version
  spillway version --server
  spillway version -o json")]
pub struct VersionArgs {
    /// Ask the running spillway for its version, too
    #[arg(long)]
    server: bool,
    #[command(flatten)]
    at: Where,
    /// How it is printed
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Prints the script.
pub fn completion(args: &CompletionArgs, out: &mut dyn Write) -> Ending {
    // Into memory first: clap_complete panics when its writer fails, as a closed pipe does.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "spillway", &mut script);
    ended(out.write_all(&script))
}

/// Prints or writes the pages.
pub fn man(args: &ManArgs, out: &mut dyn Write, err: &mut dyn Write) -> Ending {
    let mut whole = Cli::command().disable_help_subcommand(true);
    whole.build();
    if let Some(folder) = &args.dir {
        let written = std::fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(whole, folder));
        return match written {
            Ok(()) => Ending::Fine,
            Err(error) => {
                // A closed terminal cannot be told anything; the exit code still says it.
                let _ = writeln!(
                    err,
                    "error: {} cannot be written: {error}\nhelp: name another folder with --dir",
                    folder.display()
                );
                Ending::Failed
            }
        };
    }
    let mut command = &whole;
    for word in &args.command {
        let Some(found) = command.find_subcommand(word) else {
            let _ = writeln!(err, "error: there is no command {word:?}\nhelp: spillway help");
            return Ending::Usage;
        };
        command = found;
    }
    ended(clap_mangen::Man::new(command.clone()).render(&mut &mut *out))
}

/// Prints the version.
pub fn version(args: &VersionArgs, out: &mut dyn Write, err: &mut dyn Write) -> Ending {
    let server = match args.server {
        false => None,
        true => match args.at.get::<Status>("/v1/status") {
            Ok(status) => Some(status.version),
            Err(failure) => return failure.tell(err),
        },
    };
    ended(print(server.as_deref(), args.output, out))
}

fn print(server: Option<&str>, output: Output, out: &mut dyn Write) -> io::Result<()> {
    let own = env!("CARGO_PKG_VERSION");
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    let mut object =
        json!({ "version": own, "configVersion": API_VERSION, "platform": format!("{os}/{arch}") });
    if let Some(server) = server {
        object["server"] = server.into();
    }
    if for_programs(output, &object, out)? {
        return Ok(());
    }
    writeln!(out, "spillway {own} ({os}/{arch}, reads {API_VERSION})")?;
    match server {
        None => Ok(()),
        Some(server) if server == own => writeln!(out, "the running one is {server}, the same"),
        Some(server) => writeln!(
            out,
            "the running one is {server}\n  → restart it, or use the command line of that version"
        ),
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_shell_and_every_command_has_its_pages() {
        for shell in Shell::value_variants() {
            let mut out = Vec::new();
            assert_eq!(completion(&CompletionArgs { shell: *shell }, &mut out), Ending::Fine);
            assert!(String::from_utf8(out).unwrap().contains("isolations"), "{shell}");
        }
        let folder = tempfile::tempdir().unwrap();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let dir = Some(folder.path().join("man1"));
        assert_eq!(man(&ManArgs { command: vec![], dir }, &mut out, &mut err), Ending::Fine);
        let page = std::fs::read_to_string(folder.path().join("man1/spillway-isolate.1")).unwrap();
        assert!(page.contains("force\\-protected"), "{page}");
        let args = ManArgs { command: vec!["break-glass".into(), "issue".into()], dir: None };
        assert_eq!(man(&args, &mut out, &mut err), Ending::Fine);
        assert!(String::from_utf8(out).unwrap().contains("issue"));
        let args = ManArgs { command: vec!["breakglass".into()], dir: None };
        assert_eq!(man(&args, &mut Vec::new(), &mut err), Ending::Usage);
    }

    #[test]
    fn versions_are_told_apart() {
        let mut out = Vec::new();
        print(Some("9.9.9"), Output::Table, &mut out).unwrap();
        print(Some("9.9.9"), Output::Json, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.contains("the running one is 9.9.9\n  → ") && text.contains("\"server\": \"9.9.9\""),
            "{text}"
        );
    }
}

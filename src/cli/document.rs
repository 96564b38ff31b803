//! Is docs/CLI.md what the commands themselves say? With `SPILLWAY_UPDATE_GOLDEN=1` it is written.
//!
//! It is the help texts of all commands, for reading and searching outside a terminal. Nothing in it is written by hand.

use std::fmt::Write as _;
use std::path::Path;

use clap::{Command, CommandFactory as _};

use super::Cli;

/// Columns of the help texts, whatever the terminal of whoever writes the document.
const COLUMNS: usize = 100;

const HEAD: &str = "\
# Commands

Every command and what it takes, as `spillway help COMMAND` prints it. This file is made from the commands: change their help
texts, then `SPILLWAY_UPDATE_GOLDEN=1 cargo test --lib cli::document`. As a plugin the same is `kubectl spillway COMMAND`.
";

fn document() -> String {
    let mut whole = Cli::command().disable_help_subcommand(true).term_width(COLUMNS);
    whole.build();
    let mut text = HEAD.to_owned();
    text.push_str("\n| command | |\n|---|---|\n");
    for command in shown(&whole) {
        let name = command.get_name();
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        writeln!(text, "| [`{name}`](#spillway-{name}) | {} |", about.replace('|', "\\|")).unwrap();
    }
    for command in shown(&whole) {
        section(command, "spillway", 2, &mut text);
    }
    text
}

fn shown(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help")
}

/// One command and those below it.
fn section(command: &Command, above: &str, depth: usize, text: &mut String) {
    let name = format!("{above} {}", command.get_name());
    let help = command.clone().term_width(COLUMNS).render_long_help().to_string();
    write!(text, "\n{} {name}\n```text\n", "#".repeat(depth.min(4))).unwrap();
    for line in help.trim_end().lines() {
        writeln!(text, "{}", line.trim_end()).unwrap();
    }
    text.push_str("```\n");
    for below in shown(command) {
        section(below, &name, depth + 1, text);
    }
}

#[test]
fn the_document_of_the_commands_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/CLI.md");
    let text = document();
    if std::env::var_os("SPILLWAY_UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let is_current = std::fs::read_to_string(&path).unwrap_or_default() == text;
    assert!(
        is_current,
        "docs/CLI.md is not what the commands say: run this test with SPILLWAY_UPDATE_GOLDEN=1"
    );
    for part in ["## spillway isolate\n", "### spillway break-glass drill\n", "--all-instances"] {
        assert!(text.contains(part), "{part}");
    }
}

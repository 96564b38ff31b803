//! What do several proxies say together, and which of them say nothing?
//!
//! All are asked at the same time, so that a dead one costs its own wait and nobody else's. Who does not answer is a line of
//! its own and never a zero; the command then ends with 1, and shows what the others said.

mod asked;
mod happened;
mod isolated;
mod screenful;

use std::io::{self, Write};
use std::thread;

use serde::Serialize;
use serde_json::{Value, json};

pub(super) use self::asked::{decisions, explained, newcomers};
pub(super) use self::happened::events;
pub(super) use self::isolated::{Choice, isolate, isolations, release};
pub(super) use self::screenful::{status, top};
use super::Ending;
use super::shown::{fit, plain, wrapped};
use super::socket::{Failure, Where};
use crate::admin::wire::{Problem, code};

/// Characters of an instance's name in a table.
const NAME: usize = 12;

/// What one of them said.
pub(super) struct Answer<T> {
    pub(super) name: String,
    /// The same command for it alone.
    pub(super) at: Where,
    pub(super) said: Result<T, Failure>,
}

/// Asks all that are meant, at the same time. That there is nobody who says anything is a failure.
pub(super) fn each<T: Send>(
    at: &Where,
    ask: impl Fn(&Where) -> Result<T, Failure> + Sync,
) -> Result<Vec<Answer<T>>, Failure> {
    let instances = at.all()?;
    let mut answers: Vec<Answer<T>> = thread::scope(|scope| {
        let asked: Vec<_> = instances
            .into_iter()
            .map(|instance| {
                let (at, ask) = (at.one(&instance.endpoint), &ask);
                let asking = at.clone();
                (instance.name, at, scope.spawn(move || ask(&asking)))
            })
            .collect();
        asked
            .into_iter()
            .map(|(name, at, said)| {
                let broken =
                    || Failure::new(Ending::Failed, Problem::new(code::SOME, "the question broke off", ""));
                Answer { name, at, said: said.join().unwrap_or_else(|_| Err(broken())) }
            })
            .collect()
    });
    let silent = answers.iter().all(|answer| answer.said.is_err());
    match answers.pop() {
        Some(Answer { said: Err(failure), .. }) if silent => {
            let problem = Problem {
                details: answers
                    .iter()
                    .map(|answer| format!("{} did not answer, either", answer.name))
                    .collect(),
                ..failure.problem
            };
            Err(Failure::new(failure.ending, problem))
        }
        Some(last) => {
            answers.push(last);
            Ok(answers)
        }
        None => Ok(answers),
    }
}

/// Those who said something.
fn heard<T>(answers: &[Answer<T>]) -> impl Iterator<Item = (&Answer<T>, &T)> {
    answers.iter().filter_map(|answer| answer.said.as_ref().ok().map(|said| (answer, said)))
}

/// For programs: one object an instance, and what they come to together.
fn object<T: Serialize>(answers: &[Answer<T>], total: Value) -> Value {
    let instances: Vec<Value> = answers
        .iter()
        .map(|answer| match &answer.said {
            Ok(said) => json!({ "instance": answer.name, "answer": said }),
            Err(failure) => json!({ "instance": answer.name, "problem": failure.problem }),
        })
        .collect();
    json!({ "instances": instances, "total": total })
}

/// Says who did not answer, and how the command ends.
fn close<T>(answers: &[Answer<T>], printed: io::Result<()>, err: &mut dyn Write) -> Ending {
    let silent: Vec<_> = answers
        .iter()
        .filter_map(|answer| answer.said.as_ref().err().map(|failure| (answer, failure)))
        .collect();
    if silent.is_empty() {
        return super::isolate::ended(printed);
    }
    // A closed terminal cannot be told anything; the exit code still says it.
    let _ = writeln!(err, "error[{}]: {} of {} did not answer", code::SOME, silent.len(), answers.len());
    for (answer, failure) in silent {
        let _ = writeln!(err, "  - {}: {}", plain(&answer.name), plain(&failure.problem.message));
        let _ = writeln!(err, "    {}", plain(&failure.problem.help));
    }
    Ending::Failed
}

/// `cp-1        `.
fn name_of<T>(answer: &Answer<T>) -> String {
    format!("{:<NAME$}", fit(&answer.name, NAME))
}

/// A finding of one instance and what to do about it there.
fn finding<T>(answer: &Answer<T>, finding: &str, next: &str, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}", wrapped(&format!("! {}: {finding}", answer.name), "  "))?;
    let said = if next.contains("spillway ") { answer.at.said() } else { String::new() };
    writeln!(out, "  → {next}{said}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use std::time::Duration;

    /// As if the last of three did not answer.
    pub(super) fn answers<T>(said: [T; 2]) -> Vec<Answer<T>> {
        let names = ["cp-1", "cp-2-of-a-long-name", "cp-3"];
        let failure = Failure::new(
            Ending::Unreachable,
            Problem::new(code::UNREACHABLE, "nobody answers at /run/cp-3.sock", "is spillway running there?"),
        );
        let said = said.map(Ok).into_iter().chain([Err(failure)]);
        let at =
            |name: &str| Where::socket(PathBuf::from(format!("/run/{name}.sock")), Duration::from_secs(1));
        names
            .into_iter()
            .zip(said)
            .map(|(name, said)| Answer { name: name.into(), at: at(name), said })
            .collect()
    }

    /// What is printed, with what goes to standard error behind it.
    pub(super) fn printed<T>(
        answers: &[Answer<T>],
        print: impl Fn(&mut Vec<u8>) -> io::Result<()>,
    ) -> String {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let printed = print(&mut out);
        assert_eq!(close(answers, printed, &mut err), Ending::Failed);
        let (out, err) = (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap());
        let mut lines = out.lines().filter(|line| !line.starts_with("  → "));
        assert!(lines.all(|line| line.chars().count() <= super::super::shown::COLUMNS), "{out}");
        format!("{out}--- standard error\n{err}")
    }

    #[test]
    fn when_nobody_answers_it_ends_as_for_one_and_names_all() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("instances.yaml");
        std::fs::write(
            &file,
            "instances: [{name: a, endpoint: 'unix:///nowhere/a'}, {name: b, endpoint: 'unix:///nowhere/b'}]",
        )
        .unwrap();
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            at: Where,
        }
        use clap::Parser as _;
        let line = Line::parse_from(["x", "--all-instances", "--instances", file.to_str().unwrap()]);
        assert!(line.at.is_several() && line.at.said().contains(" --all-instances --instances "));
        let failure = each(&line.at, |at| at.get::<Value>("/v1/status")).err().unwrap();
        assert_eq!(failure.ending, Ending::Unreachable);
        assert!(failure.problem.message.contains("/nowhere/b"), "{failure:?}");
        assert_eq!(failure.problem.details, ["a did not answer, either"]);
        // What belongs to one proxy is not asked of two.
        let failure = line.at.get::<Value>("/v1/status").unwrap_err();
        assert_eq!((failure.ending, failure.problem.code.as_str()), (Ending::Usage, code::ONE));
        let line = Line::parse_from(["x", "--endpoint", "unix:///run/a.sock"]);
        assert_eq!(
            (line.at.is_several(), line.at.said().as_str()),
            (false, " --endpoint unix:///run/a.sock")
        );
    }
}

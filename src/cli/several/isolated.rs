//! Is it contained everywhere? `isolate`, `release` and `isolations` of several instances.
//!
//! A client that is contained on two of three is not contained: it comes back over the third. So each instance says for
//! itself what is in force there, before and after, and one that does not answer is named before anybody says yes.

use std::io::{self, Write};

use serde_json::json;

use super::super::Ending;
use super::super::effect::warn_not_kept;
use super::super::isolate::{confirmed, show_preview};
use super::super::shown::{Output, fit, for_programs, plain, quoted, span, wrapped};
use super::super::socket::{Failure, Where};
use super::{Answer, close, each, heard, name_of, object};
use crate::admin::wire::{Isolate, Isolated, IsolationView, Isolations, Preview, Release, code};

/// What was decided on the command line.
pub(in crate::cli) struct Choice {
    pub(in crate::cli) is_sure: bool,
    pub(in crate::cli) dry_run: bool,
    pub(in crate::cli) output: Output,
}

/// `spillway isolate`: looks everywhere, asks once, does it everywhere.
pub(in crate::cli) fn isolate(
    at: &Where,
    mut wanted: Isolate,
    choice: &Choice,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<Ending, Failure> {
    wanted.dry_run = true;
    let previews = each(at, |at| at.post::<Isolated>("/v1/isolations", &wanted))?;
    let preview = merged(&previews);
    if choice.dry_run {
        let printed =
            for_programs(choice.output, &object(&previews, json!({ "preview": preview.preview })), out);
        let printed = printed.and_then(|done| if done { Ok(()) } else { show_preview(&preview, out) });
        return Ok(close(&previews, printed, err));
    }
    // What is protected is refused by each proxy itself, with what to do.
    if !choice.is_sure && (preview.preview.protected.is_empty() || wanted.force_protected) {
        // A closed terminal cannot be asked; then the answer is no.
        let _ = show_preview(&preview, err);
        let _ = warn_silent(&previews, err);
        confirmed(&format!("Isolate them on {} instances?", heard(&previews).count()), err)?;
    }
    wanted.dry_run = false;
    let done = each(at, |at| at.post::<Isolated>("/v1/isolations", &wanted))?;
    for (_, isolated) in heard(&done) {
        warn_not_kept(&isolated.kept, err);
    }
    let printed = for_programs(choice.output, &object(&done, json!({})), out);
    let name = quoted(&wanted.name);
    let printed = printed.and_then(|shown| if shown { Ok(()) } else { told(&done, &name, at, out) });
    Ok(close(&done, printed, err))
}

/// What it would hit, over all of them.
fn merged(previews: &[Answer<Isolated>]) -> Isolated {
    let mut all = Isolated::default();
    for (_, isolated) in heard(previews) {
        let Preview { clients, matching, near, protected } = &isolated.preview;
        all.isolation = isolated.isolation.clone();
        // The same clients come to each of them: the most that one has seen is the least that it can be.
        all.preview.matching = all.preview.matching.max(*matching);
        all.preview.near = all.preview.near.take().or_else(|| near.clone());
        for reason in protected {
            if !all.preview.protected.contains(reason) {
                all.preview.protected.push(reason.clone());
            }
        }
        for client in clients {
            match all.preview.clients.iter_mut().find(|known| known.user == client.user) {
                Some(known) => {
                    known.served_per_second += client.served_per_second;
                    known.shed_per_second += client.shed_per_second;
                }
                None => all.preview.clients.push(client.clone()),
            }
        }
    }
    all.preview.matching = all.preview.matching.max(all.preview.clients.len());
    all
}

fn warn_silent(previews: &[Answer<Isolated>], err: &mut dyn Write) -> io::Result<()> {
    for answer in previews {
        if let Err(failure) = &answer.said {
            let text = format!("! not on {}: {}", answer.name, failure.problem.message);
            writeln!(err, "{}", wrapped(&text, "  "))?;
        }
    }
    Ok(())
}

fn told(done: &[Answer<Isolated>], name: &str, at: &Where, out: &mut dyn Write) -> io::Result<()> {
    for (answer, isolated) in heard(done) {
        let view = &isolated.isolation;
        let left = span(view.remaining_seconds);
        writeln!(out, "{}  {} {} as {}, for {left}", name_of(answer), view.action, name, plain(&view.id))?;
    }
    writeln!(out, "see what it changes: spillway status{}", at.said())?;
    writeln!(out, "let go with: spillway release {name}{}", at.said())
}

/// `spillway release`. One that has nothing of that name in force is as it should be, as long as another had.
pub(in crate::cli) fn release(
    at: &Where,
    which: &str,
    output: Output,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<Ending, Failure> {
    let request = Release { which: which.to_owned() };
    let mut answers = each(at, |at| at.post::<Isolated>("/v1/isolations/release", &request))?;
    answers.retain(|answer| !is_not_in_force(answer));
    for (_, isolated) in heard(&answers) {
        warn_not_kept(&isolated.kept, err);
    }
    let printed = for_programs(output, &object(&answers, json!({})), out);
    let printed = printed.and_then(|done| {
        if done {
            return Ok(());
        }
        heard(&answers).try_for_each(|(answer, released)| {
            let view = &released.isolation;
            let name = quoted(&view.name);
            writeln!(
                out,
                "{}  released {name} ({}), {} refused",
                name_of(answer),
                plain(&view.id),
                view.refused
            )
        })
    });
    Ok(close(&answers, printed, err))
}

fn is_not_in_force(answer: &Answer<Isolated>) -> bool {
    answer.said.as_ref().is_err_and(|failure| failure.problem.code == code::NOT_IN_FORCE)
}

/// `spillway isolations`.
pub(in crate::cli) fn isolations(
    at: &Where,
    output: Output,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<Ending, Failure> {
    let answers = each(at, |at| at.get::<Isolations>("/v1/isolations"))?;
    let count = heard(&answers).map(|(_, said)| said.isolations.len()).sum::<usize>();
    let printed = for_programs(output, &object(&answers, json!({ "isolations": count })), out);
    let printed = printed.and_then(|done| if done { Ok(()) } else { table(&answers, out) });
    Ok(close(&answers, printed, err))
}

fn table(answers: &[Answer<Isolations>], out: &mut dyn Write) -> io::Result<()> {
    let all: Vec<(&Answer<Isolations>, &IsolationView)> = heard(answers)
        .flat_map(|(answer, said)| said.isolations.iter().map(move |view| (answer, view)))
        .collect();
    if all.is_empty() {
        return writeln!(out, "nobody is isolated");
    }
    writeln!(out, "INSTANCE      ID        ACTION   LEFT     REFUSED    PASSED  WHO, AND WHY")?;
    for (answer, view) in &all {
        writeln!(
            out,
            "{}  {:<8}  {:<7}  {:<6} {:>9} {:>9}",
            name_of(answer),
            fit(&view.id, 8),
            fit(&view.action, 7),
            span(view.remaining_seconds),
            view.refused,
            view.passed,
        )?;
        let forced = if view.forced { " (forced)" } else { "" };
        let who = format!("{} {}{forced}: {} ({})", view.kind, quoted(&view.name), view.reason, view.by);
        writeln!(out, "  {}", wrapped(&who, "    "))?;
    }
    let refused: u64 = all.iter().map(|(_, view)| view.refused).sum();
    writeln!(out, "{} in force on {} instances, {refused} refused", all.len(), heard(answers).count())?;
    // One that is in force somewhere and not elsewhere is the mistake that this table is for.
    for (_, view) in &all {
        let is_there = |said: &Isolations| {
            said.isolations.iter().any(|other| (&other.kind, &other.name) == (&view.kind, &view.name))
        };
        if let Some((missing, _)) = heard(answers).find(|(_, said)| !is_there(said)) {
            let text = format!("! {} is not isolated on {}", quoted(&view.name), missing.name);
            writeln!(out, "{}", wrapped(&text, "  "))?;
            let left = span(view.remaining_seconds);
            writeln!(
                out,
                "  → spillway isolate {} {} --to {} --for {left} --reason {}{}",
                view.kind,
                quoted(&view.name),
                view.action,
                quoted(&view.reason),
                missing.at.said()
            )?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{answers, printed};
    use super::*;
    use crate::admin::wire::ClientView;

    fn view(name: &str) -> IsolationView {
        IsolationView {
            id: "iso-3f2a".into(),
            kind: "serviceaccount".into(),
            name: name.into(),
            action: "penalty".into(),
            remaining_seconds: 1_798,
            reason: "lists all pods".into(),
            by: "uid 0".into(),
            refused: 40,
            ..IsolationView::default()
        }
    }

    #[test]
    fn what_is_in_force_on_some_only_is_found() {
        let answers = answers(
            [vec![view("obs/agent"), view("ci/runner")], vec![view("obs/agent")]]
                .map(|isolations| Isolations { isolations }),
        );
        super::super::super::golden::compare(
            "several-isolations",
            &printed(&answers, |out| table(&answers, out)),
        );
    }

    #[test]
    fn a_preview_of_several_adds_the_same_client_up() {
        let isolated = |served: f64, matching: usize, protected: &str| Isolated {
            isolation: view("obs/agent"),
            preview: Preview {
                clients: vec![ClientView {
                    user: "a".into(),
                    served_per_second: served,
                    ..ClientView::default()
                }],
                matching,
                near: None,
                protected: vec![protected.into()],
            },
            ..Isolated::default()
        };
        let answers = answers([isolated(1.0, 14, "x"), isolated(2.5, 3, "x")]);
        let Preview { clients, matching, protected, .. } = merged(&answers).preview;
        assert_eq!((clients.len(), clients[0].served_per_second, matching), (1, 3.5, 14));
        assert_eq!(protected, ["x"]);
        let text = printed(&answers, |out| warn_silent(&answers, out));
        assert!(text.starts_with("! not on cp-3: nobody answers"), "{text}");
    }
}

//! How does a command fit a narrow screen and still be the same command when it is copied?
//!
//! It goes on behind a backslash, which a shell takes away with the end of the line. Inside quotes it would stay, so a quoted
//! word is closed before and opened after; and a word that is broken goes on in the first column.

/// Columns before a command, and before its further lines.
const INDENT: usize = 2;
const DEEPER: usize = 4;

/// The lines of a command.
pub(super) fn broken(command: &str, width: usize) -> Vec<String> {
    // Two for the backslash and the space before it, the rest so that there is always something to show.
    let width = width.max(DEEPER + 12) - 2;
    let mut lines = vec![" ".repeat(INDENT)];
    let mut used = INDENT;
    for word in words(command) {
        let len = word.chars().count();
        let is_first = used == INDENT && lines.len() == 1;
        let gap = usize::from(!is_first);
        if used + gap + len > width && !is_first {
            if let Some(line) = lines.last_mut() {
                line.push_str(" \\");
            }
            lines.push(" ".repeat(DEEPER));
            used = DEEPER;
        } else if !is_first && let Some(line) = lines.last_mut() {
            line.push(' ');
            used += 1;
        }
        for (at, part) in parts(&word, width - used, width).into_iter().enumerate() {
            if at > 0 {
                if let Some(line) = lines.last_mut() {
                    line.push('\\');
                }
                lines.push(String::new());
                used = 0;
            }
            used += part.chars().count();
            if let Some(line) = lines.last_mut() {
                line.push_str(&part);
            }
        }
    }
    lines
}

/// Words as a shell sees them, with their quotes.
fn words(command: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut is_quoted = false;
    let mut chars = command.chars();
    while let Some(c) = chars.next() {
        if c == ' ' && !is_quoted {
            words.push(String::new());
            continue;
        }
        let Some(word) = words.last_mut() else { continue };
        word.push(c);
        match c {
            '\'' => is_quoted = !is_quoted,
            '\\' if !is_quoted => word.extend(chars.next()),
            _ => {}
        }
    }
    words
}

/// A word in parts of which the first has `first` characters at most and the others `width`.
fn parts(word: &str, first: usize, width: usize) -> Vec<String> {
    let inner = word.strip_prefix('\'').and_then(|word| word.strip_suffix('\''));
    match inner {
        _ if word.chars().count() <= first => vec![word.to_owned()],
        // A quote within is made of four characters that must not part: rare, and then the line is longer than the screen.
        Some(inner) if inner.contains('\'') => vec![word.to_owned()],
        Some(inner) => {
            let inner = cut(inner, first.saturating_sub(2).max(1), width.saturating_sub(2).max(1));
            inner.into_iter().map(|part| format!("'{part}'")).collect()
        }
        None => cut(word, first.max(1), width.max(1)),
    }
}

fn cut(text: &str, first: usize, width: usize) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let (head, rest) = chars.split_at(first.min(chars.len()));
    std::iter::once(head).chain(rest.chunks(width)).map(|part| part.iter().collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a real shell makes of it.
    fn read_by_a_shell(lines: &[String]) -> Vec<String> {
        let script = lines.join("\n").replacen("spillway", "printf '%s\\n' spillway", 1);
        let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        assert!(output.status.success(), "{script}");
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_shell_reads_the_same_words_whatever_the_width() {
        let name = "observability/opentelemetry-node-agent-of-a-very-long-name";
        let command = format!(
            "spillway isolate serviceaccount {name} --to deny --for 30m --reason 'lists all pods, from every node, and \
             is told to wait' --socket '/run/o'\\''clock'"
        );
        let wanted = [
            "spillway",
            "isolate",
            "serviceaccount",
            name,
            "--to",
            "deny",
            "--for",
            "30m",
            "--reason",
            "lists all pods, from every node, and is told to wait",
            "--socket",
            "/run/o'clock",
        ];
        for width in [20, 33, 40, 41, 79, 80, 120, 500] {
            let lines = broken(&command, width);
            assert_eq!(read_by_a_shell(&lines), wanted, "{width}: {lines:#?}");
            let mut unquoted = lines.iter().filter(|line| !line.contains("\\''"));
            assert!(unquoted.all(|line| line.chars().count() <= width), "{width}: {lines:#?}");
        }
    }
}

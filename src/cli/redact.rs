//! What must not leave a machine in a support bundle?
//!
//! Texts are searched for what looks like a secret, whatever file it stands in: private keys, tokens, and values behind
//! names that promise one. It removes rather too much: a bundle with a hole is still useful, one with a key is not.

use std::borrow::Cow;

/// What stands in place of a secret.
const REMOVED: &str = "[removed]";
/// Names whose value is one, by their end and in lower case.
const NAMES: [&str; 10] = [
    "token",
    "password",
    "passwd",
    "passphrase",
    "secret",
    "apikey",
    "api-key",
    "api_key",
    "authorization",
    "key-data",
];

/// The text without what looks like a secret.
pub(super) fn redacted(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut in_key = false;
    let mut in_command = false;
    for line in text.lines() {
        if line.contains("-----BEGIN") && line.contains("PRIVATE KEY") {
            // A key on one line, in JSON, ends on it as well.
            in_key = !line.contains("-----END");
            clean.push_str("[a private key was removed]\n");
            continue;
        }
        if in_key {
            in_key = !line.contains("-----END");
            continue;
        }
        let line = arguments(line, &mut in_command);
        clean.push_str(&values(&words(&line)));
        clean.push('\n');
    }
    clean
}

/// The words behind a program, which may be anything: `command: [/bin/page, --token, x]`, or one a line below.
fn arguments<'a>(line: &'a str, in_command: &mut bool) -> Cow<'a, str> {
    let trimmed = line.trim_start();
    if let Some((before, list)) = line.split_once("command:") {
        *in_command = list.trim().is_empty();
        if let Some((program, _)) = list.split_once(',') {
            let open = list.trim_start().starts_with('[');
            let close = if open { "]" } else { "" };
            let more = if line.trim_end().ends_with('}') { " }" } else { "" };
            return format!("{before}command:{program}, {REMOVED}{close}{more}").into();
        }
        return line.into();
    }
    if *in_command && trimmed.starts_with("- ") {
        if trimmed.starts_with("- /") {
            return line.into();
        }
        return format!("{}- {REMOVED}", &line[..line.len() - trimmed.len()]).into();
    }
    *in_command &= trimmed.is_empty();
    line.into()
}

/// Tokens that are known by their looks, and what follows `Bearer`.
fn words(line: &str) -> String {
    let is_end = |c: char| c.is_whitespace() || "\"',;(){}[]<>".contains(c);
    let mut clean = String::with_capacity(line.len());
    let mut rest = line;
    let mut after_bearer = false;
    while !rest.is_empty() {
        let end = rest.find(is_end).unwrap_or(rest.len());
        let (word, behind) = rest.split_at(end);
        let is_secret = after_bearer && !word.is_empty() || looks_like_a_token(word) || has_userinfo(word);
        clean.push_str(if is_secret { REMOVED } else { word });
        if !word.is_empty() {
            after_bearer = ["bearer", "basic"].contains(&word.to_ascii_lowercase().trim_end_matches(':'));
        }
        let mut next = behind.chars();
        clean.extend(next.next());
        rest = next.as_str();
    }
    clean
}

/// A JSON Web Token: three parts, of which the first two begin as `{"` does in base64.
fn looks_like_a_token(word: &str) -> bool {
    word.find("eyJ").is_some_and(|at| {
        let parts: Vec<&str> = word[at..].split('.').collect();
        parts.len() >= 2 && parts.iter().take(2).all(|part| part.len() >= 4)
    })
}

/// `https://user:password@host`.
fn has_userinfo(word: &str) -> bool {
    let authority = word.split_once("://").map(|(_, rest)| rest.split(['/', '?']).next().unwrap_or(rest));
    authority.is_some_and(|authority| authority.contains('@'))
}

/// Values behind names that promise a secret: `token: x`, `"password":"x"`, `token=x`.
fn values(line: &str) -> String {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let mut clean = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find([':', '=']) {
        let (before, behind) = rest.split_at(at + 1);
        clean.push_str(before);
        let name = before[..at].trim_end_matches(['"', '\'', ' ']);
        let name = &name[name.rfind(|c: char| !is_name(c)).map_or(0, |end| end + 1)..];
        let name = name.to_ascii_lowercase();
        let gap = behind.len() - behind.trim_start_matches([' ', '"', '\'']).len();
        let (gap, value) = behind.split_at(gap);
        clean.push_str(gap);
        rest = value;
        let is_nested = value.starts_with(['{', '[']) || value.is_empty();
        if !is_nested && NAMES.iter().any(|known| name.ends_with(known)) {
            let end = value.find([',', '"', '\'', '}', '&', ' ']).unwrap_or(value.len());
            clean.push_str(REMOVED);
            rest = &value[end..];
        }
    }
    clean.push_str(rest);
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_go_and_what_is_needed_stays() {
        for (text, expected) in [
            ("user=alice path=/api/v1/pods", "user=alice path=/api/v1/pods"),
            ("Authorization: Bearer abc.def", "Authorization: [removed] [removed]"),
            (r#"{"token":"s3cr3t","user":"alice"}"#, r#"{"token":"[removed]","user":"alice"}"#),
            ("GET /x?access_token=s3cr3t&limit=5", "GET /x?access_token=[removed]&limit=5"),
            ("got eyJhbGciOiJ.eyJpc3MiOiJ.c2ln here", "got [removed] here"),
            ("url: https://bob:pw@hooks.example/x", "url: [removed]"),
            (
                "  serviceAccountToken: { issuers: [https://a] }",
                "  serviceAccountToken: { issuers: [https://a] }",
            ),
            ("    keyFile: /etc/spillway/key.pem", "    keyFile: /etc/spillway/key.pem"),
            ("  onUse: { command: [/bin/page, --to, 4711] }", "  onUse: { command: [/bin/page, [removed]] }"),
            ("client-key-data: LS0tLS1C", "client-key-data: [removed]"),
            ("positiveTTL: 10s", "positiveTTL: 10s"),
        ] {
            assert_eq!(redacted(text).trim_end(), expected);
        }
        let list = "command:\n  - /bin/page\n  - s3cr3t\nstate: { dir: /x }";
        assert_eq!(redacted(list), "command:\n  - /bin/page\n  - [removed]\nstate: { dir: /x }\n");
        let key = "a\n-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE\n-----END EC PRIVATE KEY-----\nb";
        assert_eq!(redacted(key), "a\n[a private key was removed]\nb\n");
    }
}

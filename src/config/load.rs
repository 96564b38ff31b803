//! How do files become a configuration?
//!
//! Every file and document is read, then what several of them say together is checked, then the files they name.
//! Only when nothing is wrong is there a result: a configuration is taken whole or not at all.

use std::path::{Path, PathBuf};

use super::analyze;
use super::diagnostic::{Code, Diagnostic, Diagnostics, Severity};
use super::files::{self, FileUse};
use super::proxy::ProxyConfiguration;
use super::read_traffic::{PlacedRule, ReadPolicy};
use super::section::{Field, Reader, Section};
use super::separation;
use super::source::{Place, Source};
use super::traffic::{DEFAULT_POLICY_YAML, DefaultRules, TrafficPolicy};
use super::{read_proxy, read_traffic, yaml};
use crate::policy::RULES_MAX;

/// The only version there is.
pub const API_VERSION: &str = "config.spillway.dev/v1alpha1";

/// The name that findings about the embedded policy carry.
const EMBEDDED: &str = "config/policy.yaml (embedded)";

/// A configuration that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The plumbing, when one of the files has it. `run` needs it.
    pub proxy: Option<ProxyConfiguration>,
    /// The policy; the embedded one when no file has one.
    pub policy: TrafficPolicy,
    /// What the files contain, in order.
    pub documents: Vec<Document>,
    /// What is probably not meant.
    pub warnings: Diagnostics,
    /// The file that the policy stands in, and all of its text; nothing when it is the embedded one.
    pub policy_text: Option<PolicyText>,
}

/// A policy as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyText {
    /// The file, as it was named.
    pub file: String,
    /// Its text; other documents in it are not the policy's.
    pub text: String,
}

impl PolicyText {
    /// The policy that it has. Files that it names are not looked at.
    ///
    /// # Errors
    /// Every error and warning there is, when there is at least one error.
    pub fn policy(&self) -> Result<TrafficPolicy, Diagnostics> {
        let path = PathBuf::from(&self.file);
        let mut all = Gathered::default();
        all.read(&Source::new(&path, self.text.clone()));
        Ok(all.finish(&[path])?.policy)
    }
}

/// One document of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The file, as it was named.
    pub file: String,
    /// What it is.
    pub kind: DocumentKind,
}

/// What a document is, with the numbers of a summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DocumentKind {
    /// `kind: ProxyConfiguration`.
    ProxyConfiguration {
        /// Listeners, without break-glass.
        listeners: usize,
    },
    /// `kind: TrafficPolicy`.
    TrafficPolicy {
        /// Lanes that it changes.
        lanes: usize,
        /// Rules of its own.
        rules: usize,
        /// Default rules that follow.
        default_rules: usize,
    },
}

/// Whether the files that a configuration names are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileChecks {
    /// They must be there and hold what they should.
    On,
    /// They may be missing: for checking a configuration on another machine.
    Off,
}

/// Reads one or several files, and the files that they name.
///
/// # Errors
/// Every error and warning there is, when there is at least one error.
pub fn load(paths: &[PathBuf]) -> Result<Loaded, Diagnostics> {
    load_with(paths, FileChecks::On)
}

/// As [`load`], with a choice.
///
/// # Errors
/// As [`load`].
pub fn load_with(paths: &[PathBuf], checks: FileChecks) -> Result<Loaded, Diagnostics> {
    read_all(paths, checks).map(|(loaded, _)| loaded)
}

/// As [`load_with`] without a look at the named files, and the texts that were read.
pub(super) fn load_sources(paths: &[PathBuf]) -> Result<(Loaded, Vec<Source>), Diagnostics> {
    read_all(paths, FileChecks::Off)
}

fn read_all(paths: &[PathBuf], checks: FileChecks) -> Result<(Loaded, Vec<Source>), Diagnostics> {
    let mut all = Gathered::default();
    let sources: Vec<_> = paths.iter().filter_map(|path| all.found_by(source(path))).collect();
    for source in &sources {
        all.read(source);
    }
    if checks == FileChecks::On {
        let found = files::check(&all.files);
        all.found.extend(found);
        all.found.extend(separation::check(&all.files));
    }
    all.finish(paths).map(|loaded| (loaded, sources))
}

/// The policy that applies when nobody says anything.
///
/// # Errors
/// None in a released binary: a test reads the embedded file.
pub fn default_policy() -> Result<TrafficPolicy, Diagnostics> {
    let source = Source::new(Path::new(EMBEDDED), DEFAULT_POLICY_YAML.to_owned());
    let mut all = Gathered::default();
    all.read(&source);
    let errors = Diagnostics(std::mem::take(&mut all.found));
    match all.policy {
        Some((Some(policy), _)) if errors.0.is_empty() => Ok(complete(policy, vec![])),
        _ => Err(errors),
    }
}

fn source(path: &Path) -> Result<Source, Diagnostic> {
    let bytes = files::read_bounded(path).map_err(|error| {
        let (code, message, help) = files::describe(path, &error);
        Diagnostic::new(code, message).help(help)
    })?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Diagnostic::new(Code::Syntax, format!("{} is not UTF-8 text", path.display())))?;
    Ok(Source::new(path, text))
}

/// What was read so far. A document that could not be read keeps its place: the next of its kind is the second.
#[derive(Default)]
struct Gathered {
    proxy: Option<(Option<ProxyConfiguration>, Place)>,
    policy: Option<(Option<ReadPolicy>, Place)>,
    policy_text: Option<PolicyText>,
    documents: Vec<Document>,
    files: Vec<FileUse>,
    found: Vec<Diagnostic>,
}

impl Gathered {
    fn found_by<T>(&mut self, result: Result<T, Diagnostic>) -> Option<T> {
        result.map_err(|found| self.found.push(found)).ok()
    }

    fn read(&mut self, source: &Source) {
        let documents = yaml::documents(source).map_err(|error| {
            let found = Diagnostic::new(Code::Syntax, format!("this is not YAML: {}", error.message));
            match error.span {
                Some(span) => found.at(source.place(span)).label("reading stopped here"),
                None => found,
            }
        });
        let Some(documents) = self.found_by(documents) else { return };
        if documents.is_empty() {
            let found = Diagnostic::new(Code::EmptyFile, format!("{} has no document", source.name));
            self.found.push(found.help(format!("begin with `apiVersion: {API_VERSION}` and a `kind`")));
        }
        let reader = Reader::new(source);
        for node in &documents {
            reader.root(node).section(|section| self.document(source, section));
        }
        let (found, files) = reader.finish();
        self.found.extend(found);
        self.files.extend(files);
    }

    fn document(&mut self, source: &Source, section: &mut Section<'_>) -> Option<()> {
        let version = section.need("apiVersion", |field| api_version(&field));
        let kind_field = section.field("kind");
        let kind = section.need("kind", |field| {
            let kinds: [(&str, ReadKind); 2] =
                [("ProxyConfiguration", Self::proxy), ("TrafficPolicy", Self::traffic_policy)];
            kind(&field, &kinds)
        });
        let (Some(()), Some(read), Some(field)) = (version, kind, kind_field) else {
            section.leave_unread();
            return None;
        };
        read(self, section, &field, source);
        Some(())
    }

    fn proxy(&mut self, section: &mut Section<'_>, kind: &Field<'_>, source: &Source) {
        let read = read_proxy::read(section);
        if let Some((_, first)) = &self.proxy {
            return second_of_a_kind(kind, first);
        }
        if let Some(proxy) = &read {
            let kind = DocumentKind::ProxyConfiguration { listeners: proxy.listeners.len() };
            self.documents.push(Document { file: source.name.clone(), kind });
        }
        self.proxy = Some((read, kind.place()));
    }

    fn traffic_policy(&mut self, section: &mut Section<'_>, kind: &Field<'_>, source: &Source) {
        let read = read_traffic::read(section);
        if let Some((_, first)) = &self.policy {
            return second_of_a_kind(kind, first);
        }
        if let Some(policy) = &read {
            let (lanes, rules) = (policy.lanes_set, policy.rules.len());
            let kind = DocumentKind::TrafficPolicy { lanes, rules, default_rules: 0 };
            self.documents.push(Document { file: source.name.clone(), kind });
        }
        self.policy = Some((read, kind.place()));
        self.policy_text = Some(PolicyText { file: source.name.clone(), text: source.text.clone() });
    }

    fn finish(mut self, paths: &[PathBuf]) -> Result<Loaded, Diagnostics> {
        let default = match default_policy() {
            Ok(policy) => Some(policy),
            Err(errors) => {
                self.found.extend(errors.0);
                None
            }
        };
        let policy = match (self.policy.take(), default) {
            (Some((Some(policy), place)), Some(default)) => Some(self.add_defaults(policy, default, place)),
            (None, default) => default,
            _ => None,
        };
        let found = in_order(self.found, paths);
        match policy {
            Some(policy) if found.errors() == 0 => {
                let proxy = self.proxy.and_then(|(proxy, _)| proxy);
                let (documents, policy_text) = (self.documents, self.policy_text);
                Ok(Loaded { proxy, policy, documents, warnings: found, policy_text })
            }
            _ => Err(found),
        }
    }

    fn add_defaults(&mut self, policy: ReadPolicy, default: TrafficPolicy, place: Place) -> TrafficPolicy {
        let default = match policy.default_rules {
            DefaultRules::Append => default.rules,
            DefaultRules::Omit => vec![],
        };
        self.found.extend(double_names(&policy.rules, &default));
        self.found.extend(analyze::unreachable(&policy.rules));
        let count = policy.rules.len() + default.len();
        if count > RULES_MAX {
            self.found.push(
                Diagnostic::new(
                    Code::TooMany,
                    format!("{count} rules, {} of them default rules", default.len()),
                )
                .at(place)
                .label(format!("at most {RULES_MAX} are possible"))
                .help("name several subjects in one rule, or set `defaultRules: Omit`"),
            );
        }
        for document in &mut self.documents {
            if let DocumentKind::TrafficPolicy { default_rules, .. } = &mut document.kind {
                *default_rules = default.len();
            }
        }
        complete(policy, default)
    }
}

/// Reads the rest of a document, once its kind is known.
type ReadKind = fn(&mut Gathered, &mut Section<'_>, &Field<'_>, &Source);

fn complete(policy: ReadPolicy, default: Vec<crate::policy::Rule>) -> TrafficPolicy {
    let own = policy.rules.into_iter().map(|placed| placed.rule);
    TrafficPolicy {
        name: policy.name,
        lanes: policy.lanes,
        rules: own.chain(default).collect(),
        overload: policy.overload,
        enforcement: policy.enforcement.0,
        rollout: policy.enforcement.1,
        newcomers: policy.newcomers,
    }
}

fn double_names(rules: &[PlacedRule], default: &[crate::policy::Rule]) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for (at, PlacedRule { rule, place }) in rules.iter().enumerate() {
        let first = rules[..at].iter().find(|other| other.rule.name == rule.name);
        let note = match first {
            Some(first) => format!("the first is in line {}", first.place.line),
            None if default.iter().any(|other| other.name == rule.name) => {
                "the other is a default rule".to_owned()
            }
            None => continue,
        };
        found.push(
            Diagnostic::new(Code::DuplicateName, format!("two rules have the name {:?}", rule.name))
                .at(place.clone())
                .label("the second of them")
                .note(note),
        );
    }
    found
}

fn second_of_a_kind(kind: &Field<'_>, first: &Place) {
    let message = format!("a second {} document", kind.clone().text().unwrap_or_default());
    kind.report_with(Code::DuplicateKind, message, "only one can apply", |diagnostic| {
        diagnostic.note(format!("the first is at {}:{}", first.file, first.line))
    });
}

fn api_version(field: &Field<'_>) -> Option<()> {
    let version = field.clone().text()?;
    if version == API_VERSION {
        return Some(());
    }
    let message = format!("{version:?} is no version that this binary knows");
    field.report(Code::ApiVersion, message, format!("expected {API_VERSION}"));
    None
}

fn kind(field: &Field<'_>, kinds: &[(&str, ReadKind)]) -> Option<ReadKind> {
    let text = field.clone().text()?;
    if let Some((_, read)) = kinds.iter().find(|(kind, _)| *kind == text) {
        return Some(*read);
    }
    let known: Vec<_> = kinds.iter().map(|(kind, _)| *kind).collect();
    let label = format!("expected {}", known.join(" or "));
    field.report_with(
        Code::Kind,
        format!("{text:?} is no kind that this binary knows"),
        label,
        |diagnostic| diagnostic.did_you_mean(text, known),
    );
    None
}

/// By file as given, then line, then column; errors before warnings at the same place.
fn in_order(mut found: Vec<Diagnostic>, paths: &[PathBuf]) -> Diagnostics {
    let file = |place: &Place| paths.iter().position(|path| path.display().to_string() == place.file);
    found.sort_by_key(|found| {
        let place = found.place.as_ref();
        (
            place.and_then(file),
            place.map(|place| (place.line, place.column)),
            found.severity() == Severity::Warning,
        )
    });
    Diagnostics(found)
}

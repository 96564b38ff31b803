//! What is wrong, where, and what would be right?
//!
//! Codes are stable and never reused; their hundreds say of what kind the trouble is: 01 sizes, 02 references,
//! 03 reachability, 04 security, 05 break-glass, 06 TLS and files, 07 rollout,
//! 09 schema.

use std::fmt;

use super::source::Place;

/// One finding about a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// What kind of finding it is.
    pub code: Code,
    /// Lower case, no trailing stop.
    pub message: String,
    /// Where; absent when it is about no place in a file.
    pub place: Option<Place>,
    /// What stands at the place, or what was expected there: shown under the excerpt.
    pub label: String,
    /// Further facts, such as the values that are possible.
    pub notes: Vec<String>,
    /// What to try.
    pub help: Option<String>,
}

impl Diagnostic {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), place: None, label: String::new(), notes: vec![], help: None }
    }

    pub(super) fn at(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    pub(super) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    pub(super) fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds `did you mean …?` when one of `known` looks like `given`.
    pub(super) fn did_you_mean<'a>(self, given: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        match nearest(given, known) {
            Some(near) => self.help(format!("did you mean {near:?}?")),
            None => self,
        }
    }

    /// Whether it forbids the configuration.
    #[must_use]
    pub fn severity(&self) -> Severity {
        self.code.severity()
    }
}

/// The known word that `given` most likely was meant to be: at most a third of it mistyped.
#[must_use]
pub fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = given.to_lowercase();
    let distance = |word: &str| strsim::damerau_levenshtein(&lower, &word.to_lowercase());
    let near = known.into_iter().min_by_key(|word| distance(word))?;
    (distance(near) <= (given.chars().count() / 3).max(1)).then_some(near)
}

/// Findings, in the order of files and lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl Diagnostics {
    /// How many are errors.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.0.iter().filter(|found| found.severity() == Severity::Error).count()
    }

    /// How many are warnings.
    #[must_use]
    pub fn warnings(&self) -> usize {
        self.0.len() - self.errors()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&super::render::human(self, super::render::Colour::Never))
    }
}

impl std::error::Error for Diagnostics {}

/// Whether a finding forbids the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can, but probably does not do what was meant.
    Warning,
}

impl Severity {
    /// `error` or `warning`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])+ $name:ident = $number:literal $severity:ident,)+) => {
        /// What kind of finding it is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $($(#[$doc])+ $name,)+
        }

        impl Code {
            /// All codes, in order.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// `SPW` and four digits.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => concat!("SPW", $number),)+
                }
            }

            /// Whether it forbids the configuration.
            #[must_use]
            pub const fn severity(self) -> Severity {
                match self {
                    $(Self::$name => Severity::$severity,)+
                }
            }
        }
    };
}

codes! {
    /// A number, time or size lies outside its range.
    OutOfRange = "0101" Error,
    /// The lanes' floors promise more than there is.
    FloorsExceedLimit = "0102" Error,
    /// Two sizes contradict each other.
    Contradiction = "0103" Error,
    /// A list has too many entries.
    TooMany = "0104" Error,
    /// A list needs an entry.
    Empty = "0105" Error,
    /// A lane would have no seat of its own once the limit is at its least.
    LaneWithoutSeats = "0106" Error,
    /// The memory budget is less than one ordinary answer takes.
    MemoryBelowPage = "0107" Error,
    /// Refusals would be kept back for longer than clients wait for an answer.
    HoldTooLong = "0108" Error,
    /// A smaller thing may take longer than a larger one.
    ObjectivesOutOfOrder = "0109" Error,
    /// Two things have the same name.
    DuplicateName = "0201" Error,
    /// Two listeners have the same address.
    DuplicateAddress = "0202" Error,
    /// Two documents of a kind.
    DuplicateKind = "0203" Error,
    /// No lane has this name.
    UnknownLane = "0204" Error,
    /// A rule that can never match.
    UnreachableRule = "0311" Warning,
    /// A rule or setting tries to open the break-glass lane.
    BreakGlassByRule = "0401" Error,
    /// A user agent, which the client chooses, would raise.
    UserAgentRaises = "0402" Error,
    /// A rule gives a health check a lane.
    HealthPathInLane = "0403" Error,
    /// A whole namespace is promoted.
    NamespacePromoted = "0404" Warning,
    /// Everyone is promoted.
    EveryonePromoted = "0405" Warning,
    /// Verified certificates could not be named to kube-apiserver.
    NoFrontProxy = "0406" Error,
    /// Every client of the cluster could use the break-glass lane.
    BreakGlassClientCa = "0407" Error,
    /// There is no break-glass lane.
    NoBreakGlass = "0408" Warning,
    /// Service-account tokens are not verified, so every pod ranks as unknown.
    TokensUnverified = "0409" Warning,
    /// Whoever has a client certificate of the cluster could say who somebody else is.
    FrontProxyOfClientCa = "0410" Error,
    /// A CEL expression, which only kube-apiserver evaluates.
    ExpressionUnsupported = "0411" Error,
    /// An issuer's tokens would be verified in two ways.
    IssuerTwice = "0412" Error,
    /// Tokens cannot be reviewed without an identity of spillway's own.
    ReviewWithoutFrontProxy = "0413" Error,
    /// Conditions for anonymous callers, who are switched off.
    AnonymousConditions = "0414" Error,
    /// Spillway could not even start within its memory limit.
    MemoryTooSmall = "0450" Error,
    /// Who armed the break-glass lane would be forgotten.
    ArmingForgotten = "0501" Warning,
    /// A file is not there.
    FileMissing = "0601" Error,
    /// A file cannot be read.
    FileUnreadable = "0602" Error,
    /// A file does not hold what it should.
    FileContent = "0603" Error,
    /// A file is larger than anything it could be.
    FileTooLarge = "0604" Error,
    /// Others than its owner may read or change a private key.
    KeyExposed = "0605" Error,
    /// The steps of a rollout do not rise.
    StepsNotRising = "0750" Error,
    /// A step of a rollout would be over before anything has judged it.
    StepUnjudged = "0751" Error,
    /// It is not YAML.
    Syntax = "0901" Error,
    /// There is no document.
    EmptyFile = "0902" Error,
    /// Another or no `apiVersion`.
    ApiVersion = "0903" Error,
    /// Another or no `kind`.
    Kind = "0904" Error,
    /// There is no such key.
    UnknownKey = "0905" Error,
    /// A key is needed.
    MissingKey = "0906" Error,
    /// A value of another type is needed.
    WrongType = "0907" Error,
    /// Not one of the possible words.
    UnknownWord = "0908" Error,
    /// A text that cannot be read as what it should be.
    Malformed = "0909" Error,
    /// A key stands twice.
    DuplicateKey = "0910" Error,
    /// Conditions that no request can meet together.
    NeverMatches = "0911" Error,
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_in_order() {
        assert!(Code::ALL.windows(2).all(|pair| pair[0].as_str() < pair[1].as_str()));
        assert!(Code::ALL.iter().all(|code| code.as_str().len() == 7));
    }

    #[test]
    fn only_near_words_are_suggested() {
        assert_eq!(nearest("telemtry", ["workload", "telemetry"]), Some("telemetry"));
        assert_eq!(nearest("certfile", ["certFile", "keyFile"]), Some("certFile"));
        assert_eq!(nearest("batch", ["workload", "telemetry"]), None);
    }
}

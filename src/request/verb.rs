//! What does the request want to do?

use std::fmt;

/// A Kubernetes verb for resources, the method in lower case for plain paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are Kubernetes' own verbs and HTTP's own methods")]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
    /// The legacy path prefix.
    Proxy,
    /// Of plain paths only, as the next three: the methods that are no verbs.
    Post,
    Put,
    Head,
    Options,
    /// A resource asked for by a method that Kubernetes gives no verb: the empty string.
    None,
    /// A plain path asked for by any other method; kube-apiserver keeps the method's own text.
    Other,
}

impl Verb {
    /// Every verb.
    pub const ALL: [Self; 15] = [
        Self::Get,
        Self::List,
        Self::Watch,
        Self::Create,
        Self::Update,
        Self::Patch,
        Self::Delete,
        Self::DeleteCollection,
        Self::Proxy,
        Self::Post,
        Self::Put,
        Self::Head,
        Self::Options,
        Self::None,
        Self::Other,
    ];

    /// The word that rules, metrics and logs use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
            Self::Proxy => "proxy",
            Self::Post => "post",
            Self::Put => "put",
            Self::Head => "head",
            Self::Options => "options",
            Self::None => "",
            Self::Other => "other",
        }
    }

    /// The verb of `method` on a resource, before the query is looked at.
    pub(super) fn of_resource(method: &str) -> Self {
        match method {
            "GET" | "HEAD" => Self::Get,
            "POST" => Self::Create,
            "PUT" => Self::Update,
            "PATCH" => Self::Patch,
            "DELETE" => Self::Delete,
            _ => Self::None,
        }
    }

    /// The verb of `method` on a plain path: the method in lower case, so an invented method can spell any verb, and
    /// kube-apiserver then treats the request as that verb (`WATCH /x` has no deadline there).
    pub(super) fn of_path(method: &str) -> Self {
        match method {
            "GET" => Self::Get,
            "POST" => Self::Post,
            _ => {
                let spelt = |verb: &Self| verb.as_str().eq_ignore_ascii_case(method);
                Self::ALL.into_iter().find(spelt).unwrap_or(Self::Other)
            }
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

//! What did the operator ask for, and is it sane?
//!
//! Two kinds of document, in one or several YAML files: `ProxyConfiguration` ([`ProxyConfiguration`]) is plumbing,
//! `TrafficPolicy` ([`TrafficPolicy`]) is who goes first. [`load()`] reads files, fills in defaults and checks
//! everything, or reports every mistake at once, each with its place and what to try. Defaults live in the types.
//!
//! From text to types: `yaml` gives a tree with places, `section` reads it and collects mistakes, `read_proxy` and
//! `read_traffic` know the keys, `analyze` judges rules, `files` looks at the files that are named,
//! and `separation` at which CA has signed what. The way back, with every default filled in, is `effective`.
//!
//! Left out: behaviour, and the other contents of certificates and keys.

mod admin;
mod analyze;
mod authentication;
mod diagnostic;
mod effective;
mod files;
mod learn;
mod load;
mod proxy;
mod quantity;
mod read_admin;
mod read_authentication;
mod read_enforcement;
mod read_newcomers;
mod read_overload;
mod read_proxy;
mod read_traffic;
mod render;
mod schema;
mod schema_text;
mod section;
mod separation;
mod source;
mod traffic;
mod yaml;

#[cfg(test)]
mod tests;

pub use admin::*;
pub use authentication::*;
pub use diagnostic::{Code, Diagnostic, Diagnostics, Severity, nearest};
pub use effective::{Change, Difference, Effective, Tree, compare, effective, effective_policy};
pub use load::{
    API_VERSION, Document, DocumentKind, FileChecks, Loaded, PolicyText, default_policy, load, load_with,
};
pub use proxy::*;
pub use quantity::{duration as parse_duration, show_duration};
pub use render::{Colour, human, json};
pub use schema::{schema, undescribed};
pub use source::Place;
pub use traffic::*;

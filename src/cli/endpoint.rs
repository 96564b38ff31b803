//! Where does a proxy answer, and which others are there?
//!
//! One is named on the command line, several there or in a file that every control-plane node may have. Nothing is looked up
//! at kube-apiserver: in the incident this is for, it does not answer.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Ending;
use super::socket::Failure;
use crate::admin::wire::{Problem, code};

/// Where the other instances stand, unless it is said.
pub(super) const FILE: &str = "/etc/spillway/instances.yaml";
/// Instances that are asked at a time. A control plane has three or five.
const INSTANCES_MAX: usize = 64;
/// Bytes of the file.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// Characters of a name, so that it fits a column.
const NAME_CHARS_MAX: usize = 40;

/// Where one proxy answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// Its admin socket.
    Unix(PathBuf),
}

impl Endpoint {
    /// As it is typed.
    pub(super) fn url(&self) -> String {
        match self {
            Self::Unix(path) => format!("unix://{}", path.display()),
        }
    }

    /// What to call it where nobody gave it a name: the last part that tells it apart.
    fn name(&self) -> String {
        match self {
            Self::Unix(path) => path.display().to_string(),
        }
    }
}

/// An endpoint on the command line.
pub(super) fn parse(text: &str) -> Result<Endpoint, String> {
    let path = text.strip_prefix("unix://").map(PathBuf::from).filter(|path| path.is_absolute());
    path.map(Endpoint::Unix).ok_or_else(|| "expected unix:///PATH of an admin socket".to_owned())
}

/// A proxy and what it is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Instance {
    pub(super) name: String,
    pub(super) endpoint: Endpoint,
}

impl Instance {
    pub(super) fn unnamed(endpoint: &Endpoint) -> Self {
        Self { name: endpoint.name(), endpoint: endpoint.clone() }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Instances {
    instances: Vec<Named>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: String,
    endpoint: String,
}

/// The instances that a file names, in its order.
pub(super) fn from_file(path: &Path) -> Result<Vec<Instance>, Failure> {
    let shown = path.display();
    read(path).map_err(|why| {
        let message = format!("{shown} does not name the instances: {why}");
        let help = "expected: instances: [{name: cp-1, endpoint: \"unix:///run/spillway/admin.sock\"}]; or name each \
                    with --endpoint";
        Failure::new(Ending::Config, Problem::new(code::INSTANCES, message, help))
    })
}

fn read(path: &Path) -> Result<Vec<Instance>, String> {
    let mut text = String::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("it has more than {FILE_BYTES_MAX} bytes"));
    }
    let Instances { instances } = serde_saphyr::from_str(&text).map_err(|error| error.to_string())?;
    if instances.is_empty() || instances.len() > INSTANCES_MAX {
        return Err(format!("it names {} instances, not 1 to {INSTANCES_MAX}", instances.len()));
    }
    let mut names = HashSet::new();
    instances
        .into_iter()
        .map(|Named { name, endpoint }| {
            if name.is_empty() || name.chars().count() > NAME_CHARS_MAX || name.chars().any(char::is_control)
            {
                return Err(format!("{name:?} is no name of 1 to {NAME_CHARS_MAX} characters"));
            }
            if !names.insert(name.clone()) {
                return Err(format!("two are called {name:?}"));
            }
            let endpoint = parse(&endpoint).map_err(|why| format!("{name}: {endpoint:?}: {why}"))?;
            Ok(Instance { name, endpoint })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("instances.yaml");
        std::fs::write(&path, text).unwrap();
        match from_file(&path) {
            Ok(instances) => format!("{instances:?}"),
            Err(failure) => {
                assert_eq!(
                    (failure.ending, failure.problem.code.as_str()),
                    (Ending::Config, code::INSTANCES)
                );
                failure.problem.message
            }
        }
    }

    #[test]
    fn a_file_names_the_instances_and_every_mistake_in_it_is_told() {
        let good = "instances:\n- {name: cp-1, endpoint: \"unix:///run/spillway/admin.sock\"}\n";
        assert_eq!(said(good), "[Instance { name: \"cp-1\", endpoint: Unix(\"/run/spillway/admin.sock\") }]");
        for (text, why) in [
            ("instances: []", "0 instances"),
            ("instance: []", "unknown field"),
            ("instances: [{name: a, endpoint: http://x}]", "expected unix:///PATH"),
            ("instances: [{name: a, endpoint: unix://x}]", "expected unix:///PATH"),
            ("instances: [{name: '', endpoint: unix:///x}]", "no name"),
            ("instances: [{name: a, endpoint: unix:///x}, {name: a, endpoint: unix:///y}]", "two are called"),
            ("][", "does not name the instances"),
        ] {
            assert!(said(text).contains(why), "{text}: {}", said(text));
        }
        let many = format!("# {}\n{good}", "x".repeat(70_000));
        assert!(said(&many).contains("more than"), "{}", said(&many));
        let missing = from_file(Path::new("/nowhere/instances.yaml")).unwrap_err();
        assert!(missing.problem.message.contains("No such file"), "{}", missing.problem.message);
    }
}

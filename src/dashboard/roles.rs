//! Which role has somebody whose certificate names these groups?
//!
//! The highest that one of them gives; none gives none. Groups come from a certificate that was verified here, and from
//! nowhere else: whoever answers at the apiserver does not matter, and need not answer.

use super::access::Role;

/// Roles, highest first.
const ROLES: [Role; 3] = [Role::Admin, Role::Operator, Role::Viewer];
/// Groups that are repeated to whoever is refused.
const TOLD_MAX: usize = 8;

/// The groups that have a role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    /// In the order of [`Role`].
    groups: [Vec<String>; 3],
}

impl Roles {
    /// Groups of viewers, operators and admins.
    #[must_use]
    pub const fn new(groups: [Vec<String>; 3]) -> Self {
        Self { groups }
    }

    /// The highest role that one of these groups has.
    #[must_use]
    pub fn of(&self, groups: &[String]) -> Option<Role> {
        ROLES.into_iter().find(|role| groups.iter().any(|group| self.groups[*role as usize].contains(group)))
    }

    /// Who has a role, or a higher one: `the group a has`, `the groups a, b have`, `nobody has`.
    pub(super) fn whose(&self, role: Role) -> String {
        let groups: Vec<&str> = ROLES
            .into_iter()
            .filter(|other| *other >= role)
            .flat_map(|other| self.groups[other as usize].iter().map(String::as_str))
            .collect();
        match groups[..] {
            [] => "nobody has".to_owned(),
            [one] => format!("the group {one} has"),
            _ => format!("the groups {} have", some(&groups)),
        }
    }
}

/// The first of many.
pub(super) fn some(groups: &[impl AsRef<str>]) -> String {
    let shown: Vec<&str> = groups.iter().take(TOLD_MAX).map(AsRef::as_ref).collect();
    let more = groups.len().saturating_sub(TOLD_MAX);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{rest}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_highest_role_counts_and_no_group_gives_none() {
        let roles = Roles::new([names(&["all"]), names(&["oncall"]), names(&["masters"])]);
        assert_eq!(roles.of(&names(&["all"])), Some(Role::Viewer));
        assert_eq!(roles.of(&names(&["all", "oncall"])), Some(Role::Operator));
        assert_eq!(roles.of(&names(&["masters", "all"])), Some(Role::Admin));
        assert_eq!(roles.of(&names(&["system:nodes", "system:authenticated"])), None);
        assert_eq!(roles.of(&[]), None);
        assert_eq!(Roles::default().of(&names(&["masters"])), None);
        assert_eq!(roles.whose(Role::Admin), "the group masters has");
        assert_eq!(roles.whose(Role::Operator), "the groups masters, oncall have");
        assert_eq!(Roles::default().whose(Role::Viewer), "nobody has");
        let many: Vec<String> = (0..10).map(|number| number.to_string()).collect();
        assert_eq!(some(&many), "0, 1, 2, 3, 4, 5, 6, 7 and 2 more");
    }
}

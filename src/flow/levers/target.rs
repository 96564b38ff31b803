//! Whom can a lever name? Users, groups, service accounts, whole namespaces of them, and addresses.
//!
//! Names are exact: a pattern that a tired person types at three in the morning names more than was meant. What a name
//! is compared with was verified; an address is the connection's own, and so the one thing that also names callers
//! whose credential nobody here can check.

use std::fmt;

use core::net::IpAddr;

use crate::identity::Identity;

/// Bytes of a name: a service account's full name has at most 341.
const NAME_BYTES_MAX: usize = 341;

/// Whom a lever names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// One user name.
    User(String),
    /// Everybody in a group.
    Group(String),
    /// One service account.
    ServiceAccount {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// Every service account of a namespace.
    Namespace(String),
    /// Everybody who connects from these addresses.
    Cidr(Cidr),
}

/// The text names nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotATarget {
    /// There is no such kind.
    #[error("{0:?} is no kind of client: expected user, group, serviceaccount, namespace or cidr")]
    Kind(String),
    /// The name is not one of its kind.
    #[error("{name:?} is no {kind}: expected {expected}")]
    Name {
        /// The kind.
        kind: &'static str,
        /// What was given, cut.
        name: String,
        /// What was expected.
        expected: &'static str,
    },
}

impl Target {
    /// The kinds, as the command line calls them.
    pub const KINDS: [&'static str; 5] = ["user", "group", "serviceaccount", "namespace", "cidr"];

    /// Reads a kind and a name.
    ///
    /// # Errors
    /// [`NotATarget`] says what was expected.
    ///
    /// ```
    /// use spillway::flow::levers::Target;
    ///
    /// let target = Target::parse("serviceaccount", "obs/agent").unwrap();
    /// assert_eq!(target.to_string(), "serviceaccount obs/agent");
    /// assert!(Target::parse("serviceaccount", "agent").is_err(), "it needs its namespace");
    /// ```
    pub fn parse(kind: &str, name: &str) -> Result<Self, NotATarget> {
        let wrong = |kind, expected| {
            let name = name.chars().take(80).collect();
            NotATarget::Name { kind, name, expected }
        };
        let is_plain = |name: &str| {
            !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.chars().any(char::is_control)
        };
        let is_label = |name: &str| is_plain(name) && !name.contains([':', '/', ' ']);
        match kind {
            "user" if is_plain(name) => Ok(Self::User(name.to_owned())),
            "user" => Err(wrong("user", "a user name of at most 341 bytes, without control characters")),
            "group" if is_plain(name) => Ok(Self::Group(name.to_owned())),
            "group" => Err(wrong("group", "a group of at most 341 bytes, without control characters")),
            "namespace" if is_label(name) => Ok(Self::Namespace(name.to_owned())),
            "namespace" => Err(wrong("namespace", "the name of a namespace, such as obs")),
            "serviceaccount" => match name.split_once('/') {
                Some((namespace, name)) if is_label(namespace) && is_label(name) => {
                    Ok(Self::ServiceAccount { namespace: namespace.to_owned(), name: name.to_owned() })
                }
                _ => Err(wrong("serviceaccount", "NAMESPACE/NAME, such as obs/node-agent")),
            },
            "cidr" => Cidr::parse(name).map(Self::Cidr).ok_or_else(|| {
                wrong("cidr", "an address or a network without host bits, such as 10.1.0.0/16")
            }),
            _ => Err(NotATarget::Kind(kind.chars().take(80).collect())),
        }
    }

    /// One of [`Target::KINDS`].
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::User(_) => "user",
            Self::Group(_) => "group",
            Self::ServiceAccount { .. } => "serviceaccount",
            Self::Namespace(_) => "namespace",
            Self::Cidr(_) => "cidr",
        }
    }

    /// The name, as [`Target::parse`] takes it.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::User(name) | Self::Group(name) | Self::Namespace(name) => name.clone(),
            Self::ServiceAccount { namespace, name } => format!("{namespace}/{name}"),
            Self::Cidr(cidr) => cidr.to_string(),
        }
    }

    /// Whether this caller is named.
    #[must_use]
    pub fn names(&self, identity: &Identity, peer: IpAddr) -> bool {
        match self {
            Self::User(user) => identity.user == *user,
            Self::Group(group) => identity.groups.iter().any(|own| own == group),
            Self::ServiceAccount { namespace, name } => {
                identity.service_account() == Some((namespace.as_str(), name.as_str()))
            }
            Self::Namespace(namespace) => {
                identity.service_account().is_some_and(|(own, _)| own == namespace.as_str())
            }
            Self::Cidr(cidr) => cidr.contains(peer),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind(), self.name())
    }
}

/// A network of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr {
    address: IpAddr,
    bits: u8,
}

impl Cidr {
    /// Reads `ADDRESS/BITS`, or an address alone. Host bits must be zero: `10.1.2.3/16` may mean one host or 65,536.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) =
            text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().ok()?;
        let width = width(address);
        let bits = match bits {
            Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => bits.parse().ok()?,
            Some(_) => return None,
            None => width,
        };
        let cidr = Self { address, bits };
        (bits <= width && cidr.network(address) == number(address)).then_some(cidr)
    }

    /// Whether an address is in it. IPv4 inside IPv6 counts as the IPv4 that it is.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        width(address) == width(self.address) && self.network(address) == number(self.address)
    }

    /// Bits that are fixed.
    #[must_use]
    pub const fn bits(&self) -> u8 {
        self.bits
    }

    /// Whether it reaches beyond what one site has: half of the Internet, or all of it.
    #[must_use]
    pub fn is_vast(&self) -> bool {
        self.bits < if self.address.is_ipv4() { 8 } else { 32 }
    }

    /// Whether this machine is in it.
    #[must_use]
    pub fn has_loopback(&self) -> bool {
        self.contains(IpAddr::from([127, 0, 0, 1])) || self.contains(IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]))
    }

    fn network(&self, address: IpAddr) -> u128 {
        let host = width(address) - self.bits.min(width(address));
        number(address).checked_shr(host.into()).and_then(|high| high.checked_shl(host.into())).unwrap_or(0)
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn networks_are_read_strictly() {
        for good in ["10.1.0.0/16", "0.0.0.0/0", "::/0", "10.1.2.3", "fd00::/8", "10.1.2.3/32"] {
            assert!(Cidr::parse(good).is_some(), "{good}");
        }
        for bad in ["10.1.2.3/16", "10.1.0.0/33", "10.1.0.0/+8", "10.1.0.0/", "/8", "", "host", "fd00::/129"]
        {
            assert!(Cidr::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn an_address_in_ipv6_clothes_is_the_same_address() {
        let cidr = Cidr::parse("10.1.0.0/16").unwrap();
        assert!(cidr.contains("10.1.255.1".parse().unwrap()));
        assert!(cidr.contains("::ffff:10.1.2.3".parse().unwrap()));
        assert!(!cidr.contains("10.2.0.1".parse().unwrap()));
        assert!(!Cidr::parse("::/0").unwrap().contains("10.1.2.3".parse().unwrap()));
        assert!(Cidr::parse("127.0.0.0/8").unwrap().has_loopback());
        assert!(Cidr::parse("0.0.0.0/0").unwrap().is_vast() && !cidr.is_vast());
    }

    #[test]
    fn mistakes_say_what_was_expected() {
        let error = |kind, name| Target::parse(kind, name).unwrap_err().to_string();
        assert_eq!(
            error("serviceacount", "a/b"),
            "\"serviceacount\" is no kind of client: expected user, group, serviceaccount, namespace or cidr"
        );
        assert_eq!(
            error("serviceaccount", "agent"),
            "\"agent\" is no serviceaccount: expected NAMESPACE/NAME, such as obs/node-agent"
        );
        assert!(error("user", "a\nb").contains("without control characters"));
        assert!(error("namespace", "obs/agent").contains("the name of a namespace"));
    }

    proptest! {
        #[test]
        fn a_network_contains_what_shares_its_bits(address: u32, other: u32, bits in 0_u8..=32) {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            let cidr = Cidr { address: IpAddr::V4((address & mask).into()), bits };
            prop_assert_eq!(Cidr::parse(&cidr.to_string()), Some(cidr));
            prop_assert!(cidr.contains(IpAddr::V4(address.into())));
            prop_assert_eq!(cidr.contains(IpAddr::V4(other.into())), other & mask == address & mask);
        }
    }
}

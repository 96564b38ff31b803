//! How does `admin` of a ProxyConfiguration become its type?
//!
//! The sockets, the address for whoever is elsewhere, and the roles of those who come there.

use super::admin::{AdminHttps, AdminRoles};
use super::diagnostic::{Code, Diagnostic};
use super::proxy::{Admin, Dashboard, ProxyConfiguration};
use super::read_proxy::{ENTRIES_MAX, certificate_files};
use super::section::{Field, Section};

/// Bytes of a DNS name.
const NAME_BYTES_MAX: usize = 253;

pub(super) fn admin(section: &mut Section<'_>) -> Option<Admin> {
    let socket = section.or("socket", Admin::default().socket, socket_path);
    let beside = Dashboard::beside(socket.as_deref());
    let dashboard = section.or("dashboard", beside.clone(), |field| {
        field.section(|section| {
            let own = section.field("socket");
            let path = section.or("socket", beside.socket, socket_path);
            if let Some(field) = own
                && path.is_some()
                && path == socket
            {
                let message = format!("`{}` is `admin.socket`: each needs a file of its own", field.path());
                field.report(Code::Contradiction, message, "choose another file in the same folder");
            }
            Some(Dashboard { socket: path })
        })
    });
    let https = section.maybe("https", |field| field.section(https));
    let roles = section.or("roles", AdminRoles::default(), |field| field.section(roles));
    Some(Admin { socket, dashboard, https, roles })
}

/// A path the kernel takes, or the word that there is none.
fn socket_path(field: Field<'_>) -> Option<Option<std::path::PathBuf>> {
    let expected = format!("an absolute path of at most {} bytes, or None", Admin::SOCKET_BYTES_MAX);
    field.parsed(&expected, |text| match text {
        "None" => Some(None),
        path if path.starts_with('/') && !path.ends_with('/') && path.len() <= Admin::SOCKET_BYTES_MAX => {
            Some(Some(path.into()))
        }
        _ => None,
    })
}

fn https(section: &mut Section<'_>) -> Option<AdminHttps> {
    let address = section.or("address", AdminHttps::default_address(), Field::address);
    let tls = section.need("tls", |field| field.section(certificate_files));
    let names = section
        .or("names", vec![], |field| field.list(0..=ENTRIES_MAX, |entry| entry.parsed("a DNS name", name)));
    Some(AdminHttps { address, tls: tls?, names })
}

/// As browsers write it.
fn name(text: &str) -> Option<String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    (!text.is_empty() && text.len() <= NAME_BYTES_MAX && text.chars().all(is_plain))
        .then(|| text.to_ascii_lowercase())
}

fn roles(section: &mut Section<'_>) -> Option<AdminRoles> {
    let AdminRoles { viewer, operator, admin } = AdminRoles::default();
    Some(AdminRoles {
        viewer: section.or("viewer", viewer, |field| field.section(groups)),
        operator: section.or("operator", operator, |field| field.section(groups)),
        admin: section.or("admin", admin, |field| field.section(groups)),
    })
}

fn groups(section: &mut Section<'_>) -> Option<Vec<String>> {
    section.need("groups", |field| {
        field.list(0..=ENTRIES_MAX, |entry| {
            entry.parsed("the name of a group", |text| (!text.is_empty()).then(|| text.to_owned()))
        })
    })
}

/// Whoever comes over the network is known by a certificate, or by nothing.
pub(super) fn check(read: &ProxyConfiguration, section: &mut Section<'_>) {
    if read.admin.https.is_none() || read.authentication.client_certificate.is_some() {
        return;
    }
    let message = "`admin.https` knows people by client certificates, but none are verified here";
    match section.field("admin") {
        Some(field) => {
            field.report(Code::Contradiction, message, "needs `authentication.clientCertificate.caFile`");
        }
        None => section.report(Diagnostic::new(Code::Contradiction, message)),
    }
}

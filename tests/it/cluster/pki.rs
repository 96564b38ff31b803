//! The certificates of a test cluster: who signs what, and as PEM files where every program finds them.
//!
//! Four authorities, as kubeadm has them plus ours: clients, servers, the front proxy, break-glass. A fifth, the wrong
//! one, signs an administrator whom nobody may believe.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, KeyUsagePurpose, SanType,
};

/// A certificate and its key, both PEM.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

/// Where everything lies. `cert` of an authority is what others are given to trust.
#[derive(Debug)]
pub(crate) struct Paths {
    /// The cluster's own directory: PEM files in `pki/`, outputs in `logs/`.
    pub(crate) dir: PathBuf,
    pub(crate) logs: PathBuf,

    pub(crate) client_ca: Pair,
    pub(crate) server_ca: Pair,
    pub(crate) front_proxy_ca: Pair,
    pub(crate) break_glass_ca: Pair,
    /// Signed `wrong_admin`; trusted by nobody.
    pub(crate) wrong_ca: Pair,

    /// Serving certificate of the server CA: localhost, 127.0.0.1, ::1, kubernetes(.default(.svc(.cluster.local))), 10.96.0.1.
    pub(crate) serving: Pair,
    /// `CN=front-proxy-client` of the front-proxy CA: may say who somebody else is.
    pub(crate) front_proxy_client: Pair,
    /// `CN=kube-apiserver-kubelet-client, O=system:masters`.
    pub(crate) kubelet_client: Pair,
    /// Service-account signing key (P-256, so tokens are ES256) and, in `cert`, its public key.
    pub(crate) service_account: Pair,

    /// `CN=admin, O=system:masters`.
    pub(crate) admin: Pair,
    /// `CN=alice, O=platform-oncall, O=platform-viewers`.
    pub(crate) alice: Pair,
    pub(crate) controllers: Pair,
    pub(crate) scheduler: Pair,
    /// `CN=alice@corp, O=spillway:break-glass, OU=spillway:break-glass`, of the break-glass CA.
    pub(crate) break_glass: Pair,
    /// `CN=admin, O=system:masters`, of the wrong CA.
    pub(crate) wrong_admin: Pair,
}

/// The authorities, kept to issue more.
#[derive(Debug)]
pub(crate) struct Pki {
    directory: PathBuf,
    client_ca: Authority,
    server_ca: Authority,
    break_glass_ca: Authority,
}

type Authority = CertifiedIssuer<'static, KeyPair>;

impl Pki {
    /// Writes all of [`Paths`] below `dir`.
    pub(crate) fn create(dir: &Path) -> (Self, Paths) {
        let directory = dir.join("pki");
        let logs = dir.join("logs");
        fs::create_dir_all(&directory).expect("pki directory is created");
        fs::create_dir_all(&logs).expect("log directory is created");

        let (client, client_ca) = authority(&directory, "client-ca");
        let (server, server_ca) = authority(&directory, "server-ca");
        let (front_proxy, front_proxy_ca) = authority(&directory, "front-proxy-ca");
        let (break_glass, break_glass_ca) = authority(&directory, "break-glass-ca");
        let (wrong, wrong_ca) = authority(&directory, "wrong-ca");

        let user = |file: &str, name: &str, groups: &[&str], by: &Authority| {
            issue(&directory, file, params(name, groups, ExtendedKeyUsagePurpose::ClientAuth), by)
        };
        let masters = &["system:masters"];
        let paths = Paths {
            front_proxy_client: user("front-proxy-client", "front-proxy-client", &[], &front_proxy),
            kubelet_client: user("kubelet-client", "kube-apiserver-kubelet-client", masters, &client),
            admin: user("admin", "admin", masters, &client),
            alice: user("alice", "alice", &["platform-oncall", "platform-viewers"], &client),
            controllers: user("controller-manager", "system:kube-controller-manager", &[], &client),
            scheduler: user("scheduler", "system:kube-scheduler", &[], &client),
            break_glass: issue(
                &directory,
                "break-glass",
                person("alice@corp", &["spillway:break-glass"]),
                &break_glass,
            ),
            wrong_admin: user("wrong-admin", "admin", masters, &wrong),
            serving: issue(&directory, "serving", serving(&[]), &server),
            service_account: service_account(&directory),
            client_ca,
            server_ca,
            front_proxy_ca,
            break_glass_ca,
            wrong_ca,
            logs,
            dir: dir.into(),
        };
        (Self { directory, client_ca: client, server_ca: server, break_glass_ca: break_glass }, paths)
    }

    /// One more client certificate of the client CA, in files called `file`. At most two groups (see [`params`]).
    pub(crate) fn client(&self, file: &str, name: &str, groups: &[&str]) -> Pair {
        issue(
            &self.directory,
            file,
            params(name, groups, ExtendedKeyUsagePurpose::ClientAuth),
            &self.client_ca,
        )
    }

    /// The same with something odd about it.
    pub(crate) fn odd_client(
        &self,
        file: &str,
        name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Pair {
        let mut params = params(name, &["odd"], ExtendedKeyUsagePurpose::ClientAuth);
        change(&mut params);
        issue(&self.directory, file, params, &self.client_ca)
    }

    /// A serving certificate that has these addresses besides those of [`Paths::serving`].
    pub(crate) fn serving(&self, file: &str, addresses: &[IpAddr]) -> Pair {
        issue(&self.directory, file, serving(addresses), &self.server_ca)
    }

    /// A kubelet's certificate.
    pub(crate) fn node(&self, node: &str) -> Pair {
        self.client(&format!("node-{node}"), &format!("system:node:{node}"), &["system:nodes"])
    }

    /// One more person of the break-glass CA.
    pub(crate) fn break_glass(&self, file: &str, name: &str, groups: &[&str]) -> Pair {
        issue(&self.directory, file, person(name, groups), &self.break_glass_ca)
    }

    /// The same, with something changed that a good certificate would not have.
    pub(crate) fn break_glass_with(&self, file: &str, change: impl FnOnce(&mut CertificateParams)) -> Pair {
        let mut params = person("mallory@corp", &["spillway:break-glass"]);
        change(&mut params);
        issue(&self.directory, file, params, &self.break_glass_ca)
    }
}

/// As `spillway break-glass issue` marks a person's certificate.
fn person(name: &str, groups: &[&str]) -> CertificateParams {
    let mut params = params(name, groups, ExtendedKeyUsagePurpose::ClientAuth);
    params.distinguished_name.push(DnType::OrganizationalUnitName, "spillway:break-glass");
    params
}

fn authority(directory: &Path, name: &str) -> (Authority, Pair) {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    let authority = CertifiedIssuer::self_signed(params, new_key()).expect("authority signs itself");
    let pair = write(directory, name, &authority.pem(), &authority.key().serialize_pem());
    (authority, pair)
}

/// Subject and use. A group is an `O`; rcgen keeps one value per attribute type, so the second one goes in under the
/// same object identifier spelt as a custom type, and a third has no place.
fn params(name: &str, groups: &[&str], usage: ExtendedKeyUsagePurpose) -> CertificateParams {
    assert!(groups.len() <= 2, "at most two groups fit into a certificate here, not {groups:?}");
    let organization = [DnType::OrganizationName, DnType::CustomDnType(vec![2, 5, 4, 10])];
    let mut subject = DistinguishedName::new();
    for (kind, group) in organization.into_iter().zip(groups) {
        subject.push(kind, *group);
    }
    subject.push(DnType::CommonName, name);

    let mut params = CertificateParams::default();
    params.distinguished_name = subject;
    params.extended_key_usages = vec![usage];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params
}

fn serving(more: &[IpAddr]) -> CertificateParams {
    const NAMES: [&str; 5] = [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ];
    const SERVICE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1));
    let loopback = ["127.0.0.1", "::1"].map(|ip| ip.parse().expect("an address"));

    let mut params = params("kube-apiserver", &[], ExtendedKeyUsagePurpose::ServerAuth);
    params.subject_alt_names = NAMES
        .map(|name| SanType::DnsName(name.try_into().expect("an ASCII name")))
        .into_iter()
        .chain(loopback.into_iter().chain([SERVICE]).chain(more.iter().copied()).map(SanType::IpAddress))
        .collect();
    params
}

fn issue(directory: &Path, file: &str, params: CertificateParams, by: &Authority) -> Pair {
    let key = new_key();
    let certificate = params.signed_by(&key, by).expect("authority signs");
    write(directory, file, &certificate.pem(), &key.serialize_pem())
}

fn service_account(directory: &Path) -> Pair {
    let key = new_key();
    write(directory, "service-account", &key.public_key_pem(), &key.serialize_pem())
}

fn new_key() -> KeyPair {
    KeyPair::generate().expect("P-256 key is generated")
}

fn write(directory: &Path, name: &str, cert: &str, key: &str) -> Pair {
    let pair =
        Pair { cert: directory.join(format!("{name}.crt")), key: directory.join(format!("{name}.key")) };
    fs::write(&pair.cert, cert).expect("certificate is written");
    super::canary::key(key);
    fs::write(&pair.key, key).expect("key is written");
    // Every program here runs as the same user; spillway warns about keys that others may read.
    fs::set_permissions(&pair.key, fs::Permissions::from_mode(0o600)).expect("key is private");
    pair
}

//! Who may come over the network to look and to act? The types behind `admin.https` and `admin.roles`.
//!
//! The sockets of `admin` are for whoever is on the node; this is for whoever is not. Behaviour is the dashboard's.

use std::net::SocketAddr;

use super::proxy::CertificateFiles;

/// The dashboard, and what the levers' socket has, over TLS for whoever shows a client certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminHttps {
    /// IP address and port. Default `127.0.0.1:10271`. Port 0 takes a free one (for tests). If it cannot be had, the log
    /// says so, the proxy runs on, and it is tried again every 5 s.
    pub address: SocketAddr,
    /// The certificate that operators see. *Hot*.
    pub tls: CertificateFiles,
    /// DNS names under which it is opened, at most 16. Default: none; its IP address and `localhost` always count.
    pub names: Vec<String>,
}

impl AdminHttps {
    /// Default of [`Self::address`].
    #[must_use]
    pub fn default_address() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 10_271))
    }
}

/// What groups of a client certificate may do there; the highest role counts. At most 16 groups each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminRoles {
    /// Look. Default: none.
    pub viewer: Vec<String>,
    /// Also isolate, release, move the rollout, approve newcomers, reload and roll back the policy. Default: none.
    pub operator: Vec<String>,
    /// Also what is protected, lockdown and the limit. Default: `system:masters` and `kubeadm:cluster-admins`, who may
    /// do anything in the cluster already.
    pub admin: Vec<String>,
}

impl Default for AdminRoles {
    fn default() -> Self {
        let admin = ["system:masters", "kubeadm:cluster-admins"].map(str::to_owned).into();
        Self { viewer: vec![], operator: vec![], admin }
    }
}

//! Who hurts, why, and what can be done about it now: on one page, while everything else is busy or dead.
//!
//! Once a second the proxy is looked at, once for everybody who watches, and what changed is pushed (`live`). All HTML is
//! made here: a browser without JavaScript gets the same tables, a browser with it replaces what changed in them. It has
//! a thread and a listener of its own, and asks neither kube-apiserver nor a shard. What may be done is what the levers of
//! [`crate::admin`] can do, and access (`access`) is judged before anything of it runs.
//!
//! Panels are functions from a `Look` to HTML, listed in `page`: a new one is one line there.

mod access;
mod change;
mod chart;
mod decision;
mod detail;
mod figures;
mod history;
mod html;
mod https;
mod look;
mod newcomers;
mod page;
mod panels;
mod roles;
mod routes;
mod serve;
mod tunnel;

pub use self::access::Role;
pub use self::figures::Figures;
pub use self::https::Door;
pub use self::roles::Roles;
pub use self::routes::Dashboard;
pub use self::serve::serve;
pub use self::tunnel::{Tunnel, TunnelError};

/// The codes of problems; `docs/DASHBOARD.md` explains them.
pub mod code {
    /// No certificate, or one that proves nothing.
    pub const CERTIFICATE: &str = "SPW0764";
    /// None of the certificate's groups has a role.
    pub const NO_ROLE: &str = "SPW0765";
    /// The operators' address, or its certificate, cannot be had.
    pub const ADDRESS: &str = "SPW0766";
    /// The name in the address is not one of this dashboard.
    pub const HOST: &str = "SPW0770";
    /// Another page asks, or something that is no page of ours.
    pub const ORIGIN: &str = "SPW0771";
    /// The role may not do that.
    pub const ROLE: &str = "SPW0772";
    /// Too many watch at a time.
    pub const VIEWERS: &str = "SPW0773";
    /// The link was used, is over, or is none.
    pub const LINK: &str = "SPW0774";
    /// A panel is too large to be shown.
    pub const PANEL: &str = "SPW0775";
    /// The dashboard's socket cannot be had.
    pub const SOCKET: &str = "SPW0776";
    /// There is no such page.
    pub const NO_PAGE: &str = "SPW0777";
    /// The tunnel reaches nobody.
    pub const UNREACHABLE: &str = "SPW0778";
    /// The tunnel cannot listen.
    pub const PORT: &str = "SPW0779";
}

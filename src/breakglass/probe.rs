//! Would the lane work if somebody needed it now?
//!
//! Once a minute a real request goes through the lane's own listener, with a certificate that opens health checks only:
//! socket, handshake, client CA, deny list, ceiling, upstream connection and kube-apiserver. The age of the last success
//! is what to alert on: it grows whatever the reason is, also when nobody probes any more.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::Method;
use tokio::sync::oneshot;

use super::client::{ClientError, Stage, Target};
use crate::authn::Material;
use crate::clock;
use crate::telemetry::LaneMetrics;
use crate::upstream::ClientCertificate;
use crate::upstream::tls;

/// Between two probes.
const EVERY: Duration = Duration::from_secs(60);
/// After one that failed: a certificate that was renewed on the disk is taken over within seconds.
const AGAIN: Duration = Duration::from_secs(15);
/// Before the first: the lane opens meanwhile.
const FIRST: Duration = Duration::from_secs(1);

/// What the probe needs.
#[derive(Clone, Debug)]
pub struct Drill {
    /// The drill's certificate, PEM.
    pub certificate: Material,
    /// Its key, PEM.
    pub key: Material,
}

/// Probes until `stopped` resolves.
pub(super) async fn run(
    address: SocketAddr,
    serving: Material,
    drill: Drill,
    metrics: Arc<LaneMetrics>,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut failures = 0_u32;
    let mut pause = FIRST;
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = &mut stopped => return,
        }
        let (result, why) = match once(address, &serving, &drill).await {
            Ok(status) if status.is_success() => ("ok", String::new()),
            Ok(status) if status.is_server_error() => {
                ("upstream", format!("kube-apiserver is behind it: {status}"))
            }
            Ok(status) => ("refused", status.to_string()),
            Err(error) => (word(error.stage), error.to_string()),
        };
        let seconds = clock::wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        metrics.probed(result, seconds);
        (failures, pause) = match (result, failures) {
            ("ok", 0 | 1) => (0, EVERY),
            ("ok", _) => {
                tracing::info!("break-glass: the self-probe gets through again");
                (0, EVERY)
            }
            (_, failures) => {
                if failures > 0 {
                    tracing::error!(result, why, "break-glass: the self-probe does not get through the lane");
                }
                (failures.saturating_add(1), if failures == 0 { AGAIN } else { EVERY })
            }
        };
    }
}

const fn word(stage: Stage) -> &'static str {
    match stage {
        Stage::Files => "files",
        Stage::Connect => "connect",
        Stage::Tls => "tls",
        Stage::Request => "request",
    }
}

/// The files are read each time: a certificate that was renewed on the disk must work as well.
async fn once(
    address: SocketAddr,
    serving: &Material,
    drill: &Drill,
) -> Result<http::StatusCode, ClientError> {
    let files = |error: &dyn std::fmt::Display| ClientError::files(error);
    let serving = serving.read("the serving certificate").map_err(|error| files(&error))?;
    let serving = tls::certificates("the serving certificate", &serving).map_err(|error| files(&error))?;
    let serving = serving.into_iter().next().ok_or_else(|| files(&"there is no serving certificate"))?;
    let identity = ClientCertificate {
        chain_pem: drill
            .certificate
            .read("the drill's certificate")
            .map_err(|error| files(&error))?
            .into_owned(),
        key_pem: drill.key.read("the drill's key").map_err(|error| files(&error))?.into_owned(),
    };
    let target = Target::own(address, serving, &identity)?;
    Ok(target.ask(Method::GET, "/livez", "").await?.status)
}

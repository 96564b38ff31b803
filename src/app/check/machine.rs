//! Can this machine run what the configuration says?

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener};

use rustix::process::{Resource, getrlimit};

use super::sockets::{covers, listening};
use super::{Found, Situation, either};
use crate::config::ProxyConfiguration;

/// Descriptors beside clients' connections: upstream connections, files, metrics, break-glass.
const DESCRIPTORS_ASIDE: u64 = 1_024;

/// Every address that spillway itself listens on, with its name.
pub(super) fn own_addresses(proxy: &ProxyConfiguration) -> Vec<(String, SocketAddr)> {
    let listeners = proxy.listeners.iter().map(|listener| (listener.name.clone(), listener.address));
    let break_glass = proxy.break_glass.iter().map(|lane| ("break-glass".to_owned(), lane.address));
    listeners.chain(break_glass).chain([("metrics".to_owned(), proxy.metrics.address)]).collect()
}

/// Are the addresses this machine's?
pub(super) fn address(situation: &Situation) -> Found {
    either((|| {
        let addresses = own_addresses(situation.proxy()?);
        let is_elsewhere = |ip: IpAddr| {
            let bound = TcpListener::bind(SocketAddr::new(ip, 0));
            bound.is_err_and(|error| error.kind() == ErrorKind::AddrNotAvailable)
        };
        let elsewhere: Vec<String> = addresses
            .iter()
            .filter(|(_, address)| is_elsewhere(address.ip()))
            .map(|(name, address)| format!("{name} {address}"))
            .collect();
        if elsewhere.is_empty() {
            return Ok(Found::ok(format!("{} addresses, all of this machine", addresses.len())));
        }
        let advice = "name an address that `ip addr` shows here; a VIP needs net.ipv4.ip_nonlocal_bind=1 where it is not";
        Ok(Found::fail(format!("not an address of this machine: {}", elsewhere.join(", ")), advice))
    })())
}

/// Are the ports free, and if not, whose are they?
pub(super) fn port_free(situation: &Situation) -> Found {
    either((|| {
        let proxy = situation.proxy()?;
        if situation.runs() {
            return Ok(Found::ok("a spillway runs here already and has them"));
        }
        let Some(listening) = listening() else {
            return Ok(Found::skip("the kernel's table of sockets cannot be read", "look with ss -ltn"));
        };
        let upstream = proxy.upstreams.server.address;
        let taken = own_addresses(proxy).into_iter().find_map(|(name, address)| {
            // The other way round, too: who wants every address meets anyone on that port.
            let by = listening.iter().find(|other| {
                address.port() != 0 && (covers(**other, address) || covers(address, **other))
            })?;
            Some((name, address, *by))
        });
        let Some((name, address, by)) = taken else { return Ok(Found::ok("every address is free")) };
        if by.port() == upstream.port() {
            return Ok(Found::fail(
                format!("{name} {address} is taken: kube-apiserver, it seems, listens on {by}"),
                "first move kube-apiserver to loopback: spillway manifest kubeadm-patch",
            ));
        }
        Ok(Found::fail(
            format!("{name} {address} is taken by something on {by}"),
            format!("see who it is: ss -ltnp 'sport = :{}'", by.port()),
        ))
    })())
}

/// May a process open enough files?
pub(super) fn descriptors(situation: &Situation) -> Found {
    either((|| {
        let wanted = u64::from(situation.proxy()?.limits.connections) + DESCRIPTORS_ASIDE;
        // None is no limit.
        let limit = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
        let what = format!("{limit} files may be opened, {wanted} are wanted for limits.connections");
        Ok(match limit >= wanted {
            true => Found::ok(what),
            false => Found::warn(
                what,
                "LimitNOFILE=65536 in the unit; of a container: the runtime's default, usually enough",
            ),
        })
    })())
}

/// Is there a place for what survives a restart?
pub(super) fn state_folder(situation: &Situation) -> Found {
    either((|| {
        let Some(state) = &situation.proxy()?.state else {
            return Ok(Found::warn(
                "there is no state.dir: levers and what was learnt are forgotten at every restart",
                "state: { dir: /var/lib/spillway }",
            ));
        };
        let folder = state.dir.display();
        Ok(match std::fs::metadata(&state.dir) {
            Ok(facts) if !facts.is_dir() => {
                Found::fail(format!("{folder} is no folder"), "name a folder in state.dir")
            }
            Ok(facts) if facts.permissions().readonly() => Found::warn(
                format!("{folder} cannot be written"),
                format!("chown it to spillway's user: ls -ld {folder}"),
            ),
            Ok(_) => Found::ok(format!("{folder} is there")),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Found::ok(format!("{folder} is not there yet: it is made at the start"))
            }
            Err(error) => Found::warn(format!("{folder}: {error}"), "look at the folders above it"),
        })
    })())
}

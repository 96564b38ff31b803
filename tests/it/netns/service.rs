//! The `kubernetes` Service as a node sees it: 10.96.0.1:443, a new connection to one of the published endpoints each.
//!
//! kube-proxy does this with rules in the kernel; here it is a thread inside the host's namespace, because the kernels
//! that run tests need not have netfilter. As with kube-proxy, an endpoint that is dead and still published swallows
//! connections, and those that are open stay where they are.

use std::{
    fs::File,
    io,
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::hosts::Host;

/// The first address of the Service network.
pub(super) const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
const PORT: u16 = 443;
const CONNECT: Duration = Duration::from_secs(5);

/// One node's way to the Service. Its threads end with the process or with the host.
#[derive(Clone, Default)]
pub(super) struct Service {
    endpoints: Arc<Mutex<Vec<SocketAddr>>>,
}

impl Service {
    pub(super) fn on(host: &Host) -> Self {
        host.add_local_address(SERVICE.into());
        let service = Self::default();
        let endpoints = Arc::clone(&service.endpoints);
        let namespace = host.namespace();
        let (bound, told) = std::sync::mpsc::sync_channel(1);
        thread::spawn(move || {
            // Threads that this one starts, and their sockets, are in the namespace, too.
            let listener = enter(&namespace).and_then(|()| TcpListener::bind((SERVICE, PORT)));
            let listener = match listener {
                Ok(listener) => listener,
                Err(error) => return drop(bound.send(Err(error))),
            };
            let _ = bound.send(Ok(()));
            serve(&listener, &endpoints);
        });
        told.recv()
            .expect("the thread says how it went")
            .expect("the Service's address is free on a new host");
        service
    }

    /// What an EndpointSlice said.
    pub(super) fn set(&self, endpoints: Vec<SocketAddr>) {
        *self.endpoints.lock().unwrap_or_else(PoisonError::into_inner) = endpoints;
    }
}

pub(super) fn enter(namespace: &Path) -> io::Result<()> {
    move_into_link_name_space(File::open(namespace)?.as_fd(), Some(LinkNameSpaceType::Network))?;
    Ok(())
}

fn serve(listener: &TcpListener, endpoints: &Mutex<Vec<SocketAddr>>) {
    static TURN: AtomicUsize = AtomicUsize::new(0);
    for client in listener.incoming() {
        let Ok(client) = client else { return };
        let published = endpoints.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let turn = TURN.fetch_add(1, Ordering::Relaxed);
        let Some(endpoint) = published.get(turn % published.len().max(1)).copied() else { continue };
        thread::spawn(move || {
            // One that cannot be reached: the client's connection is closed, and it comes again.
            if let Ok(server) = TcpStream::connect_timeout(&endpoint, CONNECT) {
                join(&client, &server);
            }
        });
    }
}

/// Until both directions have ended.
fn join(client: &TcpStream, server: &TcpStream) {
    thread::scope(|scope| {
        scope.spawn(|| pass(client, server));
        scope.spawn(|| pass(server, client));
    });
}

fn pass(mut from: &TcpStream, mut to: &TcpStream) {
    if io::copy(&mut from, &mut to).is_err() {
        let _ = from.shutdown(Shutdown::Both);
    }
    let _ = to.shutdown(Shutdown::Write);
}

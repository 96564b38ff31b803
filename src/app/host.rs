//! How much memory does the apiserver have, as far as its host can tell?
//!
//! Only for an apiserver on this host; of another one nothing is known here. Its own limit, where it has one, is in a
//! cgroup that cannot be seen from a container, so `overload.memory.responseBytes` takes a number for such servers. What
//! can be seen is the host's memory, and the limits of the cgroups *around* this process, which the apiserver may share
//! (one virtual machine in a container, a slice for the control plane). The limit of the process's own cgroup was
//! written for spillway: 1 GiB in the static pod.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;

use super::footprint;

/// Bytes of memory that an apiserver at `address` has; `None` where it is on another host.
pub(super) fn server_memory(address: SocketAddr) -> Option<u64> {
    is_here(address).then(|| memory(Path::new("/proc"), Path::new("/sys/fs/cgroup"))).flatten()
}

/// Whether an address is this host's: what the kernel would send there from the very same address. Nothing is sent.
/// Binding to it would tell less: hosts of floating addresses may bind to any (`ip_nonlocal_bind`).
fn is_here(address: SocketAddr) -> bool {
    let any: IpAddr =
        if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let from = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect(address)?;
        socket.local_addr()
    });
    address.ip().is_loopback() || from.is_ok_and(|from| from.ip() == address.ip())
}

fn memory(proc: &Path, mounted: &Path) -> Option<u64> {
    let table = fs::read_to_string(proc.join("meminfo")).ok()?;
    let line = table.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    let host = kib.saturating_mul(1024);
    let around = footprint::limit_around(&proc.join("self/cgroup"), mounted);
    Some(around.map_or(host, |around| around.min(host)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_this_host_is_known_without_a_word_to_anybody() {
        assert!(is_here("127.0.0.1:6443".parse().unwrap()));
        assert!(is_here("127.8.9.10:6443".parse().unwrap()));
        assert!(is_here("[::1]:6443".parse().unwrap()));
        // For documentation (RFC 5737, 3849): nobody's, and not ours.
        assert!(!is_here("203.0.113.7:6443".parse().unwrap()));
        assert!(!is_here("[2001:db8::7]:6443".parse().unwrap()));
        assert_eq!(server_memory("203.0.113.7:6443".parse().unwrap()), None);
    }

    #[test]
    fn this_host_has_memory() {
        assert!(server_memory("127.0.0.1:6443".parse().unwrap()).unwrap() > 64 << 20);
    }

    #[test]
    fn limits_around_this_process_count_and_its_own_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let memory = || memory(&dir.path().join("proc"), &dir.path().join("fs"));
        assert_eq!(memory(), None, "no /proc");
        write("proc/meminfo", "MemTotal:       16384000 kB\nMemFree: 1 kB\n");
        let host = Some(16_384_000 << 10);
        assert_eq!(memory(), host);
        write("proc/self/cgroup", "0::/\n");
        write("fs/memory.max", "1073741824\n");
        assert_eq!(memory(), host, "a container sees its own limit, written for spillway");
        write("proc/self/cgroup", "0::/system.slice/spillway.service\n");
        write("fs/system.slice/spillway.service/memory.max", "268435456\n");
        write("fs/system.slice/memory.max", "max\n");
        write("fs/memory.max", "4294967296\n");
        assert_eq!(memory(), Some(4 << 30), "a service beside the apiserver in one container");
        write("proc/self/cgroup", "0::/not/seen/from/here\n");
        assert_eq!(memory(), host, "the first that can be seen is its own");
        write("proc/self/cgroup", "4:memory:/a/b\n");
        write("fs/memory/a/b/memory.limit_in_bytes", "268435456\n");
        write("fs/memory/a/memory.limit_in_bytes", "2147483648\n");
        write("fs/memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(memory(), Some(2 << 30), "version 1");
        write("proc/meminfo", "nonsense\n");
        assert_eq!(memory(), None);
    }
}

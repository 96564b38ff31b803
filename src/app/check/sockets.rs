//! Which addresses does somebody on this machine listen on?
//!
//! Read from the kernel's own table of this network namespace: it needs no rights, and unlike an attempt to connect it
//! also sees what a firewall hides.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The state of a listening socket in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// Everything that listens; nothing where the table cannot be read.
pub(super) fn listening() -> Option<Vec<SocketAddr>> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    // A kernel without IPv6 has no second table.
    let text = read("/proc/net/tcp")? + &read("/proc/net/tcp6").unwrap_or_default();
    Some(text.lines().filter_map(parse).collect())
}

/// A line of the table, if it is a listening socket: the second column is `0100007F:192B`, the words in host order.
fn parse(line: &str) -> Option<SocketAddr> {
    let mut columns = line.split_whitespace();
    let (_, local, _, state) = (columns.next()?, columns.next()?, columns.next()?, columns.next()?);
    if state != LISTEN {
        return None;
    }
    let (address, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let words =
        (0..address.len()).step_by(8).map(|at| u32::from_str_radix(address.get(at..at + 8)?, 16).ok());
    let bytes: Vec<u8> =
        words.collect::<Option<Vec<u32>>>()?.into_iter().flat_map(u32::to_ne_bytes).collect();
    let ip = match *bytes.as_slice() {
        [a, b, c, d] => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
        ref bytes => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)),
    };
    Some(SocketAddr::new(ip.to_canonical(), port))
}

/// Whether a listener at `one` takes what is meant for `other`.
pub(super) fn covers(one: SocketAddr, other: SocketAddr) -> bool {
    one.port() == other.port() && (one.ip().is_unspecified() || one.ip() == other.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernels_table_are_read() {
        let v4 = "   0: 0100007F:192B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0";
        let v6 = "   1: 00000000000000000000000000000000:192B 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 2 1 0";
        let mapped = "   1: 0000000000000000FFFF00000B00000A:192B 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 2 1 0";
        let connected = v4.replace(" 0A ", " 01 ");
        if cfg!(target_endian = "little") {
            assert_eq!(parse(v4), Some("127.0.0.1:6443".parse().unwrap()));
            assert_eq!(parse(mapped), Some("10.0.0.11:6443".parse().unwrap()));
        }
        assert_eq!(parse(v6), Some("[::]:6443".parse().unwrap()));
        assert_eq!(parse(&connected), None);
        assert_eq!(parse("  sl  local_address rem_address   st"), None);
        assert!(covers("0.0.0.0:1".parse().unwrap(), "10.0.0.1:1".parse().unwrap()));
        assert!(!covers("127.0.0.1:1".parse().unwrap(), "10.0.0.1:1".parse().unwrap()));
    }

    #[test]
    fn a_socket_of_this_process_is_seen() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert!(listening().unwrap().contains(&address));
        drop(listener);
        assert!(!listening().unwrap().contains(&address));
    }
}

//! Hosts on one machine: each a network namespace with a host name of its own, joined by a switch, which is one more.
//!
//! A namespace lives as long as the process that holds it, here a `sleep` in the guardian's group: whatever ends this
//! process, nothing is left behind and no name can collide, which `ip netns add` could not promise.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use crate::cluster::{Guardian, Process, wait_for};

/// The network of all hosts; their addresses differ in the last number. Nobody outside sees it.
const NETWORK: [u8; 3] = [10, 99, 0];
/// The switch itself, so that hosts have a default route: kubelets look for one to find their own address.
const GATEWAY: u8 = 1;

/// What all hosts are plugged into.
pub(super) struct Switch {
    holder: Process,
}

/// One host.
pub(super) struct Host {
    pub(super) name: String,
    pub(super) address: Ipv4Addr,
    holder: Process,
    /// Its port of the switch.
    port: String,
    switch: u32,
}

impl Switch {
    pub(super) fn start(logs: &Path, guardian: &Guardian) -> Self {
        let switch = Self { holder: hold("switch", logs, guardian) };
        for step in ["link add br0 type bridge", "link set br0 up", "addr add 10.99.0.1/24 dev br0"] {
            ip(switch.holder.id(), step);
        }
        switch
    }

    /// A host at `10.99.0.number`, up and reachable.
    pub(super) fn plug(&self, name: &str, number: u8, logs: &Path, guardian: &Guardian) -> Host {
        let holder = hold(name, logs, guardian);
        let (host, switch, port) = (holder.id(), self.holder.id(), format!("port{number}"));
        let [a, b, c] = NETWORK;
        let address = Ipv4Addr::new(a, b, c, number);
        ip(switch, &format!("link add {port} type veth peer name eth0 netns {host}"));
        ip(switch, &format!("link set {port} master br0 up"));
        ip(host, "link set lo up");
        ip(host, &format!("addr add {address}/24 dev eth0"));
        ip(host, "link set eth0 up");
        ip(host, &format!("route add default via {}", Ipv4Addr::new(a, b, c, GATEWAY)));
        Host { name: name.into(), address, holder, port, switch }
    }
}

impl Host {
    /// A program that will run on this host.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = inside(self.holder.id());
        command.arg(program);
        command
    }

    /// One more address, reachable from this host alone.
    pub(super) fn add_local_address(&self, address: IpAddr) {
        ip(self.holder.id(), &format!("addr add {address}/32 dev lo"));
    }

    /// The namespace, for a thread that wants to enter it.
    pub(super) fn namespace(&self) -> PathBuf {
        namespace(self.holder.id())
    }

    /// Pulls its cable: what others send to it is lost, and nobody tells them.
    pub(super) fn unplug(&self) {
        ip(self.switch, &format!("link del {}", self.port));
    }

    /// Everything that listens here, as `ADDRESS:PORT PROGRAM`, loopback left out.
    pub(super) fn doors(&self) -> Vec<String> {
        let found =
            self.command(Path::new("ss")).args(["-H", "-l", "-t", "-n", "-p"]).output().expect("ss runs");
        let text = String::from_utf8_lossy(&found.stdout).into_owned();
        assert!(found.status.success() && !text.trim().is_empty(), "ss says nothing about {}", self.name);
        text.lines().filter_map(door).collect()
    }
}

/// One line of `ss`: state, two queues, our address, the other's, `users:(("NAME",…`.
fn door(line: &str) -> Option<String> {
    let mut words = line.split_whitespace().skip(3);
    let (address, program) = (words.next()?, words.nth(1)?);
    let program = program.split('"').nth(1)?;
    (!address.starts_with("127.") && !address.starts_with("[::1]")).then(|| format!("{address} {program}"))
}

fn hold(name: &str, logs: &Path, guardian: &Guardian) -> Process {
    let mut command = Command::new("unshare");
    command.args(["--net", "--uts", "sh", "-c", r#"hostname "$1" && exec sleep infinity"#, "host", name]);
    let mut holder = Process::start(&format!("host-{name}"), command, logs, guardian);
    let ours = fs::read_link("/proc/self/ns/net").expect("this process has a network namespace");
    wait_for("a network namespace of its own for each host", Duration::from_secs(20), || {
        holder.alive().unwrap_or_else(|why| {
            panic!(
                "{why}\nthis test makes hosts out of network namespaces, which takes CAP_SYS_ADMIN and CAP_NET_ADMIN; \
                 run it as root, or try: sudo unshare --net true"
            )
        });
        let named = inside(holder.id()).arg("hostname").output().map_err(|e| e.to_string())?;
        let there = fs::read_link(namespace(holder.id())).map_err(|e| e.to_string())?;
        let named = String::from_utf8_lossy(&named.stdout).trim() == name;
        if there != ours && named { Ok(()) } else { Err("it is not there yet".into()) }
    });
    holder
}

fn namespace(holder: u32) -> PathBuf {
    format!("/proc/{holder}/ns/net").into()
}

fn inside(holder: u32) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/proc/{holder}/ns/net")).arg(format!("--uts=/proc/{holder}/ns/uts"));
    command.stdin(Stdio::null());
    command
}

/// `ip` with these words, in the namespace of `holder`.
fn ip(holder: u32, words: &str) {
    let done =
        inside(holder).arg("ip").args(words.split(' ')).output().expect("ip starts (Debian: iproute2)");
    assert!(done.status.success(), "ip {words}: {}", String::from_utf8_lossy(&done.stderr));
}

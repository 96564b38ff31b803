//! `spillway dashboard`: a browser on the running proxy, through a tunnel that only its caller can use.

use std::env;
use std::io::{self, BufRead as _, ErrorKind, IsTerminal, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use clap::Args as ClapArgs;
use tokio::signal::unix::{SignalKind, signal};

use super::Ending;
use super::socket::Failure;
use crate::admin::wire::{Problem, code as wire_code};
use crate::config::Dashboard;
use crate::dashboard::{Role, Tunnel, TunnelError, code};

/// The port that is easy to remember for `ssh -L`.
const PORT: u16 = 8_700;

/// Opens the dashboard of the proxy on this machine for a browser.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  spillway dashboard
  spillway dashboard --open
  spillway dashboard --as viewer --port 0
  ssh -L 8700:127.0.0.1:8700 NODE sudo spillway dashboard    # from a laptop; then open the printed link

Listens on 127.0.0.1 until Ctrl-C and forwards to the proxy's dashboard socket, which answers when kube-apiserver, DNS and
every other listener are dead. The link works once, within ten minutes; Enter prints a new one. The page can be reloaded.
Exit codes: 0 ended by Ctrl-C, 1 the port is taken, 4 nobody answers, 5 not allowed.")]
pub struct Args {
    /// The proxy's dashboard socket
    #[arg(long, value_name = "PATH", default_value = Dashboard::SOCKET)]
    socket: PathBuf,
    /// The loopback port; 0 takes a free one
    #[arg(long, value_name = "N", default_value_t = PORT)]
    port: u16,
    /// Open the link in this machine's browser
    #[arg(long)]
    open: bool,
    /// What whoever opens it may do: viewer looks, operator isolates, admin also what is protected
    #[arg(long = "as", value_name = "ROLE", default_value = "admin", value_parser = parse_role)]
    role: Role,
}

fn parse_role(word: &str) -> Result<Role, String> {
    Role::parse(word).ok_or_else(|| "expected viewer, operator or admin".to_owned())
}

/// Opens it and forwards until Ctrl-C.
pub fn run(args: &Args, out: &mut dyn Write, err: &mut dyn Write) -> Ending {
    open(args, out).unwrap_or_else(|failure| failure.tell(err))
}

fn open(args: &Args, out: &mut dyn Write) -> Result<Ending, Failure> {
    // Said now, and not in the browser.
    drop(UnixStream::connect(&args.socket).map_err(|error| unreachable(args, &error))?);
    let tunnel = Tunnel::bind(args.port, &args.socket, (person().as_deref(), args.role))
        .map_err(|error| no_tunnel(&error))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| unreachable(args, &error))?;
    let link = tunnel.link().map_err(|error| no_tunnel(&error))?;
    // A closed terminal cannot be told anything.
    let _ = print(&tunnel, &link, args.role, out);
    if args.open {
        show(&link);
    }
    if io::stdin().is_terminal() {
        let again = Arc::clone(&tunnel);
        // It ends with the process: nothing can interrupt a read of the terminal.
        std::thread::spawn(move || more_links(&again));
    }
    let ended = runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            ended = tunnel.run() => ended,
            _ = interrupt.recv() => Ok(()),
            _ = terminate.recv() => Ok(()),
        }
    });
    ended.map(|()| Ending::Fine).map_err(|error| unreachable(args, &error))
}

fn print(tunnel: &Tunnel, link: &str, role: Role, out: &mut dyn Write) -> io::Result<()> {
    let port = tunnel.address().port();
    writeln!(
        out,
        "dashboard, as {}, until Ctrl-C. It works once, within 10 minutes; Enter prints a new one:",
        role.as_str()
    )?;
    writeln!(out, "  {link}")?;
    writeln!(out, "without JavaScript, only to look:")?;
    writeln!(out, "  {}", tunnel.plain_link())?;
    writeln!(out, "from another machine, before you open either: ssh -L {port}:127.0.0.1:{port} THIS-NODE")?;
    out.flush()
}

/// Who that is, as the shell says: `sudo` keeps the name of whoever called it.
fn person() -> Option<String> {
    ["SUDO_USER", "USER"].into_iter().find_map(|name| env::var(name).ok().filter(|person| !person.is_empty()))
}

/// A new link for each Enter.
fn more_links(tunnel: &Tunnel) {
    for line in io::stdin().lock().lines() {
        let (Ok(_), Ok(link)) = (line, tunnel.link()) else { return };
        let _ = writeln!(io::stdout(), "  {link}");
    }
}

/// Asks the desktop; without one the printed link is there.
fn show(link: &str) {
    for program in ["xdg-open", "open"] {
        let started = Command::new(program)
            .arg(link)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        if started.is_ok() {
            return;
        }
    }
}

fn no_tunnel(error: &TunnelError) -> Failure {
    let help = "another port: --port 0 takes a free one";
    Failure::new(Ending::Failed, Problem::new(code::PORT, error.to_string(), help))
}

fn unreachable(args: &Args, error: &io::Error) -> Failure {
    let socket = args.socket.display();
    let (ending, code, help) = match error.kind() {
        ErrorKind::PermissionDenied => {
            (Ending::Forbidden, wire_code::FORBIDDEN, "the socket is for the proxy's own user: try with sudo")
        }
        _ => (
            Ending::Unreachable,
            wire_code::UNREACHABLE,
            "is spillway running here? its admin.dashboard.socket may be another: --socket PATH; else spillway status",
        ),
    };
    Failure::new(ending, Problem::new(code, format!("nobody answers at {socket}: {error}"), help))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_its_golden_text() {
        let tunnel = Tunnel::bind(0, &PathBuf::from("/nowhere"), (None, Role::Operator)).unwrap();
        let link = tunnel.link().unwrap();
        let mut out = Vec::new();
        print(&tunnel, &link, Role::Operator, &mut out).unwrap();
        let secret = |text: &str| text.chars().filter(char::is_ascii_hexdigit).count() >= 64;
        assert!(secret(link.rsplit('=').next().unwrap()), "{link}");
        let text = String::from_utf8(out).unwrap();
        let text = text.replace(&link, "LINK").replace(&tunnel.plain_link(), "PLAIN");
        let text = text.replace(&tunnel.address().port().to_string(), "PORT");
        super::super::golden::compare("dashboard", &text);
    }

    #[test]
    fn a_port_that_is_taken_and_a_socket_that_is_not_there_say_what_to_try() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let error =
            Tunnel::bind(port, &PathBuf::from("/nowhere"), (None, Role::Admin)).map(|_| ()).unwrap_err();
        let failure = no_tunnel(&error);
        assert_eq!((failure.ending, failure.problem.code.as_str()), (Ending::Failed, code::PORT));
        assert!(failure.problem.help.contains("--port 0"));
        let folder = tempfile::tempdir().unwrap();
        let args = Args { socket: folder.path().join("none"), port: 0, open: false, role: Role::Admin };
        let failure = open(&args, &mut Vec::new()).unwrap_err();
        assert_eq!(
            (failure.ending, failure.problem.code.as_str()),
            (Ending::Unreachable, wire_code::UNREACHABLE)
        );
    }
}

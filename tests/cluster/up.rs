//! `make cluster`: a whole cluster behind spillway, on this machine, until Ctrl-C.
//!
//! etcd and kube-apiserver start first, then spillway in front of them; controllers, scheduler and the kubelets of
//! ten nodes know only spillway's address. What an operator needs is linked in `.cluster/`. All are real programs;
//! only the containers are pretended.

// It talks to a person, and says what it expected by panicking, as the test bed does.
#![allow(clippy::expect_used, clippy::print_stderr, clippy::print_stdout)]

#[path = "../it/cluster/mod.rs"]
mod cluster;

use std::{
    env, fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use cluster::{Cluster, ClusterOptions, Credential, Front};

const USAGE: &str = "usage: cluster [--nodes N] [--without-spillway]

  --nodes N            kubelets over a pretended container runtime, about 70 MiB each (default 10)
  --without-spillway   the same cluster with everybody on kube-apiserver itself, for comparison";

/// What the command line asks for.
struct Wish {
    nodes: usize,
    spillway: bool,
}

fn main() -> ExitCode {
    let done = match read_arguments(env::args().skip(1)) {
        Ok(wish) => run(&wish).map_err(|e| format!("waiting for Ctrl-C: {e}")),
        Err(why) => Err(format!("{why}\n\n{USAGE}")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn run(wish: &Wish) -> io::Result<()> {
    println!("etcd and kube-apiserver (the first time they are built, which takes minutes) ...");
    let cluster = Cluster::start(ClusterOptions::default());
    let front = wish.spillway.then(|| start_spillway(&cluster));
    let url = front.as_ref().map_or_else(|| cluster.url(), Front::url);

    println!("controllers, scheduler and {} nodes, all at {url} ...", wish.nodes);
    let ca = cluster.paths.server_ca.cert.clone();
    cluster.start_controllers(&url, &ca);
    cluster.start_scheduler(&url, &ca);
    cluster.start_hollow_nodes(wish.nodes, &url, &ca);
    cluster.wait_nodes_ready(wish.nodes, Duration::from_secs(300));

    let desk = Desk::lay(&cluster);
    desk.describe(&cluster, front.as_ref());
    wait_for_interrupt()?;
    println!("stopping");
    desk.clear();
    // Clients first, so that they do not spend the farewell retrying.
    drop(cluster);
    drop(front);
    Ok(())
}

fn read_arguments(mut arguments: impl Iterator<Item = String>) -> Result<Wish, String> {
    let mut wish = Wish { nodes: 10, spillway: true };
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--nodes" => {
                let number = arguments.next().and_then(|n| n.parse().ok());
                wish.nodes = number.ok_or("--nodes: expected a number")?;
            }
            "--without-spillway" => wish.spillway = false,
            other => return Err(format!("{other}: not an option")),
        }
    }
    Ok(wish)
}

/// The spillway of the same build profile as this program.
fn start_spillway(cluster: &Cluster) -> Front {
    let this = env::current_exe().expect("this program has a path");
    let binary = this.ancestors().nth(2).expect("it lies in target/PROFILE/examples").join("spillway");
    assert!(
        binary.exists(),
        "expected {} to be built; run `cargo build --bin spillway` first",
        binary.display()
    );
    println!("spillway, from {} ...", binary.display());
    cluster.start_front(&binary, None, |_| ())
}

/// `.cluster/` in the current directory: kubectl and the kubeconfigs under names a person can type.
struct Desk {
    directory: PathBuf,
}

impl Desk {
    fn lay(cluster: &Cluster) -> Self {
        let desk = Self { directory: PathBuf::from(".cluster") };
        desk.clear();
        fs::create_dir_all(&desk.directory).expect(".cluster is created");
        desk.link("kubectl", &cluster::binaries().join("kubectl"));
        desk.link("logs", &cluster.paths.logs);
        desk
    }

    fn describe(&self, cluster: &Cluster, front: Option<&Front>) {
        let direct = cluster.url();
        let url = front.map_or_else(|| direct.clone(), Front::url);
        println!("\nThe cluster is up. Its logs are in .cluster/logs; Ctrl-C stops everything.\n");
        self.offer(
            cluster,
            "operator",
            "alice of platform-oncall, as everybody else",
            &cluster.alice(),
            &url,
        );
        self.offer(cluster, "admin", "system:masters, as everybody else", &cluster.admin(), &url);
        if let Some(front) = front {
            let url = front.break_glass_url();
            self.offer(
                cluster,
                "break-glass",
                "alice@corp, over the emergency lane",
                &cluster.break_glass(),
                &url,
            );
            self.offer(cluster, "direct", "system:masters, past spillway", &cluster.admin(), &direct);
            println!("  metrics: http://{}/metrics", front.metrics);
        }
    }

    fn offer(&self, cluster: &Cluster, name: &str, who: &str, credential: &Credential, url: &str) {
        let ca = &cluster.paths.server_ca.cert;
        self.link(name, &cluster.kubeconfig_for(credential, url, ca));
        println!("  .cluster/kubectl --kubeconfig .cluster/{name} get nodes    # {who}, {url}");
    }

    fn link(&self, name: &str, target: &Path) {
        symlink(target, self.directory.join(name)).expect("a link in .cluster is made");
    }

    fn clear(&self) {
        // Only links live there, so nothing of the cluster itself is removed with them.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Ctrl-C or SIGTERM.
fn wait_for_interrupt() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            pressed = tokio::signal::ctrl_c() => pressed,
            _ = terminate.recv() => Ok(()),
        }
    })
}

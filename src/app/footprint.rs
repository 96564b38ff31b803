//! How much memory does this process use, and how much may it?
//!
//! Use is what the kernel counts as resident (`VmRSS`), because that is what it kills for. The limit is the
//! configuration's, else the smallest of the cgroups that this process is in, else none. The control thread looks every
//! 250 ms, as Envoy's overload manager does; what follows is [`MemoryStep`]'s to say. The allocator gives freed memory
//! back while there is traffic, not in silence (a test shows it), so a burst that is over is forgotten by the next hundred
//! connections.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::flow::MemoryStep;
use crate::gateway::Gate;
use crate::telemetry::{Footprint, MemoryStepChanged};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(250);
/// cgroup v1 says "no limit" with the largest multiple of a page; nobody has a pebibyte.
const NO_LIMIT: u64 = 1 << 50;

/// The limit in bytes; zero is none.
pub(super) fn limit(configured: Option<u64>) -> u64 {
    configured.or_else(|| cgroup(Path::new("/proc/self/cgroup"), Path::new("/sys/fs/cgroup"))).unwrap_or(0)
}

/// Looks at the memory in use until the runtime ends, and tells the gate what follows.
pub(super) async fn keep(gate: Arc<Gate>, limit: u64, footprint: Arc<Footprint>) {
    let mut step = MemoryStep::Free;
    let mut looks = tokio::time::interval(LOOK);
    loop {
        looks.tick().await;
        // Without an answer nothing changes: a guess in either direction would harm.
        let Some(resident) = resident() else { continue };
        let before = step;
        step = step.next(resident, limit);
        footprint.set(resident, step);
        if step != before {
            gate.own_memory(step);
            MemoryStepChanged { from: before, to: step, resident, limit }.emit();
        }
    }
}

/// Bytes of this process that are in memory.
pub(super) fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

/// The smallest memory limit of the cgroups that the table `own` names, and of those around them.
fn cgroup(own: &Path, mounted: &Path) -> Option<u64> {
    smallest_of(own, mounted, Whose::Own)
}

/// The smallest memory limit of the cgroups around this process's own.
pub(super) fn limit_around(own: &Path, mounted: &Path) -> Option<u64> {
    smallest_of(own, mounted, Whose::Around)
}

/// Which limits count.
#[derive(Clone, Copy)]
enum Whose {
    /// That of the process's own cgroup, and those around it.
    Own,
    /// Only those around it: what others share with it.
    Around,
}

fn smallest_of(own: &Path, mounted: &Path, whose: Whose) -> Option<u64> {
    let table = fs::read_to_string(own).ok()?;
    table
        .lines()
        .filter_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            match controllers {
                "" => smallest(mounted, path, "memory.max", whose),
                named if named.split(',').any(|name| name == "memory") => {
                    smallest(&mounted.join("memory"), path, "memory.limit_in_bytes", whose)
                }
                _ => None,
            }
        })
        .min()
}

/// In a container the path may be the host's, which does not exist here: then the mount's own root is the container's.
fn smallest(mounted: &Path, path: &str, file: &str, whose: Whose) -> Option<u64> {
    let own: PathBuf = mounted.join(path.trim_start_matches('/'));
    own.ancestors()
        .take_while(|at| at.starts_with(mounted))
        .filter(|at| at.is_dir())
        .skip(usize::from(matches!(whose, Whose::Around)))
        .filter_map(|at| fs::read_to_string(at.join(file)).ok()?.trim().parse().ok())
        .filter(|&limit| limit < NO_LIMIT)
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_takes_memory() {
        assert!(resident().unwrap() > 1 << 20);
    }

    #[test]
    fn the_smallest_limit_around_counts_and_max_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let cgroup = |table: &str| {
            write("table", table);
            cgroup(&dir.path().join("table"), &dir.path().join("fs"))
        };
        assert_eq!(cgroup("0::/"), None, "no cgroup file system");
        write("fs/pods/one/memory.max", "max\n");
        assert_eq!(cgroup("0::/pods/one\n"), None);
        write("fs/pods/memory.max", "104857600\n");
        assert_eq!(cgroup("0::/pods/one\n"), Some(100 << 20), "the one around it");
        write("fs/pods/one/memory.max", "52428800\n");
        assert_eq!(cgroup("0::/pods/one\n"), Some(50 << 20));
        write("fs/memory.max", "73400320\n");
        assert_eq!(cgroup("0::/kubepods/of/the/host\n"), Some(70 << 20), "a path that is not seen from here");
        write("fs/memory/a/memory.limit_in_bytes", "9223372036854771712\n");
        write("fs/memory/memory.limit_in_bytes", "41943040\n");
        assert_eq!(cgroup("5:cpu,memory:/a\n4:pids:/a\n"), Some(40 << 20), "version 1");
    }
}

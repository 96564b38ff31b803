//! What does the command line ask for?

use std::{env, path::PathBuf, time::Duration};

use super::{adversity::Adversity, mode::Mode, scene::Scene};

pub(crate) const USAGE: &str =
    "usage: soak [--scenes \"NAME ...\"] [--modes \"direct spillway spillway-100ms\"] [--out DIR]
            [--spillway FILE] [--calm S] [--storm S] [--after S] [--nodes N] [--pods N] [--agents N] [--lane N] [--adversity NAME] [--list]

  --scenes     what to play; `all` is everything (default: list list-node watch)
  --modes      direct: APF alone; apf-by-hand: APF with deploy/apf/culprit.yaml; spillway: default policy;
               spillway-100ms: objectives of 100 ms
               (default: direct spillway)
  --out        where results.md, results.json and the time lines go (default target/soak)
  --spillway   the program under test (default: SPILLWAY_BIN, else the one beside this program)
  --calm, --storm, --after    seconds of each part (default 12, 40, 15; a scene may ask for a longer storm)
  --nodes, --pods, --agents   size of the rig (default 500, 5000, 500)
  --lane       instead of scenes: N trials of an operator who has to get in, through the break-glass lane and through
               the main listener, with each of seven adversities; writes lane.md and lane.json
  --adversity  of these only one: storm half-open taken burning no-descriptors disk-full slow-apiserver
  --list       says what the scenes are and ends";

/// Seconds that are still a sensible part of a play.
const SECONDS_MAX: u64 = 600;
/// What the names of pods and nodes have room for.
const PODS_MAX: usize = 20_000;
const NODES_MAX: usize = 1_000;
const AGENTS_MAX: usize = 2_000;
/// What the names of culprits have room for.
const TRIALS_MAX: usize = 10_000;

/// One invocation.
pub(crate) struct Wish {
    pub(crate) scenes: Vec<&'static Scene>,
    pub(crate) modes: Vec<Mode>,
    pub(crate) out: PathBuf,
    pub(crate) spillway: PathBuf,
    pub(crate) calm: Duration,
    pub(crate) storm: Duration,
    pub(crate) after: Duration,
    pub(crate) nodes: usize,
    pub(crate) pods: usize,
    pub(crate) agents: usize,
    /// Trials of the break-glass lane, in place of scenes.
    pub(crate) lane: Option<usize>,
    /// What goes wrong in these.
    pub(crate) adversities: Vec<Adversity>,
}

/// Reads the arguments; nothing when only a list was asked for.
pub(crate) fn read(mut arguments: impl Iterator<Item = String>) -> Result<Option<Wish>, String> {
    let mut wish = Wish {
        scenes: named("list list-node watch")?,
        modes: modes("direct spillway")?,
        out: "target/soak".into(),
        spillway: beside_us(),
        calm: Duration::from_secs(12),
        storm: Duration::from_secs(40),
        after: Duration::from_secs(15),
        nodes: 500,
        pods: 5_000,
        agents: 500,
        lane: None,
        adversities: Adversity::ALL.to_vec(),
    };
    while let Some(option) = arguments.next() {
        if option == "--list" {
            return Ok(None);
        }
        let value = arguments.next().ok_or_else(|| format!("{option}: expected a value"))?;
        match option.as_str() {
            "--scenes" => wish.scenes = named(&value)?,
            "--modes" => wish.modes = modes(&value)?,
            "--out" => wish.out = value.into(),
            "--spillway" => wish.spillway = value.into(),
            "--calm" => wish.calm = seconds(&option, &value)?,
            "--storm" => wish.storm = seconds(&option, &value)?,
            "--after" => wish.after = seconds(&option, &value)?,
            "--nodes" => wish.nodes = number(&option, &value, NODES_MAX)?,
            "--pods" => wish.pods = number(&option, &value, PODS_MAX)?,
            "--agents" => wish.agents = number(&option, &value, AGENTS_MAX)?,
            "--lane" => wish.lane = Some(number(&option, &value, TRIALS_MAX)?),
            "--adversity" => {
                let one = Adversity::ALL.into_iter().find(|one| one.short() == value);
                wish.adversities = vec![one.ok_or_else(|| format!("{value}: not an adversity"))?];
            }
            other => return Err(format!("{other}: not an option")),
        }
    }
    Ok(Some(wish))
}

fn named(names: &str) -> Result<Vec<&'static Scene>, String> {
    if names.trim() == "all" {
        return Ok(super::scene::ALL.iter().collect());
    }
    let find = |name| super::scene::find(name).ok_or_else(|| format!("{name}: not a scene; see --list"));
    names.split_whitespace().map(find).collect()
}

fn modes(names: &str) -> Result<Vec<Mode>, String> {
    names
        .split_whitespace()
        .map(|name| Mode::find(name).ok_or_else(|| format!("{name}: not a mode")))
        .collect()
}

fn seconds(option: &str, value: &str) -> Result<Duration, String> {
    number(option, value, SECONDS_MAX as usize).map(|seconds| Duration::from_secs(seconds as u64))
}

fn number(option: &str, value: &str, max: usize) -> Result<usize, String> {
    let read = value.parse().ok().filter(|number| (1..=max).contains(number));
    read.ok_or_else(|| format!("{option}: expected a whole number from 1 to {max}, not {value:?}"))
}

/// `SPILLWAY_BIN`, or the program that the same build has put beside us.
fn beside_us() -> PathBuf {
    if let Some(named) = env::var_os("SPILLWAY_BIN") {
        return named.into();
    }
    let ours = env::current_exe().unwrap_or_default();
    ours.ancestors().nth(2).map_or_else(|| "spillway".into(), |profile| profile.join("spillway"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(arguments: &[&str]) -> Result<Option<Wish>, String> {
        read(arguments.iter().map(|&argument| argument.into()))
    }

    #[test]
    fn an_unknown_scene_mode_option_or_number_is_refused_by_name() {
        for wrong in [
            ["--scenes", "lost"],
            ["--modes", "lost"],
            ["--lost", "1"],
            ["--storm", "lost"],
            ["--adversity", "lost"],
        ] {
            let why = ask(&wrong).err().unwrap_or_default();
            assert!(why.contains("lost"), "{wrong:?} says {why:?}");
        }
        assert!(ask(&["--pods", "20001"]).is_err(), "names of pods have five digits");
    }

    #[test]
    fn all_means_every_scene() {
        let wish = ask(&["--scenes", "all"]).ok().flatten().expect("a wish");
        assert_eq!(wish.scenes.len(), super::super::scene::ALL.len());
    }
}

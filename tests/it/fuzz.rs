//! Do the inputs that fuzzing has gathered still behave?
//!
//! `fuzz/src` says what must hold for any input, `fuzz/corpus` has inputs worth trying: each was written by hand because it
//! means something, or was found by the fuzzer because it once failed. `make fuzz` looks for more.

// Clippy's own exception for tests ends at the functions marked as tests; what they call are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../../fuzz/src/lib.rs"]
mod targets;

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use proptest::prelude::*;

/// Fewer inputs than this say little.
const INPUTS_MIN: usize = 10;
/// A corpus is to be read by people.
const INPUT_BYTES_MAX: u64 = 4096;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(name)
}

/// The files of a target's corpus.
fn corpus(target: &str) -> Vec<PathBuf> {
    let folder = folder("corpus").join(target);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn every_input_of_every_corpus_behaves() {
    let mut failed = Vec::new();
    for (name, run) in targets::TARGETS {
        for file in corpus(name) {
            let input = fs::read(&file).unwrap();
            if catch_unwind(AssertUnwindSafe(|| run(&input))).is_err() {
                failed.push(file.display().to_string());
            }
        }
    }
    assert!(failed.is_empty(), "what was expected stands above; these inputs fail:\n{}", failed.join("\n"));
}

#[test]
fn every_target_has_a_program_and_a_corpus_that_can_be_read() {
    let manifest = fs::read_to_string(folder("Cargo.toml")).unwrap();
    let programs: Vec<_> =
        manifest.lines().filter_map(|line| line.strip_prefix("path = \"fuzz_targets/")).collect();
    assert_eq!(programs.len(), targets::TARGETS.len());
    for (name, _) in targets::TARGETS {
        assert!(programs.contains(&&*format!("{name}.rs\"")), "{name} is not in fuzz/Cargo.toml");
        let program = fs::read_to_string(folder("fuzz_targets").join(format!("{name}.rs"))).unwrap();
        assert!(program.contains(&format!("spillway_fuzz::{name}::run(input)")), "{name}");
        let corpus = corpus(name);
        assert!(corpus.len() >= INPUTS_MIN, "{name} has {} inputs", corpus.len());
        for file in corpus {
            assert!(fs::metadata(&file).unwrap().len() <= INPUT_BYTES_MAX, "{}", file.display());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What the fuzzer does for minutes, for a moment: inputs of the corpus, spliced.
    #[test]
    fn no_splice_of_two_inputs_misbehaves(
        target in 0..targets::TARGETS.len(),
        which in any::<[prop::sample::Index; 2]>(),
        cut in any::<[prop::sample::Index; 2]>(),
    ) {
        let (name, run) = targets::TARGETS[target];
        let files = corpus(name);
        let [head, tail] = which.map(|which| fs::read(which.get(&files)).unwrap());
        let at = |index: &prop::sample::Index, bytes: &[u8]| index.index(bytes.len() + 1);
        let input = [&head[..at(&cut[0], &head)], &tail[at(&cut[1], &tail)..]].concat();
        run(&input);
    }
}

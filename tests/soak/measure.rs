//! How well did it go? Numbers from the notes of a run; pure, so that the definitions can be tested.
//!
//! Renewals are counted against those **due**: a node that is stuck in a try does not make the next one, so the share
//! of its attempts flatters it. A renewal is due one period after the last one was done, and again every ten seconds
//! for as long as it is not done; it is on time when it is done within the ten seconds of the kubelet's own timeout.

use std::ops::Range;

use serde::Serialize;

use super::journal::{Call, Node};

/// The kubelet's timeout for one try, and the rhythm in which a stuck node owes renewals.
const PATIENCE: f64 = 10.0;
/// A node whose lease is older is NotReady: kube-controller-manager's default until Kubernetes 1.31, 40 s.
const GRACE: f64 = 40.0;
/// Latency is judged in pieces of this many seconds: 25 renewals of 500 nodes.
const PIECE: f64 = 0.5;
/// So many good pieces in a row make it good.
const GOOD_PIECES: usize = 4;
/// The share of renewals in a piece that may be slower than the objective.
const SLOW_SHARE: f64 = 0.1;
/// The share of pieces from then on that may be bad without ending the protection: a single pause is no outage.
const BAD_SHARE: f64 = 0.1;
/// An operator's sequence of three calls that takes longer is a bad one.
const SEQUENCE: f64 = 2.0;

/// The value that this share of `calls` stayed at or below; of successes.
pub(crate) fn quantile(calls: &[Call], share: f64) -> Option<f64> {
    let mut took: Vec<f64> = calls.iter().filter(|call| call.ok).map(|call| call.took).collect();
    took.sort_unstable_by(f64::total_cmp);
    // The nearest rank: of 100 values the 99th, not the largest.
    let rank = (took.len() as f64 * share).ceil() as usize;
    took.get(rank.max(1) - 1).copied()
}

/// The calls that began within `window`.
pub(crate) fn within(calls: &[Call], window: &Range<f64>) -> Vec<Call> {
    calls.iter().copied().filter(|call| window.contains(&call.at)).collect()
}

/// How the nodes fared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Renewals {
    pub(crate) due: u64,
    pub(crate) on_time: u64,
    /// The longest time that a lease was not renewed, in seconds.
    pub(crate) longest_gap: f64,
    /// Nodes whose lease was older than allowed at some moment.
    pub(crate) not_ready: u64,
}

/// Renewals that fell due in `window`; gaps from its start to `end`, the end of the run.
pub(crate) fn renewals(nodes: &[Node], window: &Range<f64>, end: f64) -> Renewals {
    let mut sum = Renewals::default();
    for node in nodes {
        for &(due, done) in &node.renewed {
            owe(&mut sum, window, due, done, true);
        }
        if let Some(due) = node.open {
            owe(&mut sum, window, due, end, false);
        }
        let gap = longest_gap(node, window.start, end);
        sum.longest_gap = sum.longest_gap.max(gap);
        sum.not_ready += u64::from(gap > GRACE);
    }
    sum
}

/// Counts one renewal that was due at `due` and settled at `settled`, and those that fell due in between.
fn owe(sum: &mut Renewals, window: &Range<f64>, due: f64, settled: f64, done: bool) {
    let missed = ((settled - due) / PATIENCE).floor().max(0.0) as u32;
    for number in 0..missed {
        sum.due += u64::from(window.contains(&(due + PATIENCE * f64::from(number))));
    }
    if done && window.contains(&(due + PATIENCE * f64::from(missed))) {
        sum.due += 1;
        sum.on_time += 1;
    }
}

fn longest_gap(node: &Node, from: f64, end: f64) -> f64 {
    let done = node.renewed.iter().map(|&(_, done)| done);
    let mut longest = 0.0_f64;
    let mut last = None;
    for now in done.chain([end]) {
        if let Some(last) = last.filter(|_| now >= from) {
            longest = longest.max(now - last);
        }
        last = Some(now);
    }
    // A node that has never renewed has been out of touch all the time.
    if node.renewed.is_empty() { end } else { longest }
}

/// Seconds from `window.start` until leases and operators are, and stay, within their objectives; none when they do
/// not before `window.end`.
pub(crate) fn protected(
    leases: &[Call],
    operator: &[Call],
    window: &Range<f64>,
    objective: f64,
) -> Option<f64> {
    let pieces = ((window.end - window.start) / PIECE).floor() as usize;
    let good: Vec<bool> = (0..pieces)
        .map(|piece| {
            let from = window.start + piece as f64 * PIECE;
            is_good(leases, operator, &(from..from + PIECE), objective)
        })
        .collect();
    let stays = |from: usize| {
        let rest = &good[from..];
        let bad = rest.iter().filter(|good| !**good).count();
        rest.len() >= GOOD_PIECES
            && rest[..GOOD_PIECES].iter().all(|good| *good)
            && bad as f64 <= rest.len() as f64 * BAD_SHARE
    };
    (0..pieces).find(|&piece| stays(piece)).map(|piece| piece as f64 * PIECE)
}

fn is_good(leases: &[Call], operator: &[Call], piece: &Range<f64>, objective: f64) -> bool {
    let leases = within(leases, piece);
    let slow = leases.iter().filter(|call| !call.ok || call.took > objective).count();
    let operator = within(operator, piece);
    slow as f64 <= leases.len() as f64 * SLOW_SHARE
        && operator.iter().all(|call| call.ok && call.took <= SEQUENCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls(started: &[(f64, f64)]) -> Vec<Call> {
        started.iter().map(|&(at, took)| Call { at, took, ok: took < 10.0 }).collect()
    }

    #[test]
    fn a_quantile_is_a_value_that_was_measured_and_failures_are_left_out() {
        let mut made: Vec<_> = (1..=100).map(|n| (0.0, f64::from(n) / 100.0)).collect();
        made.push((0.0, 10.0));
        assert_eq!(quantile(&calls(&made), 0.99), Some(0.99));
        assert_eq!(quantile(&calls(&made), 0.5), Some(0.5));
        assert_eq!(quantile(&calls(&[(0.0, 10.0)]), 0.5), None);
    }

    #[test]
    fn a_stuck_node_owes_what_it_did_not_try() {
        // Renewed at 5, due at 15, done at 40: of the renewals due at 15, 25 and 35 the last one was on time.
        let node = Node { renewed: vec![(5.0, 5.0), (15.0, 40.0)], open: Some(50.0) };
        let seen = renewals(&[node], &(10.0..50.0), 55.0);
        assert_eq!((seen.due, seen.on_time), (3, 1));
        assert_eq!((seen.longest_gap, seen.not_ready), (35.0, 0));
    }

    #[test]
    fn a_node_that_is_never_heard_of_again_is_not_ready() {
        let node = Node { renewed: vec![(5.0, 5.0)], open: Some(15.0) };
        let seen = renewals(&[node], &(10.0..50.0), 60.0);
        assert_eq!((seen.due, seen.on_time, seen.not_ready), (4, 0, 1));
    }

    #[test]
    fn protection_begins_when_latency_falls_and_stays_low() {
        let slow = (0..30).map(|n| (f64::from(n) * 0.1, 2.0));
        let fast = (30..200).map(|n| (f64::from(n) * 0.1, 0.01));
        let all: Vec<_> = slow.chain(fast).collect();
        assert_eq!(protected(&calls(&all), &[], &(0.0..20.0), 0.25), Some(3.0));
    }

    #[test]
    fn a_single_pause_does_not_end_protection_but_slow_leases_do() {
        let once: Vec<_> =
            (0..200).map(|n| (f64::from(n) * 0.1, if n == 100 { 2.0 } else { 0.01 })).collect();
        assert_eq!(protected(&calls(&once), &[], &(0.0..20.0), 0.25), Some(0.0));
        let often: Vec<_> =
            (0..200).map(|n| (f64::from(n) * 0.1, if n % 3 == 0 { 2.0 } else { 0.01 })).collect();
        assert_eq!(protected(&calls(&often), &[], &(0.0..20.0), 0.25), None);
    }

    #[test]
    fn an_operator_who_fails_is_not_protected() {
        let fast: Vec<_> = (0..200).map(|n| (f64::from(n) * 0.1, 0.01)).collect();
        let lost: Vec<_> = (0..20).map(|n| (f64::from(n), 10.0)).collect();
        assert_eq!(protected(&calls(&fast), &calls(&lost), &(0.0..20.0), 0.25), None);
    }
}

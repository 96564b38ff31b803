//! Which part of the screen gets how many lines?
//!
//! The verdict and the keys always have theirs. Of the rest lanes come first: they answer whether the cluster is safe. Who
//! hurts needs three rows to be a list, and everything else is given away before that.

/// Lines of the lanes with their heading.
pub(super) const LANES: usize = 9;
/// The list of clients is one with this many rows.
const ROWS_LEAST: usize = 3;
/// Events shown next to a full list.
const EVENTS_LEAST: usize = 3;
/// Findings on a screen of ordinary height, and on a tall one.
const FINDINGS: usize = 2;
const FINDINGS_TALL: usize = 5;
const TALL: usize = 30;

/// Lines of each part; headings are included, and a part that is not shown has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Parts {
    pub(super) findings: usize,
    pub(super) lanes: usize,
    pub(super) clients: usize,
    pub(super) events: usize,
}

/// Divides `height` lines of which `fixed` are taken, for that many findings, clients and events.
pub(super) fn divide(height: usize, fixed: usize, findings: usize, clients: usize, events: usize) -> Parts {
    let mut left = height.saturating_sub(fixed);
    let mut parts = Parts::default();
    let list_least = 1 + ROWS_LEAST;
    if left >= LANES + list_least {
        parts.lanes = LANES;
        left -= LANES;
    }
    let most = if height >= TALL { FINDINGS_TALL } else { FINDINGS };
    parts.findings = findings.min(most).min(left.saturating_sub(list_least));
    left -= parts.findings;
    let list = 1 + clients.max(1);
    // A third for what happened, more where the list is short; a heading alone says nothing.
    let events_most = (left / 3).max(left.saturating_sub(list)).min(1 + events.max(1));
    if events_most >= 2 && left >= list_least + 2 {
        parts.events = events_most.max((1 + EVENTS_LEAST).min(left - list_least).min(1 + events.max(1)));
        left -= parts.events;
    }
    parts.clients = left.min(list);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_given_twice_and_the_list_stays_a_list() {
        for height in 0..80 {
            for (findings, clients, events) in [(0, 0, 0), (9, 20, 100), (1, 2, 100), (9, 20, 0)] {
                let parts = divide(height, 4, findings, clients, events);
                let Parts { findings, lanes, clients: list, events } = parts;
                assert!(findings + lanes + list + events <= height.saturating_sub(4), "{height} {parts:?}");
                let shown = list.saturating_sub(1);
                assert!(lanes == 0 || shown >= clients.min(ROWS_LEAST), "{height} {parts:?}");
            }
        }
        let usual = divide(24, 4, 6, 20, 100);
        assert_eq!(usual, Parts { findings: 2, lanes: 9, clients: 5, events: 4 });
        assert_eq!(divide(10, 4, 6, 20, 100), Parts { findings: 2, lanes: 0, clients: 4, events: 0 });
    }
}

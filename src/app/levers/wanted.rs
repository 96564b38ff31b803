//! Which levers are pulled, by whom and until when?

use crate::flow::levers::{Containment, Isolation, LimitHold, Lockdown};
use crate::units::Instant;

/// Where a lever comes from. Times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    /// Why, in the operator's words.
    pub(super) reason: String,
    /// When it was pulled.
    pub(super) since: u64,
    /// When it ends.
    pub(super) ends_at: u64,
    /// Who pulled it.
    pub(super) by: String,
}

/// Everything that is pulled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The oldest first.
    pub(super) isolations: Vec<(Isolation, Origin)>,
    pub(super) lockdown: Option<(Lockdown, Origin)>,
    pub(super) hold: Option<(LimitHold, Origin)>,
}

/// What came back by itself.
#[derive(Debug, Default)]
pub(super) struct Over {
    pub(super) isolations: Vec<(Isolation, Origin)>,
    pub(super) lockdown: Option<(Lockdown, Origin)>,
    pub(super) hold: Option<(LimitHold, Origin)>,
}

impl Over {
    pub(super) fn is_empty(&self) -> bool {
        self.isolations.is_empty() && self.lockdown.is_none() && self.hold.is_none()
    }
}

impl Wanted {
    /// In the form that judges.
    pub(super) fn containment(&self) -> Containment {
        Containment {
            isolations: self.isolations.iter().map(|(isolation, _)| isolation.clone()).collect(),
            lockdown: self.lockdown.as_ref().map(|(lockdown, _)| lockdown.clone()),
        }
    }

    /// Takes out what is over.
    pub(super) fn expire(&mut self, now: Instant) -> Over {
        let (over, kept) = std::mem::take(&mut self.isolations)
            .into_iter()
            .partition(|(isolation, _)| isolation.until <= now);
        self.isolations = kept;
        Over {
            isolations: over,
            lockdown: self.lockdown.take_if(|(lockdown, _)| lockdown.until <= now),
            hold: self.hold.take_if(|(hold, _)| hold.until <= now),
        }
    }
}

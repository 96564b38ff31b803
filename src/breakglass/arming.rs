//! Must somebody say why before the lane opens, and has somebody?
//!
//! By default a certificate suffices. With `Reasoned` a person gives a reason and a ticket first, for a bounded time;
//! with `TwoPerson` a second named person confirms. Nobody is ever locked out for want of a second person: alone means
//! a shorter time, a louder record. Pure: times are arguments, and monotonic, so that a clock that jumps neither closes
//! nor prolongs anything; over a restart a grant keeps at most the rest it had.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::grant::Good;
use crate::units::Instant;

/// What opens the lane beside a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Nothing else.
    #[default]
    Open,
    /// A reason and a ticket.
    Reasoned,
    /// These, and a second person.
    TwoPerson,
}

impl Mode {
    /// The word of the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "Open",
            Self::Reasoned => "Reasoned",
            Self::TwoPerson => "TwoPerson",
        }
    }
}

/// The longest grant.
pub(super) const GRANT_MAX: Duration = Duration::from_secs(4 * 3_600);
/// The shortest.
pub(super) const GRANT_MIN: Duration = Duration::from_secs(60);
/// What a reason in a header opens, and `arm` without `--for`.
pub const GRANT_DEFAULT: Duration = Duration::from_secs(3_600);
/// What one person alone gets where two are wanted.
pub(super) const ALONE_MAX: Duration = Duration::from_secs(15 * 60);
/// How long a wish waits for its second person.
pub(super) const WISH_LASTS: Duration = Duration::from_secs(15 * 60);
/// Bytes of a reason.
pub(super) const REASON_BYTES_MAX: usize = 512;
/// Bytes of a ticket.
pub(super) const TICKET_BYTES_MAX: usize = 128;
/// Grants, and wishes, at a time: people, not programs.
const PEOPLE_MAX: usize = 64;
/// What somebody reads where only signed grants count.
pub(super) const GRANT_NEEDED: &str = "this lane wants a signed grant (breakGlass.grants.required): whoever holds the grant key runs `spillway break-glass \
     grant`, then you run: spillway break-glass arm --grant FILE --kubeconfig FILE";

/// Somebody with a verified certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Person {
    /// The common name.
    pub user: String,
    /// Names the certificate.
    pub fingerprint: String,
}

/// What somebody asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    /// Why.
    pub reason: String,
    /// Under which ticket.
    pub ticket: String,
    /// For how long.
    pub length: Duration,
    /// Without a second person, where one is wanted.
    pub alone: bool,
}

/// The lane is open for somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    /// For whom.
    pub person: Person,
    /// Why.
    pub reason: String,
    /// Under which ticket.
    pub ticket: String,
    /// Who confirmed.
    pub second: Option<String>,
    /// One person opened what two should.
    pub alone: bool,
    /// Until then.
    pub until: Instant,
    /// The signed grant that opened it.
    pub signed: Option<Signed>,
}

/// Names a signed grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Signed {
    /// Its number.
    pub id: String,
    /// Who signed it.
    pub by: String,
}

/// What became of a wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Armed {
    /// The lane is open.
    Now(Grant),
    /// A second person has to confirm.
    Waiting,
}

/// A wish that cannot be granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ArmError {
    /// No reason, or one that is no text.
    #[error(
        "a reason of 1 to {REASON_BYTES_MAX} printable characters is needed: --reason 'delete the DaemonSet that floods the apiserver'"
    )]
    Reason,
    /// No ticket, or one that is no text.
    #[error("a ticket of 1 to {TICKET_BYTES_MAX} printable characters is needed: --ticket INC-481")]
    Ticket,
    /// Too long or too short.
    #[error(
        "the lane opens for 1m to 4h at a time (15m for one person alone); arm again when it is not enough"
    )]
    Length,
    /// Nobody of that name waits.
    #[error(
        "nobody of that name waits for a second person; `spillway break-glass arm` comes first, and waits 15m"
    )]
    NobodyWaits,
    /// The same person, or certificate.
    #[error("the second person must be another one, with a certificate of their own")]
    SamePerson,
    /// The table is full.
    #[error("too many people have armed the lane at once; `spillway break-glass disarm` frees a place")]
    Full,
    /// Only a signed grant arms it.
    #[error("{GRANT_NEEDED}")]
    GrantNeeded,
    /// Nothing to arm.
    #[error("this lane needs no arming: breakGlass.arming is Open, the certificate suffices")]
    NotNeeded,
}

/// Who has opened the lane.
#[derive(Debug)]
pub(super) struct Arming {
    mode: Mode,
    /// Only signed grants count (`breakGlass.grants.required`).
    signed_only: bool,
    /// By the certificate's fingerprint.
    grants: HashMap<String, Grant>,
    wishes: HashMap<String, (Person, Wish, Instant)>,
}

/// A grant as the state file keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Kept {
    user: String,
    fingerprint: String,
    reason: String,
    ticket: String,
    second: Option<String>,
    alone: bool,
    /// Seconds since 1970.
    until: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signed: Option<Signed>,
}

impl Arming {
    /// Nobody has armed anything.
    #[must_use]
    pub(super) fn new(mode: Mode) -> Self {
        Self { mode, signed_only: false, grants: HashMap::new(), wishes: HashMap::new() }
    }

    /// With `true`, only signed grants open the lane.
    #[must_use]
    pub(super) const fn only_signed(mut self, signed_only: bool) -> Self {
        self.signed_only = signed_only;
        self
    }

    /// Whether only signed grants open the lane.
    #[must_use]
    pub(super) const fn is_only_signed(&self) -> bool {
        self.signed_only
    }

    /// What opens the lane.
    #[must_use]
    pub(super) const fn mode(&self) -> Mode {
        self.mode
    }

    /// The grant that lets this certificate in; `Ok(None)` where none is needed.
    ///
    /// # Errors
    /// When one is needed and there is none.
    pub(super) fn grant(&self, fingerprint: &str, now: Instant) -> Result<Option<&Grant>, ()> {
        let counts = |grant: &&Grant| now < grant.until && (!self.signed_only || grant.signed.is_some());
        match self.grants.get(fingerprint).filter(counts) {
            None if self.mode != Mode::Open || self.signed_only => Err(()),
            // Where none is needed, one that somebody has shown is still written down.
            grant => Ok(grant),
        }
    }

    /// Somebody says why.
    ///
    /// # Errors
    /// When that is not enough.
    pub(super) fn arm(&mut self, person: &Person, wish: Wish, now: Instant) -> Result<Armed, ArmError> {
        if self.signed_only {
            return Err(ArmError::GrantNeeded);
        }
        if self.mode == Mode::Open {
            return Err(ArmError::NotNeeded);
        }
        check(&wish)?;
        let alone = wish.alone && self.mode == Mode::TwoPerson;
        if alone && wish.length > ALONE_MAX {
            return Err(ArmError::Length);
        }
        self.wishes.retain(|_, (_, _, end)| now < *end);
        if self.mode == Mode::Reasoned || alone {
            return self.open(person.clone(), wish, None, alone, now).map(Armed::Now);
        }
        if self.wishes.len() >= PEOPLE_MAX && !self.wishes.contains_key(&person.user) {
            return Err(ArmError::Full);
        }
        self.wishes.insert(person.user.clone(), (person.clone(), wish, now + WISH_LASTS));
        Ok(Armed::Waiting)
    }

    /// Whether this grant has opened the lane already.
    #[must_use]
    pub(super) fn has_signed(&self, fingerprint: &str, id: &str, now: Instant) -> bool {
        let grant = self.grants.get(fingerprint).filter(|grant| now < grant.until);
        grant.and_then(|grant| grant.signed.as_ref()).is_some_and(|signed| signed.id == id)
    }

    /// Somebody shows a signed grant. Who signed it is the second person; shown again, it opens for no longer.
    ///
    /// # Errors
    /// When two people are wanted and it is the same one, or there is no place.
    pub(super) fn arm_signed(
        &mut self,
        person: &Person,
        good: Good,
        now: Instant,
    ) -> Result<Grant, ArmError> {
        if self.has_signed(&person.fingerprint, &good.id, now)
            && let Some(grant) = self.grants.get(&person.fingerprint)
        {
            return Ok(grant.clone());
        }
        let Good { id, by, reason, ticket, left } = good;
        if self.mode == Mode::TwoPerson && by.eq_ignore_ascii_case(&person.user) {
            return Err(ArmError::SamePerson);
        }
        let second = (self.mode == Mode::TwoPerson).then(|| by.clone());
        let wish = Wish { reason, ticket, length: left, alone: false };
        let mut grant = self.open(person.clone(), wish, second, false, now)?;
        grant.signed = Some(Signed { id, by });
        self.grants.insert(person.fingerprint.clone(), grant.clone());
        Ok(grant)
    }

    /// A second person confirms what `user` asked for.
    ///
    /// # Errors
    /// When nobody of that name waits, or it is the same person.
    pub(super) fn confirm(&mut self, second: &Person, user: &str, now: Instant) -> Result<Grant, ArmError> {
        let (person, wish, end) = self.wishes.get(user).ok_or(ArmError::NobodyWaits)?.clone();
        if now >= end {
            self.wishes.remove(user);
            return Err(ArmError::NobodyWaits);
        }
        let same = person.user.eq_ignore_ascii_case(&second.user) || person.fingerprint == second.fingerprint;
        if same {
            return Err(ArmError::SamePerson);
        }
        self.wishes.remove(user);
        self.open(person, wish, Some(second.user.clone()), false, now)
    }

    fn open(
        &mut self,
        person: Person,
        wish: Wish,
        second: Option<String>,
        alone: bool,
        now: Instant,
    ) -> Result<Grant, ArmError> {
        self.grants.retain(|_, grant| now < grant.until);
        if self.grants.len() >= PEOPLE_MAX && !self.grants.contains_key(&person.fingerprint) {
            return Err(ArmError::Full);
        }
        let Wish { reason, ticket, length, .. } = wish;
        let grant = Grant { person, reason, ticket, second, alone, until: now + length, signed: None };
        self.grants.insert(grant.person.fingerprint.clone(), grant.clone());
        Ok(grant)
    }

    /// Closes the lane for a certificate.
    pub(super) fn disarm(&mut self, fingerprint: &str) -> Option<Grant> {
        self.grants.remove(fingerprint)
    }

    /// Takes out the grants that have ended.
    pub(super) fn expired(&mut self, now: Instant) -> Vec<Grant> {
        let ended: Vec<_> = self.grants.values().filter(|grant| now >= grant.until).cloned().collect();
        self.grants.retain(|_, grant| now < grant.until);
        ended
    }

    /// Everybody for whom the lane is open.
    #[must_use]
    pub(super) fn grants(&self, now: Instant) -> Vec<&Grant> {
        self.grants.values().filter(|grant| now < grant.until).collect()
    }

    /// Who waits for a second person, and what for.
    #[must_use]
    pub(super) fn wishes(&self, now: Instant) -> Vec<(&Person, &Wish)> {
        self.wishes
            .values()
            .filter(|(_, _, end)| now < *end)
            .map(|(person, wish, _)| (person, wish))
            .collect()
    }

    /// What survives a restart.
    #[must_use]
    pub(super) fn keep(&self, now: Instant, wall: SystemTime) -> Vec<Kept> {
        let since_epoch = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let keep = |grant: &Grant| Kept {
            user: grant.person.user.clone(),
            fingerprint: grant.person.fingerprint.clone(),
            reason: grant.reason.clone(),
            ticket: grant.ticket.clone(),
            second: grant.second.clone(),
            alone: grant.alone,
            until: (since_epoch + grant.until.since(now)).as_secs(),
            signed: grant.signed.clone(),
        };
        self.grants(now).into_iter().map(keep).collect()
    }

    /// Takes grants over from before a restart. A clock that went back gives nobody more than [`GRANT_MAX`].
    pub(super) fn recall(&mut self, kept: Vec<Kept>, now: Instant, wall: SystemTime) -> usize {
        let since_epoch = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        for kept in kept.into_iter().take(PEOPLE_MAX) {
            let left = Duration::from_secs(kept.until.saturating_sub(since_epoch)).min(GRANT_MAX);
            if kept.signed.is_none() && (self.mode == Mode::Open || self.signed_only)
                || left.is_zero()
                || (self.mode == Mode::TwoPerson && kept.second.is_none() && !kept.alone)
            {
                continue;
            }
            let Kept { user, fingerprint, reason, ticket, second, alone, signed, .. } = kept;
            let person = Person { user, fingerprint: fingerprint.clone() };
            let until = now + left;
            self.grants.insert(fingerprint, Grant { person, reason, ticket, second, alone, until, signed });
        }
        self.grants.len()
    }
}

fn check(wish: &Wish) -> Result<(), ArmError> {
    let fits = |text: &str, most: usize| {
        !text.trim().is_empty() && text.len() <= most && !text.chars().any(char::is_control)
    };
    if !fits(&wish.reason, REASON_BYTES_MAX) {
        Err(ArmError::Reason)
    } else if !fits(&wish.ticket, TICKET_BYTES_MAX) {
        Err(ArmError::Ticket)
    } else if !(GRANT_MIN..=GRANT_MAX).contains(&wish.length) {
        Err(ArmError::Length)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: u64) -> Instant {
        Instant::ORIGIN + Duration::from_secs(minutes * 60)
    }

    fn wall(minutes: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000 + minutes * 60)
    }

    fn person(user: &str) -> Person {
        Person { user: user.into(), fingerprint: format!("of {user}") }
    }

    fn wish(minutes: u64) -> Wish {
        let length = Duration::from_secs(minutes * 60);
        Wish { reason: "storm".into(), ticket: "INC-1".into(), length, alone: false }
    }

    #[test]
    fn without_arming_a_certificate_suffices() {
        let mut arming = Arming::new(Mode::Open);
        assert_eq!(arming.grant("of ada", at(0)), Ok(None));
        assert_eq!(arming.arm(&person("ada"), wish(60), at(0)), Err(ArmError::NotNeeded));
    }

    #[test]
    fn a_reason_opens_the_lane_for_one_certificate_and_a_time() {
        let mut arming = Arming::new(Mode::Reasoned);
        assert_eq!(arming.grant("of ada", at(0)), Err(()));
        arming.arm(&person("ada"), wish(60), at(0)).unwrap();
        assert!(arming.grant("of ada", at(59)).is_ok());
        assert!(arming.grant("of bob", at(59)).is_err());
        assert!(arming.grant("of ada", at(60)).is_err());
        assert_eq!(arming.expired(at(60)).len(), 1);
        for (reason, ticket, minutes, error) in [
            (" ", "INC-1", 60, ArmError::Reason),
            ("a\nb", "INC-1", 60, ArmError::Reason),
            ("storm", "", 60, ArmError::Ticket),
            ("storm", "INC-1", 241, ArmError::Length),
            ("storm", "INC-1", 0, ArmError::Length),
        ] {
            let wish = Wish { reason: reason.into(), ticket: ticket.into(), ..wish(minutes) };
            assert_eq!(arming.arm(&person("ada"), wish, at(0)), Err(error));
        }
    }

    #[test]
    fn two_are_two_people_with_two_certificates() {
        let mut arming = Arming::new(Mode::TwoPerson);
        assert_eq!(arming.arm(&person("ada"), wish(60), at(0)), Ok(Armed::Waiting));
        assert!(arming.grant("of ada", at(1)).is_err());
        assert_eq!(arming.confirm(&person("ADA"), "ada", at(1)), Err(ArmError::SamePerson));
        let second_certificate = Person { user: "bob".into(), fingerprint: "of ada".into() };
        assert_eq!(arming.confirm(&second_certificate, "ada", at(1)), Err(ArmError::SamePerson));
        assert_eq!(arming.confirm(&person("bob"), "eve", at(1)), Err(ArmError::NobodyWaits));
        let grant = arming.confirm(&person("bob"), "ada", at(1)).unwrap();
        assert_eq!(grant.second.as_deref(), Some("bob"));
        assert!(arming.grant("of ada", at(2)).is_ok() && arming.grant("of bob", at(2)).is_err());
        arming.arm(&person("eve"), wish(60), at(0)).unwrap();
        assert_eq!(arming.confirm(&person("bob"), "eve", at(15)), Err(ArmError::NobodyWaits), "too late");
    }

    #[test]
    fn one_person_alone_gets_in_for_a_quarter_of_an_hour() {
        let mut arming = Arming::new(Mode::TwoPerson);
        let alone = |minutes| Wish { alone: true, ..wish(minutes) };
        assert_eq!(arming.arm(&person("ada"), alone(60), at(0)), Err(ArmError::Length));
        let Ok(Armed::Now(grant)) = arming.arm(&person("ada"), alone(15), at(0)) else { panic!("not armed") };
        assert!(grant.alone && grant.second.is_none());
        assert!(arming.grant("of ada", at(14)).is_ok() && arming.grant("of ada", at(15)).is_err());
    }

    #[test]
    fn a_restart_keeps_the_rest_and_a_clock_that_goes_back_gives_no_more() {
        let mut arming = Arming::new(Mode::Reasoned);
        arming.arm(&person("ada"), wish(60), at(0)).unwrap();
        let kept = arming.keep(at(10), wall(10));
        for (clock, minutes) in [(20, 40), (70, 0), (0, 60)] {
            let mut again = Arming::new(Mode::Reasoned);
            again.recall(kept.clone(), at(0), wall(clock));
            assert_eq!(again.grant("of ada", at(0)).is_ok(), minutes > 0, "at {clock}");
            assert!(again.grant("of ada", at(minutes)).is_err(), "at {clock}");
        }
        let mut again = Arming::new(Mode::Reasoned);
        again.recall(kept.clone(), at(0), SystemTime::UNIX_EPOCH);
        assert!(again.grant("of ada", at(239)).is_ok() && again.grant("of ada", at(240)).is_err());
        // What one person armed does not open what two must.
        let mut two = Arming::new(Mode::TwoPerson);
        assert_eq!(two.recall(kept, at(0), wall(10)), 0);
    }

    fn good(id: &str, by: &str, minutes: u64) -> Good {
        let left = Duration::from_secs(minutes * 60);
        Good { id: id.into(), by: by.into(), reason: "storm".into(), ticket: "INC-1".into(), left }
    }

    #[test]
    fn a_signed_grant_arms_in_every_mode_and_shown_again_it_opens_for_no_longer() {
        for mode in [Mode::Open, Mode::Reasoned, Mode::TwoPerson] {
            let mut arming = Arming::new(mode);
            let grant = arming.arm_signed(&person("ada"), good("1", "bob", 60), at(0)).unwrap();
            assert_eq!(grant.second.as_deref(), (mode == Mode::TwoPerson).then_some("bob"));
            assert!(arming.has_signed("of ada", "1", at(59)) && !arming.has_signed("of ada", "2", at(59)));
            let again = arming.arm_signed(&person("ada"), good("1", "bob", 60), at(30)).unwrap();
            assert_eq!(again.until, grant.until);
            assert_eq!(arming.grant("of ada", at(30)), Ok(Some(&grant)), "{mode:?}");
            assert_eq!(arming.grant("of ada", at(60)).is_ok(), mode == Mode::Open);
        }
        // Who holds the key and grants to themselves is still one person.
        let mut two = Arming::new(Mode::TwoPerson);
        assert_eq!(two.arm_signed(&person("ada"), good("1", "Ada", 60), at(0)), Err(ArmError::SamePerson));
    }

    #[test]
    fn where_grants_are_required_nothing_else_opens_the_lane() {
        let mut reasoned = Arming::new(Mode::Reasoned);
        reasoned.arm(&person("eve"), wish(60), at(0)).unwrap();
        let unsigned = reasoned.keep(at(0), wall(0));
        for mode in [Mode::Open, Mode::Reasoned] {
            let mut arming = Arming::new(mode).only_signed(true);
            assert_eq!(arming.grant("of ada", at(0)), Err(()));
            assert_eq!(arming.arm(&person("ada"), wish(60), at(0)), Err(ArmError::GrantNeeded));
            arming.arm_signed(&person("ada"), good("1", "bob", 60), at(0)).unwrap();
            assert!(arming.grant("of ada", at(59)).is_ok());
            // Over a restart the signed one stays, and what was armed before grants were required does not.
            let mut again = Arming::new(mode).only_signed(true);
            let kept = [arming.keep(at(10), wall(10)), unsigned.clone()].concat();
            assert_eq!(again.recall(kept, at(0), wall(10)), 1);
            assert!(again.has_signed("of ada", "1", at(49)) && again.grant("of ada", at(50)).is_err());
        }
    }

    #[test]
    fn the_tables_are_bounded() {
        let mut arming = Arming::new(Mode::Reasoned);
        for number in 0..PEOPLE_MAX {
            arming.arm(&person(&number.to_string()), wish(60), at(0)).unwrap();
        }
        assert_eq!(arming.arm(&person("one more"), wish(60), at(0)), Err(ArmError::Full));
        arming.arm(&person("one more"), wish(60), at(61)).unwrap();
    }
}

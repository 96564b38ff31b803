//! What is known about requests, and how does each leave? First byte, end, and the books (`arrive` has the way in).
//!
//! Every path that gives seats back ends in `dispatch`, so that nobody waits beside free seats.

use super::clients::Clients;
use super::cohort::Cohorts;
use super::control::Control;
use super::decision::{End, Kind, Level, Outcome, Ticket, Verdict};
use super::diagnosis::Findings;
use super::estimate::{Ended, Estimates, Sample};
use super::key::{Key, Reach};
use super::lanes::LaneState;
use super::levels::LevelNumber;
use super::limit::{Demand, Limit};
use super::memory::Size;
use super::own_memory::MemoryStep;
use super::pace::Pace;
use super::pressure::{Losses, Pressure};
use super::random::Random;
use super::recovery::Recovery;
use super::returns::Returns;
use super::seats::{Ledger, Need};
use super::settings::Settings;
use super::shadow::Shadow;
use super::tickets::{Account, Chain, Ends, Phase, Slot, Tickets};
use super::warming::Warming;
use super::watches::Watches;
use super::work::Work;
use crate::policy::Lane;
use crate::units::{Instant, SeatSeconds, Seats};

/// Decides, for one apiserver, who goes on, who waits and who is told when to come back.
///
/// ```
/// use spillway::flow::{
///     Arrival, Decision, Encoding, End, Key, Kind, Level, Outcome, Scheduler, Settings, Verdict,
/// };
/// use spillway::policy::Lane;
/// use spillway::request::{DecodedPath, RequestInfo};
/// use spillway::units::{Instant, Seats};
///
/// let now = Instant::ORIGIN;
/// let mut scheduler = Scheduler::new(Settings::default(), 1, now);
/// let path = DecodedPath::new("/api/v1/pods")?;
/// let key = Key::of(&RequestInfo::new("GET", &path, None)?, Encoding::Json);
/// let arrival = Arrival { lane: Lane::Telemetry, flow: 7, client: 7, key, kind: Kind::Short, exempt: false };
///
/// // A LIST of all pods, never seen before, is expected to take 10 seats; a second one at once is too much.
/// let Decision::Admit(ticket) = scheduler.arrive(now, &arrival) else { panic!("an idle server admits") };
/// assert_eq!(scheduler.snapshot(now).used, Seats(10));
/// let Decision::Wait(second) = scheduler.arrive(now, &arrival) else { panic!("heavy requests share a budget") };
///
/// // Its turn comes when the first one is over.
/// scheduler.finish(now, ticket, Outcome { end: End::Success, bytes: 4_000_000, level: Level::default() });
/// let mut verdicts = Vec::new();
/// scheduler.take_verdicts(&mut verdicts);
/// assert_eq!(verdicts, [(second, Verdict::Admit)]);
/// scheduler.cancel(now, second);
/// assert_eq!(scheduler.snapshot(now).used, Seats::ZERO);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Scheduler {
    pub(super) settings: Settings,
    pub(super) ledger: Ledger,
    pub(super) shadow: Shadow,
    pub(super) pace: Pace,
    pub(super) watches: Watches,
    pub(super) returns: Returns,
    /// When the last tick was.
    pub(super) ticked: Instant,
    pub(super) lanes: [LaneState; Lane::COUNT],
    pub(super) clients: Clients,
    pub(super) tickets: Tickets,
    pub(super) estimates: Estimates,
    pub(super) pressure: Pressure,
    pub(super) limit: Limit,
    pub(super) control: Control,
    pub(super) findings: Findings,
    pub(super) work: Work,
    pub(super) recovery: Recovery,
    pub(super) random: Random,
    /// Admitted requests without a first byte, oldest first.
    pub(super) pending: Ends,
    /// Those of them that only wait and have given back most of their seats.
    pub(super) idling: Ends,
    /// Tenths of seats that the next of those keeps.
    pub(super) kept_tenths: u32,
    /// Watches in their first burst, oldest first: those that begin with changes, and those that begin with all objects.
    pub(super) bursting: [Ends; 2],
    /// Requests that wait, in all lanes.
    pub(super) waiting: u32,
    pub(super) verdicts: Vec<(Ticket, Verdict)>,
    /// Running LISTs of telemetry, in the order they came, and those of them that must be reset now.
    pub(super) expendable: Ends,
    pub(super) resets: Vec<Ticket>,
    pub(super) warming: Warming,
    pub(super) cohorts: Cohorts,
    pub(super) losses: Losses,
    /// Who wanted seats and got none since the last tick.
    pub(super) demand: Demand,
    /// The last tick could be called calm.
    pub(super) calm: bool,
    /// The last tick cut the limit.
    pub(super) cutting: bool,
    /// When somebody was last refused, or made to wait, for want of seats.
    pub(super) short_of_seats: Option<Instant>,
    pub(super) ticks: u32,
    /// The latest time anybody told. Callers read the clock before they get the lock, so times may arrive a little
    /// out of order; in here they never run backwards, which keeps every chain sorted by time.
    pub(super) latest: Instant,
    pub(super) exempt: u32,
    pub(super) break_glass: Seats,
    /// How short of memory this process itself is.
    pub(super) own_memory: MemoryStep,
}

impl Scheduler {
    /// A scheduler for an apiserver of which nothing is known yet. Equal seeds and calls give equal answers.
    #[must_use]
    pub fn new(settings: Settings, seed: u64, now: Instant) -> Self {
        let limit = Limit::new(&settings.limit);
        let mut ledger = Ledger::new(settings.memory);
        ledger.resize((limit.seats(), limit.floors()), &settings.lanes, settings.heavy_percent);
        Self {
            ledger,
            shadow: Shadow::default(),
            pace: Pace::new(),
            watches: Watches::new(&settings.watches, now),
            returns: Returns::new(),
            ticked: now,
            lanes: Lane::ALL.map(|lane| LaneState::new(lane, &settings.lanes[lane.index()], now)),
            clients: Clients::new(),
            tickets: Tickets::new(settings.tickets),
            estimates: Estimates::new(),
            pressure: Pressure::new(),
            control: Control::new(),
            findings: Findings::default(),
            work: Work::new(),
            recovery: Recovery::new(&limit, now),
            limit,
            random: Random::new(seed),
            pending: Ends::default(),
            idling: Ends::default(),
            kept_tenths: 0,
            bursting: [Ends::default(); 2],
            waiting: 0,
            verdicts: Vec::with_capacity(256),
            expendable: Ends::default(),
            resets: Vec::with_capacity(64),
            warming: Warming::new(),
            cohorts: Cohorts::new(now),
            losses: Losses::default(),
            demand: Demand::default(),
            calm: false,
            cutting: false,
            short_of_seats: None,
            ticks: 0,
            latest: now,
            exempt: 0,
            break_glass: Seats::ZERO,
            own_memory: MemoryStep::Free,
            settings,
        }
    }

    /// `now`, or the latest time already told.
    pub(super) fn no_earlier(&mut self, now: Instant) -> Instant {
        self.latest = self.latest.max(now);
        self.latest
    }

    /// The apiserver's answer began. Call it for answers that the apiserver worked for, not for its own refusals
    /// (429, 503): they come quickly and would make it look well.
    pub fn first_byte(&mut self, now: Instant, ticket: Ticket, level: Level) {
        let now = self.no_earlier(now);
        let Some(index) = self.tickets.resolve(ticket) else { return };
        if self.tickets[index].phase != Phase::Pending {
            return;
        }
        self.unlink_pending(index);
        self.sample_first_byte(now, index, level);
        match self.tickets[index].kind {
            Kind::Short => self.tickets[index].phase = Phase::Answering,
            Kind::Watch => {
                let slot = &mut self.tickets[index];
                (slot.phase, slot.since) = (Phase::Bursting, now);
                let lists = usize::from(slot.key.is_list());
                self.tickets.push_back(&mut self.bursting[lists], index, Chain::Time);
            }
            Kind::Streaming => {
                self.tickets[index].phase = Phase::LongRunning;
                self.release(now, index);
                self.dispatch(now);
            }
        }
    }

    /// A watch has delivered its first burst, and where it begins with all objects, all of them: it gives its seats back.
    pub fn burst_done(&mut self, now: Instant, ticket: Ticket) {
        let now = self.no_earlier(now);
        let Some(index) = self.tickets.resolve(ticket) else { return };
        if self.tickets[index].phase == Phase::Bursting {
            self.end_burst(now, index);
            self.dispatch(now);
        }
    }

    /// A watch delivered `bytes` more, after its first burst. Its flow pays for them as for a LIST of that size.
    pub fn delivered(&mut self, now: Instant, ticket: Ticket, bytes: u64) {
        let now = self.no_earlier(now);
        let Some(index) = self.tickets.resolve(ticket) else { return };
        let slot = &self.tickets[index];
        if slot.phase != Phase::LongRunning || slot.kind != Kind::Watch || slot.account != Account::Limited {
            return;
        }
        let (lane, flow, key, heavy) = (slot.lane, slot.flow, slot.key.exact, slot.heavy);
        self.lanes[lane.index()].queues_mut(heavy).charge(flow, key, heavy, work_of(bytes));
        if heavy || lane > Lane::Operators {
            self.pace.delivered(now, bytes);
        }
    }

    /// The request is over. Further calls with this ticket do nothing.
    pub fn finish(&mut self, now: Instant, ticket: Ticket, outcome: Outcome) {
        let now = self.no_earlier(now);
        let Some(index) = self.tickets.resolve(ticket) else { return };
        let slot = &self.tickets[index];
        let has_answered = slot.phase != Phase::Waiting;
        if has_answered && slot.is_judged() {
            self.losses.add(&outcome, slot.key.reach);
            self.heed(now, index, outcome.end);
            if outcome.end == End::Success {
                self.learn(now, index, &outcome);
            }
        }
        self.forget(now, index);
        self.dispatch(now);
    }

    /// The request went away before it was over, or its guard was dropped. Says nothing about the apiserver.
    pub fn cancel(&mut self, now: Instant, ticket: Ticket) {
        self.finish(now, ticket, Outcome { end: End::Ignored, bytes: 0, level: Level::default() });
    }

    /// Moves what became of waiting requests to the end of `into`: at most one verdict for each that waited.
    pub fn take_verdicts(&mut self, into: &mut Vec<(Ticket, Verdict)>) {
        into.append(&mut self.verdicts);
    }

    /// Whether [`Scheduler::take_verdicts`] has anything to give.
    #[must_use]
    pub fn has_verdicts(&self) -> bool {
        !self.verdicts.is_empty()
    }

    /// What a request is expected to cost, by what its kind cost before.
    #[must_use]
    pub fn price(&self, key: &Key) -> SeatSeconds {
        self.estimates.estimate(key).work
    }

    /// How short of memory this process itself is; some lanes are refused for it.
    pub const fn own_memory(&mut self, step: MemoryStep) {
        self.own_memory = step;
    }

    /// A refusal that was kept back has been told, or its client went away.
    pub fn released(&mut self, now: Instant) {
        let _ = self.no_earlier(now);
        self.returns.released();
    }

    /// Gives a request its seats; it is in no chain.
    pub(super) fn admit(&mut self, now: Instant, index: u32) {
        let slot = &mut self.tickets[index];
        (slot.phase, slot.since, slot.admitted) = (Phase::Pending, now, now);
        self.ledger.take(Need::of(slot));
        self.clients.take(slot.lane, slot.client, slot.seats);
        let lane = &mut self.lanes[slot.lane.index()];
        lane.admitted += 1;
        lane.begin(slot.kind);
        self.watches.begin(slot.lane, slot.flow, slot.kind);
        lane.retry.admitted(slot.heavy);
        if slot.is_expendable() {
            self.tickets.push_back(&mut self.expendable, index, Chain::Queue);
        }
        self.tickets.push_back(&mut self.pending, index, Chain::Time);
        self.discount_at_once(index);
    }

    /// Takes a request's seats back and corrects what its flow was charged.
    fn release(&mut self, now: Instant, index: u32) {
        let slot = &mut self.tickets[index];
        let seats = std::mem::take(&mut slot.seats);
        let was_lent = std::mem::take(&mut slot.lent);
        let need = Need { seats, ..Need::of(slot) };
        slot.size = Size::default();
        match slot.account {
            Account::Exempt => {}
            Account::BreakGlass => self.break_glass = self.break_glass.saturating_sub(seats),
            Account::Shadow | Account::Open => self.release_passed(index, seats),
            Account::Limited if seats == Seats::ZERO && !was_lent => {}
            Account::Limited => {
                self.ledger.give_back(need);
                self.clients.give_back(slot.lane, slot.client, seats);
                let ran = now.since(slot.admitted);
                if slot.heavy {
                    self.pace.ran(now, ran, seats);
                }
                if slot.charged > SeatSeconds::ZERO {
                    // A victim of congestion is not billed for it: time counts as it would have passed in calm.
                    let held = ran.div_f64(self.pressure.value().max(1.0));
                    let queues = self.lanes[slot.lane.index()].queues_mut(slot.heavy);
                    queues.settle((slot.queue, slot.kind_turn), slot.charged, seats.held_for(held));
                }
                if self.tickets[index].is_expendable() {
                    self.tickets.unlink(&mut self.expendable, index, Chain::Queue);
                }
            }
        }
    }

    /// What an end says about the apiserver's whereabouts and its caches.
    fn heed(&mut self, now: Instant, index: u32, end: End) {
        let slot = &self.tickets[index];
        match end {
            End::Warming { retry_after_seconds } if slot.key.is_read() => {
                self.warming.closed(slot.key.resource, now, retry_after_seconds);
            }
            End::Success if slot.key.is_read() && !self.warming.is_empty() => {
                self.warming.succeeded(slot.key.resource, now);
            }
            End::Closing => {
                self.recovery.closing(now, &mut self.limit);
                self.resize();
            }
            _ => {}
        }
    }

    pub(super) fn end_burst(&mut self, now: Instant, index: u32) {
        self.leave_burst(index);
        self.tickets[index].phase = Phase::LongRunning;
        self.release(now, index);
    }

    fn leave_burst(&mut self, index: u32) {
        let lists = usize::from(self.tickets[index].key.is_list());
        self.tickets.unlink(&mut self.bursting[lists], index, Chain::Time);
    }

    fn sample_first_byte(&mut self, now: Instant, index: u32, level: Level) {
        let slot = &mut self.tickets[index];
        if !slot.is_judged() {
            return;
        }
        let micros = u32::try_from(now.since(slot.since).as_micros()).unwrap_or(u32::MAX);
        let level = Some(self.pressure.level(level));
        if self.estimates.place(&slot.key).is_none() {
            // Not known yet: whether it may have a place is known when it ends well.
            slot.unsampled = Some((micros, level));
            return;
        }
        self.sample(index, micros, level);
    }

    /// A time to first byte goes to the window of its key and, from a protected lane, to its lane's.
    pub(super) fn sample(&mut self, index: u32, micros: u32, level: Option<LevelNumber>) {
        let slot = &self.tickets[index];
        let place = self.estimates.place_or_shape(&slot.key);
        let sample = Sample { shape: slot.key.shape, reach: slot.key.reach, level, micros };
        self.estimates.sample(place, sample, self.ticks);
        let baseline = self.estimates.baseline(place);
        let sample = Sample { level: level.or_else(|| Some(self.estimates.level(place))), ..sample };
        self.pressure.judge(slot.lane, sample, baseline, (&self.settings.objectives, self.ticks));
    }

    /// A request ended well: its size and, if it was not sampled yet, its time are learnt.
    fn learn(&mut self, now: Instant, index: u32, outcome: &Outcome) {
        if self.tickets[index].phase == Phase::Pending {
            self.sample_first_byte(now, index, outcome.level);
        }
        let (kind, key, unsampled) = {
            let slot = &mut self.tickets[index];
            (slot.kind, slot.key, slot.unsampled.take())
        };
        // What a watch or session carried in its life is not what its start costs.
        let ended = (kind == Kind::Short).then(|| Ended {
            bytes: outcome.bytes,
            calm: self.calm.then(|| now.since(self.tickets[index].admitted)),
        });
        self.estimates.succeeded(&key, ended, self.ticks);
        if let Some((micros, level)) = unsampled {
            self.sample(index, micros, level);
        }
        let slot = &self.tickets[index];
        self.work.done(slot.client, slot.work, slot.heavy && slot.key.reach == Reach::Consistent);
    }

    /// Removes a request from wherever it is.
    pub(super) fn forget(&mut self, now: Instant, index: u32) {
        let (phase, lane, client) = {
            let slot = &self.tickets[index];
            (slot.phase, slot.lane, slot.client)
        };
        if phase == Phase::Waiting {
            self.lanes[lane.index()].leave(&mut self.tickets, index);
            self.clients.stop_waiting(lane, client);
            self.waiting -= 1;
            self.tickets.remove(index);
            return;
        }
        match phase {
            Phase::Pending => self.unlink_pending(index),
            Phase::Bursting => self.leave_burst(index),
            _ => {}
        }
        self.release(now, index);
        let slot = &self.tickets[index];
        self.exempt -= u32::from(slot.account == Account::Exempt);
        self.lanes[lane.index()].end(slot.kind);
        if slot.is_judged() {
            self.watches.end(lane, slot.flow, slot.kind);
        }
        self.tickets.remove(index);
    }
}

impl Need {
    pub(super) fn of(slot: &Slot) -> Self {
        Self { lane: slot.lane, seats: slot.seats, heavy: slot.heavy, size: slot.size }
    }
}

/// The work that `bytes` stand for, by the definition of a seat: 50 ms for each 100 kB.
fn work_of(bytes: u64) -> SeatSeconds {
    SeatSeconds::from_micros(bytes / 2)
}

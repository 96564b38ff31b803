//! How long does a request take on a server that others use too?
//!
//! Processor sharing over a number of cores: `n` running jobs advance at `min(1, cores/n)` each, divided by a
//! slow-down that memory pressure causes. Nothing is burnt: a job is a number of core-nanoseconds, and its end is
//! computed. Virtual time runs at the common rate, so a job that starts at virtual time V with work w ends at V + w
//! whatever arrives meanwhile: one heap, O(log n) per event (Demers, Keshav, Shenker 1989 use the same trick).
//!
//! CPU alone does not reproduce the incident: with fair sharing, 2 ms lease writes survive hundreds of huge LISTs.
//! What drowned real servers is memory: a LIST holds about five times its response (KEP-3157). A real server
//! collects garbage without end and is then killed by the OOM killer, again and again. This model is kinder: it
//! never dies, it only slows down, in proportion to how far its memory is over-committed.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

use crate::units::Instant;

/// Garbage collection begins to cost beyond this share of the memory.
const GC_STARTS_PERCENT: u64 = 80;
/// Slow-down per multiple of the memory beyond that point. With the Go runtime's soft limit, collection may take
/// half of the CPU, a factor of 2 at a small excess; beyond it a server swaps or dies. 4 makes twice the memory
/// cost a factor of 5.8, a mild answer where the real one is the OOM killer.
const SLOWDOWN_PER_MEMORY: f64 = 4.0;
/// The model's bound on that slow-down, so that a storm's end is felt within seconds.
const SLOWDOWN_MAX: f64 = 10.0;

/// The modelled machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine {
    /// CPU cores.
    pub(crate) cores: u32,
    /// Memory for requests in flight, in bytes.
    pub(crate) memory_bytes: u64,
}

/// What one request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Work {
    /// CPU time on one idle core.
    pub(crate) cpu: Duration,
    /// Memory while it runs, in bytes.
    pub(crate) memory_bytes: u64,
}

/// A running job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct JobId(u64);

/// Use of the machine since its start: subtract two readings to judge a span.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Usage {
    /// Core-seconds in which some job held a core.
    pub(crate) busy_core_seconds: f64,
    /// The part of them that advanced jobs; the rest went into memory pressure.
    pub(crate) useful_core_seconds: f64,
}

/// The pure machine: all time comes in as an argument.
#[derive(Debug)]
pub(crate) struct Processor {
    machine: Machine,
    /// Core-nanoseconds every running job has received since the start.
    virtual_nanos: f64,
    updated: Instant,
    ends: BinaryHeap<Reverse<(VirtualEnd, JobId)>>,
    /// Memory of the running jobs; a job missing here but in `ends` was cancelled.
    running: HashMap<JobId, u64>,
    memory_used: u64,
    next_job: u64,
    usage: Usage,
}

/// A finite virtual time; ordered so that it can live in a heap.
#[derive(Clone, Copy, Debug, PartialEq)]
struct VirtualEnd(f64);

impl Eq for VirtualEnd {}

impl PartialOrd for VirtualEnd {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for VirtualEnd {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl Processor {
    pub(crate) fn new(machine: Machine, now: Instant) -> Self {
        Self {
            machine,
            virtual_nanos: 0.0,
            updated: now,
            ends: BinaryHeap::new(),
            running: HashMap::new(),
            memory_used: 0,
            next_job: 0,
            usage: Usage::default(),
        }
    }

    /// Begins a job. Call [`Processor::finished`] first if time may have passed ends of other jobs.
    pub(crate) fn start(&mut self, now: Instant, work: Work) -> JobId {
        self.run_until(now);
        let id = JobId(self.next_job);
        self.next_job += 1;
        let end = VirtualEnd(self.virtual_nanos + work.cpu.as_nanos() as f64);
        self.ends.push(Reverse((end, id)));
        self.running.insert(id, work.memory_bytes);
        self.memory_used += work.memory_bytes;
        id
    }

    /// Ends a job early: its caller went away. A job that has ended already is ignored.
    pub(crate) fn cancel(&mut self, now: Instant, id: JobId) {
        self.run_until(now);
        self.forget(id);
        self.drop_cancelled();
    }

    /// The jobs that have ended by `now`, in the order of their ends.
    pub(crate) fn finished(&mut self, now: Instant) -> Vec<JobId> {
        let mut done = Vec::new();
        loop {
            self.drop_cancelled();
            let Some(end) = self.next_finish() else { break };
            if end > now {
                break;
            }
            self.run_until(end);
            if let Some(Reverse((VirtualEnd(virtual_end), id))) = self.ends.pop() {
                // Rounding to whole nanoseconds must not let the next start count this job's tail twice.
                self.virtual_nanos = self.virtual_nanos.max(virtual_end);
                self.forget(id);
                done.push(id);
            }
        }
        self.run_until(now);
        done
    }

    /// When the next job ends if nothing else arrives.
    pub(crate) fn next_finish(&self) -> Option<Instant> {
        let Reverse((VirtualEnd(end), _)) = self.ends.peek()?;
        let nanos = (end - self.virtual_nanos).max(0.0) / self.rate();
        Some(self.updated + Duration::from_nanos(nanos.ceil() as u64))
    }

    /// How many jobs run.
    pub(crate) fn running(&self) -> usize {
        self.running.len()
    }

    /// Use of the machine up to `now`.
    pub(crate) fn usage(&mut self, now: Instant) -> Usage {
        self.run_until(now);
        self.usage
    }

    /// How many times slower than without memory pressure.
    fn slowdown(&self) -> f64 {
        let threshold = self.machine.memory_bytes / 100 * GC_STARTS_PERCENT;
        let excess = self.memory_used.saturating_sub(threshold) as f64 / self.machine.memory_bytes as f64;
        (1.0 + SLOWDOWN_PER_MEMORY * excess).min(SLOWDOWN_MAX)
    }

    /// Core-nanoseconds each job gets per nanosecond.
    fn rate(&self) -> f64 {
        let jobs = self.running.len().max(1) as f64;
        (f64::from(self.machine.cores) / jobs).min(1.0) / self.slowdown()
    }

    fn run_until(&mut self, now: Instant) {
        let passed = now.since(self.updated);
        if passed.is_zero() {
            return;
        }
        let busy_cores = (self.running.len() as f64).min(f64::from(self.machine.cores));
        let busy = busy_cores * passed.as_secs_f64();
        self.usage.busy_core_seconds += busy;
        self.usage.useful_core_seconds += busy / self.slowdown();
        self.virtual_nanos += passed.as_nanos() as f64 * self.rate();
        self.updated = now;
    }

    fn forget(&mut self, id: JobId) {
        if let Some(memory) = self.running.remove(&id) {
            self.memory_used -= memory;
        }
    }

    /// Cancelled jobs leave the heap when they reach its top.
    fn drop_cancelled(&mut self) {
        while let Some(Reverse((_, id))) = self.ends.peek() {
            if self.running.contains_key(id) {
                break;
            }
            self.ends.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn at(millis: u64) -> Instant {
        Instant::ORIGIN + Duration::from_millis(millis)
    }

    fn cpu(millis: u64) -> Work {
        Work { cpu: Duration::from_millis(millis), memory_bytes: 0 }
    }

    fn two_cores() -> Processor {
        Processor::new(Machine { cores: 2, memory_bytes: GIB }, at(0))
    }

    #[test]
    fn alone_a_job_takes_its_work() {
        let mut processor = two_cores();
        let job = processor.start(at(5), cpu(10));
        assert_eq!(processor.next_finish(), Some(at(15)));
        assert!(processor.finished(at(14)).is_empty());
        assert_eq!(processor.finished(at(15)), [job]);
        assert_eq!(processor.next_finish(), None);
    }

    #[test]
    fn four_jobs_on_two_cores_run_at_half_speed() {
        let mut processor = two_cores();
        let jobs: Vec<_> = (0..4).map(|_| processor.start(at(0), cpu(10))).collect();
        assert_eq!(processor.next_finish(), Some(at(20)));
        assert_eq!(processor.finished(at(20)), jobs);
    }

    #[test]
    fn a_late_small_job_overtakes_and_slows_the_big_ones() {
        let mut processor = Processor::new(Machine { cores: 1, memory_bytes: GIB }, at(0));
        let big = processor.start(at(0), cpu(100));
        let small = processor.start(at(50), cpu(2));
        assert_eq!(processor.next_finish(), Some(at(54)));
        assert_eq!(processor.finished(at(200)), [small, big]);
        // 102 core-milliseconds of work in all, on one core.
        assert!((processor.usage(at(200)).busy_core_seconds - 0.102).abs() < 1e-6);
    }

    #[test]
    fn a_cancelled_job_gives_its_share_back() {
        let mut processor = Processor::new(Machine { cores: 1, memory_bytes: GIB }, at(0));
        let gone = processor.start(at(0), cpu(100));
        let stays = processor.start(at(0), cpu(10));
        processor.cancel(at(10), gone);
        assert_eq!(processor.running(), 1);
        assert_eq!(processor.next_finish(), Some(at(15)));
        assert_eq!(processor.finished(at(15)), [stays]);
        processor.cancel(at(15), gone);
        assert_eq!(processor.memory_used, 0);
    }

    #[test]
    fn memory_beyond_the_threshold_slows_everyone() {
        let mut processor = two_cores();
        processor.start(at(0), Work { cpu: Duration::from_secs(60), memory_bytes: GIB / 100 * 80 });
        processor.start(at(0), cpu(10));
        assert_eq!(processor.next_finish(), Some(at(10)), "80 % is still free of charge");
        processor.finished(at(10));
        let hog = processor.start(at(10), Work { cpu: Duration::from_secs(60), memory_bytes: GIB / 4 });
        assert!(
            (processor.slowdown() - 2.0).abs() < 0.01,
            "a quarter of the memory too much halves the speed"
        );
        processor.cancel(at(10), hog);
        processor.start(at(10), Work { cpu: Duration::from_secs(60), memory_bytes: 100 * GIB });
        assert!((processor.slowdown() - SLOWDOWN_MAX).abs() < f64::EPSILON);
    }
}

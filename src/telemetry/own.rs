//! What does spillway itself take, and whom did it turn away before there was a request?
//!
//! Memory and descriptors against their limits, connections and why they ended, and what the log left out: the numbers
//! that tell an attack on the guard from an overload of the apiserver. Everything is read at a scrape; reasons are a
//! closed set and listeners are the configuration's, so no client can make a series up.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use prometheus::{Gauge, GaugeVec, IntCounter, IntCounterVec};

use super::overload::{exact, raise};
use super::register::Register;
use crate::flow::MemoryStep;

/// The memory in use when it was last looked at; written by the control thread, read at a scrape.
#[derive(Debug, Default)]
pub struct Footprint {
    resident: AtomicU64,
    step: AtomicU8,
}

impl Footprint {
    /// What a look found.
    pub fn set(&self, resident: u64, step: MemoryStep) {
        self.resident.store(resident, Ordering::Relaxed);
        self.step.store(step as u8, Ordering::Relaxed);
    }
}

/// This process is shorter of memory than before, or less short.
#[derive(Debug)]
pub struct MemoryStepChanged {
    /// What it was.
    pub from: MemoryStep,
    /// What it is.
    pub to: MemoryStep,
    /// Bytes in use.
    pub resident: u64,
    /// Bytes that may be.
    pub limit: u64,
}

impl MemoryStepChanged {
    /// One line: a warning while lanes are refused for it.
    pub fn emit(&self) {
        let (from, to) = (self.from.as_str(), self.to.as_str());
        let (resident, limit) = (self.resident, self.limit);
        if self.to == MemoryStep::Free {
            tracing::info!(from, to, resident, limit, "spillway's own memory is no longer short");
        } else {
            tracing::warn!(
                from,
                to,
                resident,
                limit,
                "spillway's own memory is short: lanes are refused for it"
            );
        }
    }
}

/// Limits that do not change while the process runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct OwnLimits {
    /// Bytes of memory; zero is no limit.
    pub memory: u64,
    /// File descriptors.
    pub descriptors: u64,
}

/// The connections of one listener.
#[derive(Clone, Debug)]
pub struct ListenerGauges {
    /// Its name.
    pub name: &'static str,
    /// Connections open now.
    pub open: u64,
    /// Connections that spillway ended or refused, by why: a closed set.
    pub ended: Vec<(&'static str, u64)>,
    /// Requests answered 500 because spillway failed on them.
    pub panicked: u64,
}

/// Everything of this file that is read at a scrape.
#[derive(Clone, Copy, Debug)]
pub struct OwnScrape<'a> {
    /// The memory.
    pub footprint: &'a Footprint,
    /// What is allowed.
    pub limits: OwnLimits,
    /// Descriptors open now, where the kernel says it.
    pub descriptors: Option<u64>,
    /// The listeners.
    pub listeners: &'a [ListenerGauges],
}

/// The numbers of a scrape.
pub(super) struct Own {
    resident: Gauge,
    memory_limit: Gauge,
    memory_step: Gauge,
    descriptors: Gauge,
    descriptors_limit: Gauge,
    connections: GaugeVec,
    ended: IntCounterVec,
    panicked: IntCounterVec,
    lines_dropped: IntCounter,
    lines_suppressed: IntCounter,
}

impl Own {
    pub(super) fn register(register: &Register<'_>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            resident: register.gauge("resident_bytes", "memory of this process")?,
            memory_limit: register.gauge(
                "memory_limit_bytes",
                "what it may be, `limits.memory` or the cgroup's; 0: no limit",
            )?,
            memory_step: register.gauge(
                "memory_step",
                "lanes refused for spillway's own memory: 0 none, 1 telemetry and unknown (from 80 %), 2 \
                 workload too (90 %), 3 all but node-health, control-plane and break-glass (95 %)",
            )?,
            descriptors: register.gauge("descriptors_open", "file descriptors in use")?,
            descriptors_limit: register.gauge(
                "descriptors_limit",
                "file descriptors that may be; 64 of them are never given to connections",
            )?,
            connections: register.gauges("connections_active", "client connections", &["listener"])?,
            ended: register.counters(
                "connections_ended_total",
                "client connections that spillway refused or ended: `full`, `source`, `user` (a cap is \
                 reached), `offender` (connections of its address were ended for abuse in the last 10 s: \
                 it gets two a second, and one more for each that it holds open; \
                 spillway_connections_abusive_total says what for), `accept` (no descriptor), \
                 `first_byte`, `handshake`, `request` (too slow), `handshake_failed`, `idle`, `drained`",
                &["listener", "reason"],
            )?,
            panicked: register.counters(
                "requests_panicked_total",
                "requests answered 500 because spillway failed on them; alert on any",
                &["listener"],
            )?,
            lines_dropped: register
                .counter("log_lines_dropped_total", "log lines lost because standard error took no more")?,
            lines_suppressed: register.counter(
                "log_lines_suppressed_total",
                "lines of the access log left out: more than 20 a second of one reason; never of \
                 break-glass",
            )?,
        })
    }

    pub(super) fn set(&self, own: &OwnScrape<'_>, suppressed: u64) {
        self.resident.set(exact(own.footprint.resident.load(Ordering::Relaxed)));
        self.memory_limit.set(exact(own.limits.memory));
        self.memory_step.set(f64::from(own.footprint.step.load(Ordering::Relaxed)));
        self.descriptors.set(exact(own.descriptors.unwrap_or_default()));
        self.descriptors_limit.set(exact(own.limits.descriptors));
        for listener in own.listeners {
            self.connections.with_label_values(&[listener.name]).set(exact(listener.open));
            for (reason, ended) in &listener.ended {
                raise(&self.ended.with_label_values(&[listener.name, reason]), *ended);
            }
            raise(&self.panicked.with_label_values(&[listener.name]), listener.panicked);
        }
        raise(&self.lines_dropped, super::lines::dropped());
        raise(&self.lines_suppressed, suppressed);
    }
}

//! Does a scenario make sense, beyond being readable?
//!
//! Everything has a bound, so that a file cannot ask for a run that never ends or for more memory than there is.

use std::str::FromStr;
use std::time::Duration;

use super::{Event, Group, Kind, Scenario, ScenarioError};
use crate::policy::Lane;
use crate::sim::apiserver::LevelName;
use crate::sim::outcome;
use crate::sim::plan::Plan;

/// Clients of all groups: three clusters of the largest size that is supported.
const CLIENTS_MAX: u64 = 50_000;
/// The longest run.
const RUN_MAX: Duration = Duration::from_secs(48 * 3600);
const CALLS_MAX: usize = 32;
const CORES_MAX: f64 = 1024.0;
/// An ignorant loop asks at most this often, or a run of minutes would take hours.
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PERIOD_MIN: Duration = Duration::from_millis(1);

impl Scenario {
    pub(super) fn check(&self) -> Result<(), ScenarioError> {
        let whole = |message: String| ScenarioError::Sense { place: "scenario".to_owned(), message };
        let run = self.phases.calm.0 + self.phases.storm.0 + self.phases.after.0;
        if run > RUN_MAX || run.is_zero() {
            return Err(whole(format!(
                "the phases must last from 1ms to {}h together",
                RUN_MAX.as_secs() / 3600
            )));
        }
        let clients: u64 = self.clients.iter().map(|group| u64::from(group.count)).sum();
        if clients == 0 || clients > CLIENTS_MAX {
            return Err(whole(format!("{clients} clients; 1 to {CLIENTS_MAX} are possible")));
        }
        if !(self.server.cores > 0.0 && self.server.cores <= CORES_MAX) {
            return Err(whole(format!("server.cores must be above 0 and at most {CORES_MAX}")));
        }
        for group in &self.clients {
            group.check().map_err(|message| ScenarioError::Sense {
                place: format!("clients {:?}", group.name),
                message,
            })?;
        }
        for (number, event) in self.events.iter().enumerate() {
            event.check().map_err(|message| ScenarioError::Sense {
                place: format!("event {}", number + 1),
                message,
            })?;
        }
        for name in self.expect.keys().chain(self.control.keys()) {
            if !outcome::is_metric(name) {
                let message = format!("there is no metric {name:?}; `spillway simulate --list` names all");
                return Err(ScenarioError::Sense { place: "expect".to_owned(), message });
            }
        }
        Ok(())
    }
}

impl Group {
    fn check(&self) -> Result<(), String> {
        match (&self.lane, &self.identity) {
            (Some(lane), None) => {
                Lane::from_str(lane).map_err(|_| {
                    let lanes: Vec<_> = Lane::ALL.iter().map(|lane| lane.as_str()).collect();
                    format!("lane {lane:?} is not defined; there are {}", lanes.join(", "))
                })?;
            }
            (None, Some(_)) => {}
            _ => return Err("needs either a lane or an identity".to_owned()),
        }
        if let Some(level) = &self.apf
            && !LevelName::ALL.iter().any(|(name, _)| name == level)
        {
            let levels: Vec<_> = LevelName::ALL.iter().map(|(name, _)| *name).collect();
            return Err(format!("apf level {level:?} is not one of {}", levels.join(", ")));
        }
        self.check_calls()?;
        if !(0.0..=1.0).contains(&self.jitter) {
            return Err("jitter must be from 0 to 1".to_owned());
        }
        if self.pause.is_some_and(|pause| pause.0 < PAUSE_MIN) {
            return Err("pause must be at least 1ms".to_owned());
        }
        if self.period.is_some_and(|period| !period.0.is_zero() && period.0 < PERIOD_MIN) {
            return Err("period must be at least 1ms, or be left out".to_owned());
        }
        Ok(())
    }

    fn check_calls(&self) -> Result<(), String> {
        let count = self.calls.len();
        let good = match self.kind {
            Kind::Kubelet | Kind::Leader => count <= 1,
            Kind::Informer => count == 2,
            Kind::Operator | Kind::Loop => (1..=CALLS_MAX).contains(&count),
        };
        if !good {
            return Err(match self.kind {
                Kind::Kubelet | Kind::Leader => "makes one call, the renewal of its lease".to_owned(),
                Kind::Informer => "needs two calls, its LIST and its WATCH".to_owned(),
                Kind::Operator | Kind::Loop => format!("needs 1 to {CALLS_MAX} calls"),
            });
        }
        for line in &self.calls {
            Plan::parse(&line.replace("{n}", "0"), crate::flow::Encoding::Json)
                .map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

impl Event {
    fn check(&self) -> Result<(), String> {
        let named = [
            self.cores.is_some(),
            self.etcd_delay.is_some(),
            self.etcd_stall.is_some(),
            self.webhook.is_some(),
            self.kill.is_some(),
            self.objects.is_some(),
        ];
        if named.into_iter().filter(|named| *named).count() != 1 {
            return Err("needs exactly one of cores, etcdDelay, etcdStall, webhook, kill, objects".to_owned());
        }
        if self.cores.is_some_and(|cores| !(cores > 0.0 && cores <= CORES_MAX)) {
            return Err(format!("cores must be above 0 and at most {CORES_MAX}"));
        }
        if self.every.is_some_and(|every| every.0 < Duration::from_millis(10)) {
            return Err("every must be at least 10ms".to_owned());
        }
        Ok(())
    }
}

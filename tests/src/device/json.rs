//! A device as most are: it publishes a JSON object at QoS 1, with a timestamp of its own, and knows nothing of Forebay.
//!
//! It has no word from the gateway, so whether a row was acknowledged is seen from outside, by a proxy.

use std::time::Duration;

use serde_json::{Value, json};

use super::link::{LinkEvent, MqttLink};
use super::{Phase, Spec};
use crate::clock::TickClock;
use crate::truth::NUMBER_FIELD;

/// Rows that may wait in the device while the broker is away; a device that is full samples nothing.
const WAITING_MAX: u64 = 20_000;

/// A JSON device and the broker that it uses.
#[derive(Debug)]
pub struct JsonDevice {
    /// What every device has.
    pub spec: Spec,
    /// The broker's host.
    pub host: String,
    /// The broker's port.
    pub port: u16,
    /// The topic that it publishes to.
    pub topic: String,
}

/// The payload of row `number`, sampled at `ns`. It has a nested object, a boolean, a null and a text besides its numbers.
#[must_use]
pub fn json_payload(number: u64, ns: i64) -> String {
    let values = json_values(number);
    let value = |name: &str| values.iter().find(|(field, _)| *field == name).map(|(_, value)| *value);
    json!({
        "time": ns, NUMBER_FIELD: number, "temperature": value("temperature"), "wind": {"speed": value("wind_speed")},
        "raining": number.is_multiple_of(5), "snow": null, "note": "not a field",
    })
    .to_string()
}

/// The numeric fields that a store must return for row `number`. The first rows are whole numbers, so that the first
/// value of a series does not tell its type.
#[must_use]
pub(super) fn json_values(number: u64) -> Vec<(&'static str, f64)> {
    let step = f64::from(u16::try_from(number % 1000).unwrap_or(0));
    vec![("temperature", 21.0 + step * 0.5), ("wind_speed", step * 0.25)]
}

/// The row number in a payload that [`json_payload`] made.
#[must_use]
pub fn number_in(payload: &[u8]) -> Option<u64> {
    serde_json::from_slice::<Value>(payload).ok()?.get(NUMBER_FIELD)?.as_u64()
}

impl JsonDevice {
    /// Runs until the conductor ends it.
    ///
    /// # Errors
    /// The period is out of range.
    pub async fn run(self) -> anyhow::Result<()> {
        let Spec { name, period, offset, conductor, truth, faults } = &self.spec;
        let client_id = format!("sim-{name}");
        let mut link = MqttLink::start(&self.host, self.port, &client_id, faults.of_connection(name));
        let mut phases = conductor.phases();
        let clock = TickClock::start(0);
        let period_ticks = u64::try_from(period.as_micros())?;
        let mut next_sample = period_ticks + u64::try_from(offset.as_micros())?;
        let (mut published, mut taken) = (0, 0);
        while conductor.phase() != Phase::Ended {
            let sampling = conductor.phase() == Phase::Sampling;
            if sampling && truth.produced() - taken < WAITING_MAX {
                while next_sample <= clock.tick() {
                    truth.produce(clock.ns_of(next_sample), next_sample, 0);
                    next_sample += period_ticks;
                }
            }
            while published < truth.produced() {
                let Some(ns) = truth.ns_of(published) else { break };
                if !link.publish(&self.topic, json_payload(published, ns).into_bytes()) {
                    break;
                }
                published += 1;
            }
            let sample_ms = next_sample.saturating_sub(clock.tick()) / 1000;
            let wait_ms = if sampling { sample_ms.clamp(1, 50) } else { 50 };
            if !sampling {
                link.spare();
            }
            let event = tokio::select! {
                event = link.next(Duration::from_millis(wait_ms)) => event,
                _ = phases.changed() => None,
            };
            match event {
                Some(LinkEvent::Taken) => {
                    if truth.forgets() {
                        truth.acknowledge(taken);
                    }
                    taken += 1;
                }
                Some(LinkEvent::Connected) => truth.set_connected(true),
                Some(LinkEvent::Disconnected) => truth.set_connected(false),
                Some(LinkEvent::Message { .. }) | None => {}
            }
            truth.set_idle(taken >= truth.produced());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{json_payload, number_in};

    #[test]
    fn the_number_is_found_again() {
        assert_eq!(number_in(json_payload(41, 1_700_000_000_000_000_001).as_bytes()), Some(41));
        assert_eq!(number_in(b"no json"), None);
    }
}

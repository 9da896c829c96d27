//! Whether the broker may be losing messages: it queues a limited number of them for the gateway, and drops the rest.
//!
//! In: how long the oldest message has waited for its ack, and what the broker says of dropped messages. Out: an alarm,
//! and a count. The alarm stays up for a while, so that somebody who looks now and then sees it.

use super::Reporter;
use super::wire::Message;

/// Where mosquitto counts what it dropped, for whatever client, since it was started.
pub(super) const DROPPED_TOPIC: &str = "$SYS/broker/publish/messages/dropped";

/// How long an ack may take before the queue is in danger: mosquitto's default of 1,000 messages is full after a third
/// of a second at 3,000 messages a second.
pub(super) const HELD_BACK_MS: u64 = 400;

/// How long the alarm stays up when all is well again.
const SHOWN_MS: u64 = 10_000;

/// What is known of one broker's queue.
#[derive(Default)]
pub(super) struct Alarm {
    /// Whether acks are held back now.
    held_back: bool,
    /// When the alarm goes.
    shown_until: Option<u64>,
    /// What the broker said last.
    dropped: Option<u64>,
}

impl Alarm {
    /// Looks at the oldest message that waits for its ack, and at how late this look comes; times in monotonic
    /// milliseconds. Returns when to look again.
    pub(super) fn tend(
        &mut self,
        now: u64,
        oldest: Option<u64>,
        due: u64,
        reporter: &Reporter,
    ) -> Option<u64> {
        let late_ms = now.saturating_sub(due);
        let waited_ms = oldest.map_or(0, |oldest| now.saturating_sub(oldest));
        let worst_ms = waited_ms.max(late_ms);
        let was_held_back = std::mem::replace(&mut self.held_back, waited_ms >= HELD_BACK_MS);
        if worst_ms >= HELD_BACK_MS {
            let what = format!(
                "the broker's queue may overflow: acks were held back for {}.{} s; a broker drops what exceeds its queue, see max_queued_messages of mosquitto",
                worst_ms / 1_000,
                worst_ms % 1_000 / 100
            );
            if !was_held_back {
                reporter.stats().queue_alarms.add(1);
                reporter.trouble("queue", &what);
            }
            reporter.stats().set_alarm(Some(what));
            self.shown_until = Some(now + SHOWN_MS);
        } else if self.shown_until.is_some_and(|until| until <= now) {
            reporter.stats().set_alarm(None);
            self.shown_until = None;
        }
        let next =
            oldest.map(|oldest| if self.held_back { now + HELD_BACK_MS } else { oldest + HELD_BACK_MS });
        [next, self.shown_until].into_iter().flatten().min()
    }

    /// The connection has ended: nothing is held back from a broker that is gone.
    pub(super) fn end(&mut self, reporter: &Reporter) {
        (self.held_back, self.shown_until) = (false, None);
        reporter.stats().set_alarm(None);
    }

    /// Whether the message is the broker's word on what it dropped; then it is noted.
    pub(super) fn hear(&mut self, message: &Message<'_>, reporter: &Reporter) -> bool {
        if message.topic != DROPPED_TOPIC {
            return false;
        }
        let text = std::str::from_utf8(message.payload).unwrap_or_default();
        let Ok(dropped) = text.trim().parse::<u64>() else { return true };
        // A broker that was restarted counts from zero.
        let more = dropped.saturating_sub(self.dropped.unwrap_or(dropped));
        if more > 0 {
            let what = format!(
                "the broker has dropped {more} more messages, for this client or another: its queue was full; raise max_queued_messages, see docs/guarantees.md"
            );
            reporter.loss("dropped", &what);
        }
        self.dropped = Some(dropped);
        reporter.stats().set_broker_dropped(dropped);
        true
    }
}

#[cfg(test)]
mod tests {
    use rumqttc::QoS;

    use super::*;
    use crate::stats::Stats;

    fn reporter() -> Reporter {
        Reporter::new("broker".to_owned(), Stats::new(0).source("broker"))
    }

    fn is_up(reporter: &Reporter) -> bool {
        reporter.stats().report().alarm.is_some()
    }

    #[test]
    fn acks_that_are_held_back_raise_the_alarm_once_and_it_is_seen_for_a_while() {
        let (mut alarm, reporter) = (Alarm::default(), reporter());
        assert_eq!(alarm.tend(1_000, Some(1_000), 1_000, &reporter), Some(1_000 + HELD_BACK_MS));
        assert!(!is_up(&reporter));
        for now in [1_400, 2_000, 3_000] {
            assert_eq!(alarm.tend(now, Some(1_000), now, &reporter), Some(now + HELD_BACK_MS));
            assert!(is_up(&reporter));
        }
        assert_eq!(alarm.tend(3_100, None, 3_100, &reporter), Some(3_000 + SHOWN_MS));
        assert!(is_up(&reporter), "somebody may be about to look");
        assert_eq!(alarm.tend(3_000 + SHOWN_MS, None, u64::MAX, &reporter), None);
        assert!(!is_up(&reporter));
        assert_eq!(reporter.stats().queue_alarms.get(), 1);
    }

    #[test]
    fn a_gateway_that_stood_still_is_no_better() {
        let (mut alarm, reporter) = (Alarm::default(), reporter());
        alarm.tend(5_000, None, 3_000, &reporter);
        assert!(is_up(&reporter));
    }

    #[test]
    fn what_the_broker_dropped_is_told_as_it_grows() {
        let (mut alarm, reporter) = (Alarm::default(), reporter());
        let mut hear = |topic, payload: &str| {
            let message = Message {
                topic,
                payload: payload.as_bytes(),
                payload_bytes: payload.len(),
                qos: QoS::AtMostOnce,
                again: false,
                retained: true,
                packet: 0,
                fault: None,
            };
            alarm.hear(&message, &reporter)
        };
        assert!(!hear("sensors/a", "7"));
        let told = || reporter.stats().report();
        assert!(hear(DROPPED_TOPIC, "7") && told().last_error.is_none(), "before the gateway came");
        assert!(hear(DROPPED_TOPIC, "9") && told().last_error.is_some_and(|told| told.contains("2 more")));
        assert!(hear(DROPPED_TOPIC, "no number"));
        assert_eq!(told().broker_dropped_messages, Some(9));
        reporter.stats().recover();
        assert!(hear(DROPPED_TOPIC, "0") && told().last_error.is_none(), "the broker began anew");
    }
}

//! What these tests share: a broker with the tap before it, which knows what the gateway has acknowledged, and a truth that
//! answers are held against.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use forebay_gateway::query::Answer;
use forebay_tests::clock::{wait_for, wall_ns};
use forebay_tests::gateway::{Gateway, Settings};
use forebay_tests::http::{Http, percent_encode};
use forebay_tests::mqtt::{Client, Message};
use forebay_tests::proxy::{MqttTap, key_of};
use forebay_tests::services::Mosquitto;

use crate::world::{Scratch, program};

/// The measurement of everything.
pub(crate) const MEASUREMENT: &str = "reads";

/// How long an acknowledgement may take, also of a gateway that is only starting.
pub(crate) const ACK_LIMIT: Duration = Duration::from_secs(60);

const LIMITS: &str = "max_inflight_messages 1000\nmax_queued_messages 0\nmax_queued_bytes 0\n";

/// A point by its nanosecond and its device: the number in it.
pub(crate) type Points = BTreeMap<(i64, String), i64>;

/// The parts, the gateway first, so that it ends first.
pub(crate) struct Site {
    pub(crate) gateway: Gateway,
    pub(crate) tap: MqttTap,
    _broker: Mosquitto,
    pub(crate) http: Http,
    pub(crate) scratch: Scratch,
    client: Client,
    /// Everything that was acknowledged.
    pub(crate) acked: Points,
    /// No point is older.
    pub(crate) since_ns: i64,
    last_ns: i64,
}

/// A message with a number, and the point that it becomes.
pub(crate) struct Reading {
    pub(crate) message: Message,
    at: (i64, String),
    number: i64,
}

impl Site {
    /// A gateway that stores as `tables` say.
    pub(crate) fn start(test: &str, scratch: Scratch, tables: &str) -> anyhow::Result<Site> {
        let broker = Mosquitto::start_with(&scratch.path().join("mosquitto"), LIMITS)?;
        let tap = MqttTap::start(broker.port)?;
        let source = format!(
            "[[mqtt]]\nurl = \"{}\"\nclient_id = \"forebay-under-test\"\nnative = false\n\
             [[mqtt.subscribe]]\ntopic = \"{MEASUREMENT}/{{device}}\"\nformat = \"json\"\n\
             measurement = \"{MEASUREMENT}\"\ntimestamp = \"$.time\"\ntimestamp_format = \"ns\"\n\
             integer_fields = [\"n\"]\ntext_fields = [\"word\"]\n",
            tap.url()
        );
        let settings = Settings { mqtt: None, ports: Vec::new(), tables: source + tables };
        let gateway = Gateway::start(program(), &scratch.path().join("gateway"), &settings)?;
        tap.wait_for_subscriptions(1, 1, ACK_LIMIT)?;
        let client = Client::connect(broker.port, test, true)?;
        let (http, now_ns) = (Http::new()?, wall_ns());
        let acked = Points::new();
        Ok(Site {
            gateway,
            tap,
            _broker: broker,
            http,
            scratch,
            client,
            acked,
            since_ns: now_ns,
            last_ns: now_ns,
        })
    }

    /// The next reading of a device, later than all before.
    pub(crate) fn reading(&mut self, device: &str, number: i64) -> Reading {
        self.last_ns = wall_ns().max(self.last_ns + 1);
        let ns = self.last_ns;
        // Quarters, so that sums are exact in any order.
        let t = number as f64 / 4.0;
        let payload = format!("{{\"time\":{ns},\"n\":{number},\"t\":{t:?},\"word\":\"w{number}\"}}");
        let message = Message::new(format!("{MEASUREMENT}/{device}"), payload);
        Reading { message, at: (ns, device.to_owned()), number }
    }

    /// The next reading is at least that much later than the last one.
    pub(crate) fn let_pass(&mut self, ns: i64) {
        self.last_ns += ns;
    }

    /// Hands readings to the broker.
    pub(crate) fn publish(&mut self, readings: &[Reading]) -> anyhow::Result<()> {
        self.client.publish(readings.iter().map(|reading| &reading.message))
    }

    /// Waits until the gateway has acknowledged readings, and enters them into the truth.
    pub(crate) fn await_acks(&mut self, readings: Vec<Reading>) -> anyhow::Result<()> {
        for Reading { message, at, number } in readings {
            let key = key_of(message.topic.as_bytes(), &message.payload);
            wait_for("the gateway's acknowledgement", ACK_LIMIT, || match self.tap.acknowledged(key) {
                0 => Err(format!("{number} is not acknowledged: {:?}", self.tap.figures())),
                _ => Ok(()),
            })?;
            self.acked.insert(at, number);
        }
        Ok(())
    }

    /// Publishes readings and waits for their acknowledgement.
    pub(crate) fn write(&mut self, readings: Vec<Reading>) -> anyhow::Result<()> {
        self.publish(&readings)?;
        self.await_acks(readings)
    }

    /// Kills the gateway without warning, and starts it again.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.gateway.kill();
        self.gateway.resume()?;
        // Connections of the old one are not worth a try.
        self.http = Http::new()?;
        Ok(())
    }

    /// One answer.
    pub(crate) fn ask(&self, parameters: &[(&str, &str)]) -> anyhow::Result<Answer> {
        let pairs: Vec<String> =
            parameters.iter().map(|(key, text)| format!("{key}={}", percent_encode(text))).collect();
        let url = self.gateway.url(&format!("/api/v1/query?{}", pairs.join("&")));
        let answer = self.http.get(&url)?.successful(&url)?;
        serde_json::from_str(&answer.body).with_context(|| format!("no answer: {:.300}", answer.body))
    }

    /// All pages of a query, put together; no page may have more points than `limit`, for no two have one time.
    pub(crate) fn ask_all(&self, parameters: &[(&str, &str)], limit: usize) -> anyhow::Result<Answer> {
        let (mut from, limit_text) = (self.since_ns.to_string(), limit.to_string());
        let mut whole: Option<Answer> = None;
        loop {
            let mut asked = vec![("from", from.as_str()), ("limit", limit_text.as_str())];
            asked.extend(parameters);
            let page = self.ask(&asked)?;
            anyhow::ensure!(page.points.len() <= limit, "a page of {} points", page.points.len());
            let next = page.next.clone();
            match &mut whole {
                None => whole = Some(page),
                Some(whole) => {
                    whole.complete &= page.complete;
                    whole.reasons.extend(page.reasons);
                    whole.points.extend(page.points);
                }
            }
            match next {
                Some(next) => from = next,
                None => return whole.context("no page"),
            }
        }
    }
}

/// The points of an answer; none may be there twice, and all have their fields as they were sent.
pub(crate) fn points(answer: &Answer) -> anyhow::Result<Points> {
    let mut points = Points::new();
    for point in &answer.points {
        let number = point.fields["n"].as_i64().context("a number that is no integer")?;
        let others = (point.fields["t"].as_f64(), point.fields["word"].as_str());
        let word = format!("w{number}");
        anyhow::ensure!(others == (Some(number as f64 / 4.0), Some(word.as_str())), "{point:?}");
        let known = points.insert((point.ns, point.tags["device"].clone()), number);
        anyhow::ensure!(known.is_none(), "{point:?} is there twice");
    }
    Ok(points)
}

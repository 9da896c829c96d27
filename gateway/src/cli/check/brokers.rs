//! Brokers: reached under a client id of its own, so that a running gateway is not thrown out of its session.

use std::time::Duration;

use rumqttc::{AsyncClient, ConnectReturnCode, ConnectionError, Event, MqttOptions, Packet};

use super::Finding;
use crate::config::{Mqtt, Secret};

/// Longest time for connecting and being let in.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether the broker is there and lets the gateway in.
pub(super) async fn check(broker: &Mqtt) -> Finding {
    let id = getrandom::u32().map_err(|error| format!("the system gives no random numbers: {error}"))?;
    let mut options = MqttOptions::new(format!("forebay-check-{id:08x}"), &broker.host, broker.port);
    options.set_clean_session(true).set_keep_alive(Duration::from_secs(30));
    if let Some(username) = &broker.username {
        options.set_credentials(username, broker.password.as_ref().map_or("", Secret::expose));
    }
    let (client, mut events) = AsyncClient::new(options, 4);
    let answer = tokio::time::timeout(PATIENCE, async {
        loop {
            match events.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => return Ok(()),
                Ok(_) => {}
                Err(error) => return Err(error),
            }
        }
    });
    match answer.await {
        Ok(Ok(())) => {
            client.try_disconnect().ok();
            // One more turn sends the farewell; whether it arrives does not matter.
            let _ = tokio::time::timeout(Duration::from_millis(200), events.poll()).await;
            Ok("lets the gateway in".to_owned())
        }
        Ok(Err(error)) => Err(explain(&error)),
        Err(_) => Err(format!("does not answer within {} s; {REACH}", PATIENCE.as_secs())),
    }
}

const REACH: &str = "check that the broker runs, and host and port of mqtt.url";

fn explain(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ConnectionRefused(ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized) => {
            "refuses user name or password; check mqtt.username and mqtt.password_file, and the broker's password file".to_owned()
        }
        ConnectionError::ConnectionRefused(code) => format!("refuses the connection: {code:?}; see the broker's log"),
        ConnectionError::Io(error) => format!("cannot be reached: {error}; {REACH}"),
        other => format!("cannot be talked to: {other}; {REACH}"),
    }
}

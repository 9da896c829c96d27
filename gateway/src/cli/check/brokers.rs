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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// What is found out about a broker that answers the greeting with `answer`.
    async fn finding(answer: &'static [u8]) -> Finding {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let broker = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut greeting = [0; 256];
            let length = stream.read(&mut greeting).await.unwrap();
            stream.write_all(answer).await.unwrap();
            // The farewell, so that the connection is not cut under the answer.
            let _ = stream.read(&mut [0; 16]).await;
            String::from_utf8_lossy(&greeting[..length]).into_owned()
        });
        let config = Mqtt {
            url: format!("mqtt://127.0.0.1:{port}"),
            host: "127.0.0.1".to_owned(),
            port,
            client_id: Some("the session of the daemon".to_owned()),
            username: Some("forebay".to_owned()),
            password: Some(Secret::new("hunter2".to_owned())),
            native: true,
            native_prefix: "forebay/v1".to_owned(),
            subscribe: Vec::new(),
        };
        let finding = check(&config).await;
        let greeting = broker.await.unwrap();
        assert!(greeting.contains("forebay-check-") && !greeting.contains("the session"), "{greeting:?}");
        assert!(greeting.contains("hunter2"));
        finding
    }

    #[tokio::test]
    async fn a_broker_lets_in_or_says_why_not() {
        assert_eq!(finding(&[0x20, 2, 0, 0]).await, Ok("lets the gateway in".to_owned()));
        const REFUSED: [&[u8]; 2] = [&[0x20, 2, 0, 4], &[0x20, 2, 0, 5]];
        for answer in REFUSED {
            let fault = finding(answer).await.unwrap_err();
            assert!(fault.contains("mqtt.password_file") && !fault.contains("hunter2"), "{fault}");
        }
        assert!(finding(&[0x20, 2, 0, 3]).await.unwrap_err().contains("see the broker's log"));
        assert!(
            finding(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                .await
                .unwrap_err()
                .contains("host and port of mqtt.url")
        );
    }
}

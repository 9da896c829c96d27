//! Brokers: reached under a client id of its own, so that a running gateway is not thrown out of its session.

use super::Finding;
use crate::config::Mqtt;
use crate::source::mqtt;

/// Whether the broker is there and lets the gateway in, and whether no other gateway serves the native devices there.
/// `client_id` is the gateway's own, if it has one yet.
pub(super) async fn check(broker: &Mqtt, client_id: Option<&str>) -> Finding {
    let id = getrandom::u32().map_err(|error| format!("the system gives no random numbers: {error}"))?;
    let visitor = format!("forebay-check-{id:08x}");
    if !broker.native {
        mqtt::knock(broker, visitor).await.map_err(|error| error.to_string())?;
        return Ok("lets the gateway in".to_owned());
    }
    let client_id = broker.client_id.as_deref().or(client_id).unwrap_or_default();
    let prefix = &broker.native_prefix;
    match mqtt::rival(broker, visitor, client_id).await.map_err(|error| error.to_string())? {
        None => Ok("lets the gateway in".to_owned()),
        Some(rival) => Err(format!(
            "another gateway, with the client id {rival:?}, serves the native devices of {prefix}; stop it, or write another native_prefix or native = false"
        )),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::config::{MqttVersion, Secret};

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
            native: false,
            native_prefix: "forebay/v1".to_owned(),
            version: MqttVersion::V3,
            tls: None,
            subscribe: Vec::new(),
        };
        let finding = check(&config, None).await;
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

//! An MQTT broker inside this process, for the demo, which needs nothing installed. Its sessions live in memory.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context as _;
use rumqttd::{Broker, Config, ConnectionSettings, RouterConfig, ServerSettings};

use crate::clock::wait_for;
use crate::process::free_port;

/// A running broker; it ends with the process.
#[derive(Clone, Copy, Debug)]
pub struct EmbeddedBroker {
    /// The port it listens on, on the loopback interface.
    pub port: u16,
}

impl EmbeddedBroker {
    /// Starts a broker on a free port and waits until it accepts a client.
    ///
    /// # Errors
    /// It does not get ready.
    pub fn start() -> anyhow::Result<EmbeddedBroker> {
        let port = free_port()?;
        let connections = ConnectionSettings {
            connection_timeout_ms: 5_000,
            max_payload_size: 256 * 1024,
            max_inflight_count: 200,
            auth: None,
            external_auth: None,
            dynamic_filters: true,
        };
        let server = ServerSettings {
            name: "demo".into(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            tls: None,
            next_connection_delay_ms: 1,
            connections,
        };
        let router = RouterConfig {
            max_connections: 1024,
            max_outgoing_packet_count: 200,
            max_segment_size: 16 * 1024 * 1024,
            max_segment_count: 4,
            ..RouterConfig::default()
        };
        let config = Config { router, v4: Some(HashMap::from([("1".into(), server)])), ..Config::default() };
        let mut broker = Broker::new(config);
        std::thread::Builder::new()
            .name("broker".into())
            .spawn(move || broker.start().map_err(|error| error.to_string()))
            .context("starting the broker's thread")?;
        wait_for("the broker's first CONNACK", super::READY_LIMIT, || super::accepts_client(port))?;
        Ok(EmbeddedBroker { port })
    }
}

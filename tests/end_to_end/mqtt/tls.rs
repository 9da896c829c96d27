//! TLS to the broker: with a CA, a client certificate and a password of one's own, and what is said when one is wrong.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use forebay_tests::clock::wait_for;
use forebay_tests::gateway::{Gateway, Settings};
use forebay_tests::mqtt::{Message, publish};
use forebay_tests::process::free_port;
use forebay_tests::readback::sqlite;
use forebay_tests::services::{Mosquitto, write_password};
use forebay_tests::tls::{Authority, Identity};
use serde_json::Value;

use super::site::{CLIENT_ID, DRAIN_LIMIT, SERVED_LIMIT, subscription};
use crate::world::{Scratch, program};

const USERNAME: &str = "forebay";
const PASSWORD: &str = "swordfish";

/// The names that the broker's proper certificate is good for.
const NAMES: [&str; 2] = ["DNS:localhost", "IP:127.0.0.1"];

/// Messages of a test that arrives.
const MESSAGES: u64 = 100;

/// A broker with a port for TLS, and one without for publishing.
struct Secured {
    broker: Mosquitto,
    port: u16,
    authority: Authority,
    client: Identity,
    password_file: PathBuf,
    scratch: Scratch,
}

impl Secured {
    /// The TLS port wants a client certificate and a password. The broker's certificate is good for `names`.
    fn start(test: &str, names: &[&str]) -> anyhow::Result<Secured> {
        let scratch = Scratch::new(test)?;
        let directory = scratch.path().join("certificates");
        let authority = Authority::new(&directory, "our-ca")?;
        let (server, client) = (authority.sign("broker", names)?, authority.sign("gateway", &[])?);
        let accounts = directory.join("accounts");
        write_password(&accounts, USERNAME, PASSWORD)?;
        let password_file = directory.join("password");
        std::fs::write(&password_file, PASSWORD)?;
        std::fs::set_permissions(&password_file, std::fs::Permissions::from_mode(0o600))?;
        let port = free_port()?;
        let lines = format!(
            "listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {}\n\
             cafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\n",
            accounts.display(),
            authority.certificate().display(),
            server.certificate.display(),
            server.key.display()
        );
        let broker = Mosquitto::start_with(&scratch.path().join("mosquitto"), &lines)?;
        Ok(Secured { broker, port, authority, client, password_file, scratch })
    }

    /// The keys of a client that does everything right.
    fn keys(&self) -> Vec<(&'static str, String)> {
        vec![
            ("url", format!("mqtts://localhost:{}", self.port)),
            ("ca_file", self.authority.certificate().display().to_string()),
            ("client_cert_file", self.client.certificate.display().to_string()),
            ("client_key_file", self.client.key.display().to_string()),
            ("username", USERNAME.to_owned()),
            ("password_file", self.password_file.display().to_string()),
        ]
    }

    fn gateway(&self, keys: &[(&str, String)]) -> anyhow::Result<Gateway> {
        let keys: String = keys.iter().map(|(key, value)| format!("{key} = {value:?}\n")).collect();
        let tables = format!("[[mqtt]]\nclient_id = \"{CLIENT_ID}\"\nnative = false\n{keys}")
            + &subscription("secret");
        let settings = Settings { mqtt: None, ports: Vec::new(), tables };
        Gateway::configure(program(), &self.scratch.path().join("gateway"), &settings)
    }

    /// The messages are stored. What is published before the gateway has subscribed is nobody's, so probes come first.
    fn assert_served(self, keys: &[(&str, String)]) -> anyhow::Result<()> {
        let mut gateway = self.gateway(keys)?;
        let (status, said) = check(&gateway)?;
        assert_eq!(status, Some(0), "{said}");
        assert!(!said.contains(PASSWORD), "the password is printed");
        gateway.resume()?;
        await_source(&gateway, |source| source["state"].as_str() == Some("connected"))?;
        let stored = wait_for("a stored message", SERVED_LIMIT, || {
            let message = Message::new("secret/probe", b"{\"n\":0}".as_slice());
            publish(self.broker.port, [&message]).map_err(|error| format!("{error:#}"))?;
            match gateway.backlog() {
                Ok((_, confirmed)) if confirmed > 0 => Ok(confirmed),
                backlog => Err(format!("{backlog:?}")),
            }
        })?;
        let messages: Vec<Message> = (0..MESSAGES)
            .map(|number| Message::new("secret/device", format!("{{\"n\":{number}}}")))
            .collect();
        publish(self.broker.port, &messages)?;
        wait_for("all messages", SERVED_LIMIT, || match gateway.backlog() {
            Ok((0, confirmed)) if confirmed >= stored + MESSAGES => Ok(()),
            backlog => Err(format!("{backlog:?}")),
        })?;
        gateway.close(DRAIN_LIMIT)?;
        let rows = sqlite::read(&gateway.sqlite_file())?.rows;
        let device = rows.iter().filter(|row| row.device == "device").count() as u64;
        assert_eq!(device, MESSAGES);
        self.scratch.passed();
        Ok(())
    }

    /// Both `check` and the running gateway say each of these words, and nothing arrives.
    fn assert_refused(self, keys: &[(&str, String)], words: &[&str]) -> anyhow::Result<()> {
        let mut gateway = self.gateway(keys)?;
        let (status, said) = check(&gateway)?;
        assert_eq!(status, Some(1), "{said}");
        gateway.resume()?;
        let source = await_source(&gateway, |source| source["last_error"].is_string())?;
        let error = source["last_error"].as_str().unwrap_or_default().to_owned();
        assert!(gateway.terminate()?.success());
        let log = gateway.log_text()?;
        eprintln!("check:\n{said}\nsource: {error}");
        for word in words {
            for (place, text) in [("check", &said), ("the status", &error), ("the log", &log)] {
                assert!(text.contains(word), "{place} does not say {word:?}: {text}");
            }
        }
        for text in [&said, &error, &log] {
            assert!(!text.contains(PASSWORD) && !text.contains("panicked"), "{text}");
        }
        assert_ne!(source["state"].as_str(), Some("connected"), "{source}");
        self.scratch.passed();
        Ok(())
    }
}

/// How `forebay check` ends, and what it says.
fn check(gateway: &Gateway) -> anyhow::Result<(Option<i32>, String)> {
    let output = program().output("check", &gateway.config())?;
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.push_str(&String::from_utf8_lossy(&output.stderr));
    Ok((output.status.code(), said))
}

/// Waits until the gateway's only source is as `is_wanted`.
fn await_source(gateway: &Gateway, is_wanted: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
    wait_for("the broker's state", SERVED_LIMIT, || {
        let status = gateway.status().map_err(|error| format!("{error:#}"))?;
        let sources = status["sources"].as_object();
        let source = sources.and_then(|sources| sources.values().next()).cloned().unwrap_or_default();
        if is_wanted(&source) { Ok(source) } else { Err(source.to_string()) }
    })
}

fn set(keys: &mut [(&'static str, String)], key: &str, value: &str) {
    for entry in keys.iter_mut().filter(|entry| entry.0 == key) {
        value.clone_into(&mut entry.1);
    }
}

#[test]
fn a_broker_that_wants_a_certificate_and_a_password_is_served() -> anyhow::Result<()> {
    let secured = Secured::start("tls", &NAMES)?;
    let keys = secured.keys();
    secured.assert_served(&keys)
}

#[test]
fn an_address_is_as_good_as_a_name_if_the_certificate_says_so() -> anyhow::Result<()> {
    let secured = Secured::start("tls-address", &NAMES)?;
    let mut keys = secured.keys();
    set(&mut keys, "url", &format!("mqtts://127.0.0.1:{}", secured.port));
    secured.assert_served(&keys)
}

#[test]
fn a_broker_of_another_ca_is_refused() -> anyhow::Result<()> {
    let secured = Secured::start("tls-ca", &NAMES)?;
    let other = Authority::new(&secured.scratch.path().join("others"), "other-ca")?;
    let mut keys = secured.keys();
    set(&mut keys, "ca_file", &other.certificate().display().to_string());
    secured.assert_refused(&keys, &["certificate", "CA", "ca_file"])
}

#[test]
fn a_broker_of_another_name_is_refused() -> anyhow::Result<()> {
    let secured = Secured::start("tls-name", &["DNS:broker.example"])?;
    let keys = secured.keys();
    secured.assert_refused(&keys, &["certificate", "name", "localhost", "broker.example"])
}

#[test]
fn a_broker_that_wants_a_certificate_and_gets_none_is_named() -> anyhow::Result<()> {
    let secured = Secured::start("tls-client", &NAMES)?;
    let keys = secured.keys();
    let without: Vec<_> = keys.into_iter().filter(|(key, _)| !key.starts_with("client_")).collect();
    secured.assert_refused(&without, &["certificate", "client_cert_file"])
}

#[test]
fn a_wrong_password_is_named() -> anyhow::Result<()> {
    let secured = Secured::start("tls-password", &NAMES)?;
    std::fs::write(&secured.password_file, "not the password")?;
    let keys = secured.keys();
    secured.assert_refused(&keys, &["username", "password"])
}

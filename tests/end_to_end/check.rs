//! `forebay check` names the key and the cure of what is wrong.

use std::os::unix::fs::PermissionsExt as _;

use forebay_tests::process::free_port;
use forebay_tests::services::{InfluxDb, Mosquitto};

use crate::world::{Scratch, program};

/// Runs `check` on a configuration; its exit status and everything that it said.
fn check(scratch: &Scratch, config: &str) -> anyhow::Result<(Option<i32>, String)> {
    let file = scratch.path().join("forebay.toml");
    let data = scratch.path().join("data");
    std::fs::write(&file, format!("data_dir = {data:?}\n{config}"))?;
    let output = program().output("check", &file)?;
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.push_str(&String::from_utf8_lossy(&output.stderr));
    eprintln!("---- {config}\n---- {:?}\n{said}", output.status.code());
    assert!(!said.contains("panicked") && !said.contains("stack backtrace"), "{said}");
    Ok((output.status.code(), said))
}

/// The problem is found, and each of `words` is in the message.
fn assert_refused(found: &(Option<i32>, String), words: &[&str]) {
    assert_eq!(found.0, Some(1), "{}", found.1);
    for word in words {
        assert!(found.1.contains(word), "{word:?} is not named: {}", found.1);
    }
}

#[test]
fn a_sound_configuration_passes() -> anyhow::Result<()> {
    let scratch = Scratch::new("check-sound")?;
    let broker = Mosquitto::start(&scratch.path().join("mosquitto"))?;
    let server = InfluxDb::start(&scratch.path().join("influxdb"))?;
    let config = format!(
        "[clock]\ntrust = \"always\"\n[[mqtt]]\nurl = \"{}\"\n\
         [[influxdb]]\nname = \"main\"\nurl = \"{}\"\nversion = 1\ndatabase = \"{}\"\n",
        broker.url(),
        server.url(),
        InfluxDb::DATABASE
    );
    assert_eq!(check(&scratch, &config)?.0, Some(0));
    let wrong = config.replace(InfluxDb::DATABASE, "nowhere");
    assert_refused(&check(&scratch, &wrong)?, &["database", "nowhere"]);
    scratch.passed();
    Ok(())
}

#[test]
fn a_wrong_key_is_named_with_its_line_and_the_nearest_known_one() -> anyhow::Result<()> {
    let scratch = Scratch::new("check-key")?;
    let found = check(&scratch, "[journal]\nmax_byte = \"1GiB\"\n")?;
    assert_refused(&found, &["max_byte", "max_bytes", "forebay.toml", "3"]);
    scratch.passed();
    Ok(())
}

#[test]
fn a_broker_and_a_port_that_are_not_there_are_named() -> anyhow::Result<()> {
    let scratch = Scratch::new("check-absent")?;
    let url = format!("mqtt://127.0.0.1:{}", free_port()?);
    assert_refused(&check(&scratch, &format!("[[mqtt]]\nurl = \"{url}\"\n"))?, &["mqtt", &url]);
    let port = scratch.path().join("no-such-port");
    let found = check(&scratch, &format!("[[serial]]\nport = {port:?}\n"))?;
    assert_refused(&found, &["serial.port", "no-such-port"]);
    scratch.passed();
    Ok(())
}

#[test]
fn a_secret_that_everybody_can_read_is_refused() -> anyhow::Result<()> {
    let scratch = Scratch::new("check-secret")?;
    let secret = scratch.path().join("password");
    std::fs::write(&secret, "swordfish\n")?;
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o644))?;
    let config = format!(
        "[[mqtt]]\nurl = \"mqtt://127.0.0.1:{}\"\nusername = \"forebay\"\npassword_file = {secret:?}\n",
        free_port()?
    );
    let found = check(&scratch, &config)?;
    assert_refused(&found, &["password_file", "chmod"]);
    assert!(!found.1.contains("swordfish"), "the secret is printed");
    scratch.passed();
    Ok(())
}

#[test]
fn a_file_that_does_not_parse_has_a_status_of_its_own() -> anyhow::Result<()> {
    let scratch = Scratch::new("check-syntax")?;
    let (status, said) = check(&scratch, "[journal\n")?;
    assert_eq!(status, Some(2), "{said}");
    assert!(said.contains("forebay.toml"), "{said}");
    scratch.passed();
    Ok(())
}

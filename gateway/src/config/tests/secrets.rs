//! Secrets, and who needs them.

use super::*;

#[test]
fn a_secret_that_everybody_can_read_is_a_warning_and_never_shown() {
    let text = "[[mqtt]]\nurl = \"mqtt://a\"\nusername = \"u\"\npassword_file = \"password\"\n";
    let dir = directory(&[("forebay.toml", text), ("password", "hunter2\r\n")]);
    let path = dir.path().join("password");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let loaded = load_dir(dir.path()).unwrap();
    let path = path.display();
    let expected =
        format!("password_file: {path} is readable by everybody (mode 644); run `chmod o-rwx {path}`");
    let [warning] = &loaded.warnings[..] else { panic!("one warning: {:?}", loaded.warnings) };
    assert!(warning.to_string().ends_with(&format!("forebay.toml:4: mqtt.{expected}")), "{warning}");
    assert_eq!(loaded.config.mqtt[0].password.as_ref().map(Secret::expose), Some("hunter2"));
    assert!(!format!("{loaded:?}").contains("hunter2"));
}

#[test]
fn a_secret_file_holds_one_line() {
    let text = "[[mqtt]]\nurl = \"mqtt://a\"\nusername = \"u\"\npassword_file = \"password\"\n";
    for (content, expected) in [
        ("\n", "password is empty; write the secret into it"),
        (
            "forebay:$7$101$c2FsdA==$aGFzaA==\nother:$6$c2FsdA==$aGFzaA==\n",
            "password is a password file of mosquitto, which holds hashes; write the password itself into a file of its own",
        ),
        ("a\nb\n", "password holds more than one line or a control character; write only the secret into it"),
    ] {
        assert_eq!(
            said(&[("forebay.toml", text), ("password", content)]),
            [format!("forebay.toml:4: mqtt.password_file: {expected}")]
        );
    }
}

/// A shell has neither the credentials of the service nor its variables, and may not read its secrets.
#[test]
fn who_only_looks_for_the_gateway_needs_neither_its_variables_nor_its_secrets() {
    let text = "data_dir = \"${DIR}\"\n[http]\nlisten = \"0.0.0.0:1\"\ntoken_file = \"${CREDENTIALS}/http.token\"\n\
        query_sink = \"main\"\n[tags]\nsite = \"${SITE}\"\n[[influxdb]]\nname = \"main\"\nurl = \"http://a\"\norg = \"${ORG}\"\nbucket = \"b\"\n\
        token_file = \"no-such-file\"\n[[serial]]\nusb = \"2e8a:*\"\n";
    let dir = directory(&[("forebay.toml", text)]);
    let loaded = load_for(dir.path(), Purpose::Whereabouts).unwrap();
    assert_eq!(loaded.config.data_dir, Path::new("/data"));
    let told = |problems: &[Problem]| problems.iter().map(|p| (p.line, p.key.clone())).collect::<Vec<_>>();
    let absent = loaded.complete().map(drop).unwrap_err();
    let keys = [(4, "http.token_file"), (7, "tags.site"), (11, "influxdb.org"), (13, "influxdb.token_file")];
    assert_eq!(told(absent.problems()), keys.map(|(line, key)| (Some(line), key.to_owned())));
    // The gateway itself needs them all, and hears of nothing that only follows from that.
    assert_eq!(load_dir(dir.path()).map(drop), Err(absent));

    for (text, key) in [
        ("data_dir = \"${NOWHERE}\"", "data_dir"),
        ("[journal]\nmax_bytes = \"${NOWHERE}\"", "journal.max_bytes"),
        ("data_dri = \"/data\"", "data_dri"),
        ("tags.a = \"${DIR\"", "tags.a"),
    ] {
        let dir = directory(&[("forebay.toml", &format!("{text}\n[[serial]]\nusb = \"2e8a:*\"\n"))]);
        let faults = load_for(dir.path(), Purpose::Whereabouts).unwrap_err();
        assert_eq!(faults.problems().iter().map(|p| p.key.as_str()).collect::<Vec<_>>(), [key]);
    }
    let whole = directory(&[("forebay.toml", "[[serial]]\nusb = \"2e8a:*\"\n")]);
    assert!(load_for(whole.path(), Purpose::Whereabouts).unwrap().complete().is_ok());
}

//! The unit, read as systemd reads it, and what lies beside it.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use anyhow::Context as _;
use forebay_tests::gateway::Program;
use forebay_tests::world::Scratch;

use crate::checkout;

/// Most exposure that `systemd-analyze security` may find; it counts from 0 to 10.
const EXPOSURE_MAX: f64 = 2.0;

/// The values of each key of the unit, in their order.
pub(crate) struct Unit(BTreeMap<String, Vec<String>>);

impl Unit {
    pub(crate) fn parse(text: &str) -> Unit {
        let mut keys: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (key, value) in
            text.lines().filter(|line| !line.starts_with('#')).filter_map(|l| l.split_once('='))
        {
            keys.entry(key.to_owned()).or_default().push(value.to_owned());
        }
        Unit(keys)
    }

    /// The one value of a key.
    pub(crate) fn one(&self, key: &str) -> anyhow::Result<&str> {
        match self.0.get(key).map(Vec::as_slice) {
            Some([value]) => Ok(value),
            values => anyhow::bail!("the unit has {values:?} for {key}"),
        }
    }
}

fn unit() -> anyhow::Result<Unit> {
    Ok(Unit::parse(&std::fs::read_to_string(checkout("gateway/packaging/forebay.service"))?))
}

fn analyze(arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("systemd-analyze")
        .args(arguments)
        .arg(checkout("gateway/packaging/forebay.service"))
        .stdin(Stdio::null())
        .output()
        .context("systemd-analyze is not installed: apt-get install systemd, or run tests/run")?;
    let text = [output.stdout, output.stderr].concat();
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn the_unit_says_what_the_gateway_relies_on() -> anyhow::Result<()> {
    let unit = unit()?;
    for (key, value) in [
        ("Type", "notify"),
        ("User", "forebay"),
        ("SupplementaryGroups", "dialout"),
        ("StateDirectory", "forebay"),
        ("StateDirectoryMode", "0750"),
        ("Restart", "always"),
        ("ExecReload", "/bin/kill -HUP $MAINPID"),
        ("ProtectSystem", "strict"),
        ("CapabilityBoundingSet", ""),
        ("MemoryDenyWriteExecute", "yes"),
    ] {
        assert_eq!(unit.one(key)?, value, "{key}");
    }
    Ok(())
}

/// systemd looks a kind of device up in /proc/devices once, when it starts the unit: what the kernel learns of later stays
/// closed.
#[test]
fn each_kind_of_usb_port_is_known_to_the_kernel_before_it_is_allowed() -> anyhow::Result<()> {
    let unit = unit()?;
    let words = |key: &str| -> anyhow::Result<Vec<String>> {
        let lines = unit.0.get(key).with_context(|| format!("the unit has no {key}"))?;
        Ok(lines.iter().flat_map(|line| line.split(' ')).map(str::to_owned).collect())
    };
    let (wanted, after, allowed) = (words("Wants")?, words("After")?, words("DeviceAllow")?);
    for (kind, module) in [("char-ttyACM", "cdc_acm"), ("char-ttyUSB", "usbserial")] {
        let service = format!("modprobe@{module}.service");
        assert!(allowed.iter().any(|word| word == kind), "{kind} is not allowed: {allowed:?}");
        assert!(wanted.contains(&service) && after.contains(&service), "{service}: {wanted:?}, {after:?}");
    }
    Ok(())
}

#[test]
fn systemd_reads_all_of_the_unit_and_finds_little_exposed() -> anyhow::Result<()> {
    // The program and its manual page are not installed here; whatever else systemd has to say is a fault of the unit.
    let said = analyze(&["verify", "--man=no"])?;
    let faults: Vec<_> =
        said.lines().filter(|line| !line.contains("/usr/bin/forebay is not executable")).collect();
    assert!(faults.is_empty(), "{faults:#?}");

    let said = analyze(&["security", "--offline=yes", "--no-pager"])?;
    let exposure =
        said.lines().find_map(|line| line.split_once("Overall exposure level for forebay.service: "));
    let level = exposure.and_then(|(_, rest)| rest.split(' ').next()).with_context(|| said.clone())?;
    eprintln!("systemd-analyze security: {level}");
    assert!(level.parse::<f64>()? <= EXPOSURE_MAX, "{said}");
    Ok(())
}

/// The packaged configuration is what a new user starts from, so it has to work as it stands.
#[test]
fn the_packaged_configuration_loads_and_each_of_its_suggestions_too() -> anyhow::Result<()> {
    let scratch = Scratch::new("packaged-configuration")?;
    let text = std::fs::read_to_string(checkout("gateway/packaging/forebay.toml"))?;
    anyhow::ensure!(text.contains("data_dir = \"/var/lib/forebay\""), "another data_dir than the unit's");
    let here = |text: &str| {
        let directory = scratch.path().display().to_string();
        text.replace("/var/lib/forebay", &directory).replace("/etc/forebay", &directory)
    };
    let file = scratch.path().join("forebay.toml");
    for secret in ["mqtt.password", "influxdb.token", "http.token"] {
        let path = scratch.path().join(secret);
        std::fs::write(&path, "a-secret-of-some-length\n")?;
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640))?;
    }
    std::fs::write(&file, here(&text))?;
    let loaded = forebay_gateway::config::load(&file)?;
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    assert_eq!(loaded.config.serial.len(), 1);

    // What is commented out is TOML behind `# `; prose has neither brackets nor an equals sign.
    let is_toml = |line: &&str| line.starts_with("[[") || line.starts_with('[') || line.contains(" = ");
    let suggested = text.lines().filter_map(|line| line.strip_prefix("# ")).filter(is_toml);
    let suggested: Vec<_> = suggested.collect();
    assert!(suggested.len() > 12, "{suggested:#?}");
    std::fs::write(&file, here(&format!("{text}\n{}\n", suggested.join("\n"))))?;
    let config = forebay_gateway::config::load(&file)?.config;
    assert_eq!((config.mqtt.len(), config.mqtt[0].subscribe.len(), config.influxdb.len()), (1, 1, 1));
    scratch.passed();
    Ok(())
}

#[test]
fn forebay_check_takes_the_packaged_configuration() -> anyhow::Result<()> {
    let scratch = Scratch::new("packaged-check")?;
    let text = std::fs::read_to_string(checkout("gateway/packaging/forebay.toml"))?;
    let file = scratch.path().join("forebay.toml");
    let token = scratch.path().join("http.token");
    std::fs::write(&token, "a-token-of-some-length\n")?;
    std::fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o640))?;
    let text = text.replace("/etc/forebay", &scratch.path().display().to_string());
    let port = forebay_tests::process::free_port()?;
    std::fs::write(
        &file,
        text.replace("/var/lib/forebay", &scratch.path().join("data").display().to_string()),
    )?;
    let own = format!("[http]\nlisten = \"127.0.0.1:{port}\"\n[clock]\ntrust = \"always\"\n");
    std::fs::create_dir(scratch.path().join("conf.d"))?;
    std::fs::write(scratch.path().join("conf.d/test.toml"), own)?;
    let output = Program::of_this_build().output("check", &file)?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && !said.contains("FAIL"), "{said}");
    scratch.passed();
    Ok(())
}

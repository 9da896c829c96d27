//! The Debian package, from its installation to its purge, in a fresh system.
//!
//! There is no systemd in there: the daemon is started as the unit says, by its own words.

use std::fs::Metadata;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use forebay_tests::clock::wait_for;
use forebay_tests::device::publish;
use forebay_tests::process::{Process, free_port, tail};
use forebay_tests::services::Mosquitto;
use forebay_tests::world::Scratch;

use crate::root::{Root, Who};
use crate::unit::Unit;
use crate::{checkout, script};

const LIMIT: Duration = Duration::from_secs(30);

/// Builds the package; the path that it was written to.
pub(crate) fn build(version: &str, directory: &Path) -> anyhow::Result<PathBuf> {
    let package = directory.join(format!("forebay-{version}.deb"));
    let mut command = script("gateway/packaging/build-deb");
    command.args(["--fast", "--deb-version", version, "--output"]).arg(&package);
    let output = command.stderr(Stdio::inherit()).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    anyhow::ensure!(output.status.success() && package.is_file(), "build-deb: {}\n{said}", output.status);
    assert_eq!(said.lines().last(), package.to_str(), "its last line is the package");
    Ok(package)
}

fn lintian(package: &Path) -> anyhow::Result<()> {
    let mut command = Command::new("lintian");
    command.args(["--fail-on", "error,warning", "--tag-display-limit", "0", "--allow-root"]).arg(package);
    let output = command.stdin(Stdio::null()).output();
    let output = output.context("lintian is not installed: apt-get install lintian, or run tests/run")?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    anyhow::ensure!(output.status.success(), "lintian finds fault with the package:\n{said}");
    Ok(())
}

/// A system with the package in it.
struct Installed {
    root: Root,
    unit: Unit,
    scratch: PathBuf,
    broker: Mosquitto,
    lives: u32,
}

impl Installed {
    fn install(&self, package: &Path) -> anyhow::Result<String> {
        let inside = "/root/forebay.deb";
        std::fs::copy(package, self.root.path(inside))?;
        self.root.run(&["dpkg", "--install", inside])
    }

    /// Starts the daemon with the command, the user, the groups and the directory of the unit, and waits for its word that
    /// it is ready.
    fn start(&mut self) -> anyhow::Result<Process> {
        let user = self.unit.one("User")?;
        assert_eq!(self.unit.one("Group")?, user);
        let who = Who::User(user, self.unit.one("SupplementaryGroups")?);
        let state = format!("/var/lib/{}", self.unit.one("StateDirectory")?);
        let mode = format!("--mode={}", self.unit.one("StateDirectoryMode")?);
        self.root.run(&["install", "--directory", &mode, "--owner", user, "--group", user, &state])?;
        // The log says which of its lives it is.
        self.lives += 1;
        let (name, log) =
            (format!("@forebay-package-{}", self.broker.port + 100 * self.lives as u16), self.log());
        let socket = abstract_socket(&name)?;
        let words: Vec<_> = self.unit.one("ExecStart")?.split(' ').collect();
        let variables = [("NOTIFY_SOCKET", name.as_str()), ("STATE_DIRECTORY", state.as_str())];
        let mut daemon = self.root.spawn(who, &variables, &words, &log)?;
        let mut buffer = [0; 256];
        wait_for("READY=1", LIMIT, || {
            if let Some(status) = daemon.exited() {
                return Ok(Err(status));
            }
            let length = socket.recv(&mut buffer).map_err(|error| error.to_string())?;
            let heard = String::from_utf8_lossy(&buffer[..length]);
            if heard.contains("READY=1") { Ok(Ok(())) } else { Err(heard.into_owned()) }
        })?
        .map_err(|status| anyhow::anyhow!("the daemon ended with {status}:\n{}", tail(&log)))?;
        Ok(daemon)
    }

    fn log(&self) -> PathBuf {
        self.scratch.join(format!("life-{}.log", self.lives))
    }

    /// Publishes a reading as a device does, and waits until the database has this many.
    fn read(&self, value: f64, expected: u32) -> anyhow::Result<()> {
        let payload = format!("{{\"temperature\":{value}}}");
        publish(self.broker.port, vec![("sensors/esp/cellar".to_owned(), payload.into_bytes())])?;
        wait_for("the reading in the database", LIMIT, || match self.readings() {
            Ok(count) if count == expected => Ok(()),
            Ok(count) => Err(format!("{count} of {expected}")),
            Err(error) => Err(format!("{error:#}")),
        })
    }

    fn readings(&self) -> anyhow::Result<u32> {
        readings(&self.root, "field = 'temperature'")
    }

    fn metadata(&self, inside: &str) -> anyhow::Result<Metadata> {
        let path = self.root.path(inside);
        path.symlink_metadata().with_context(|| format!("there is no {inside}"))
    }

    /// Mode, owner and group.
    fn rights(&self, inside: &str) -> anyhow::Result<String> {
        let metadata = self.metadata(inside)?;
        let name = |file: &str, id: u32| -> anyhow::Result<String> {
            let text = std::fs::read_to_string(self.root.path(file))?;
            let line = text.lines().find(|line| line.split(':').nth(2) == Some(&id.to_string()));
            Ok(line.and_then(|line| line.split(':').next()).unwrap_or("?").to_owned())
        };
        let (user, group) = (name("/etc/passwd", metadata.uid())?, name("/etc/group", metadata.gid())?);
        Ok(format!("{:o} {user}:{group}", metadata.permissions().mode() & 0o7777))
    }

    fn is_there(&self, inside: &str) -> bool {
        self.metadata(inside).is_ok()
    }
}

/// How many readings the embedded database has of which this is true.
pub(crate) fn readings(root: &Root, is_true: &str) -> anyhow::Result<u32> {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let file = root.path("/var/lib/forebay/readings.sqlite");
    let database = rusqlite::Connection::open_with_flags(file, flags)?;
    let count = format!("SELECT count(*) FROM readings WHERE {is_true}");
    Ok(database.query_row(&count, [], |row| row.get(0))?)
}

/// What an operator adds to the packaged configuration: a broker, and a port that is free on this machine.
pub(crate) fn own_configuration(port: u16, broker: &Mosquitto) -> String {
    format!(
        "[http]\nlisten = \"127.0.0.1:{port}\"\n[clock]\ntrust = \"always\"\n[[mqtt]]\nurl = \"{}\"\n\
         [[mqtt.subscribe]]\ntopic = \"sensors/{{device}}/{{room}}\"\nformat = \"json\"\nmeasurement = \"climate\"\n",
        broker.url()
    )
}

/// A socket as the service manager's, which times out soon so that an end of the daemon is seen.
fn abstract_socket(name: &str) -> anyhow::Result<UnixDatagram> {
    use std::os::linux::net::SocketAddrExt as _;
    let name = name.strip_prefix('@').context("no abstract name")?;
    let socket = UnixDatagram::bind_addr(&std::os::unix::net::SocketAddr::from_abstract_name(name)?)?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    Ok(socket)
}

#[test]
#[ignore = "takes minutes; `tests/run --long packages` runs it"]
fn the_package_installs_runs_is_upgraded_removed_and_purged() -> anyhow::Result<()> {
    let scratch = Scratch::new("package")?;
    let (first, second) = (build("0.1.0-1", scratch.path())?, build("0.1.1-1", scratch.path())?);
    lintian(&first)?;

    // Logs are looked for in a scratch directory, and a system's links lead everywhere.
    let place = tempfile::tempdir()?;
    let root = Root::make(&place.path().join("root"), "adduser,ca-certificates")?;
    let broker = Mosquitto::start(&scratch.path().join("mosquitto"))?;
    let unit = Unit::parse(&std::fs::read_to_string(checkout("gateway/packaging/forebay.service"))?);
    let mut installed = Installed { root, unit, scratch: scratch.path().to_owned(), broker, lives: 0 };
    let said = installed.install(&first)?;
    assert!(said.contains(":8686/ with the token that is in /etc/forebay/http.token"), "{said}");
    the_files_are_right(&installed)?;
    let token = std::fs::read_to_string(installed.root.path("/etc/forebay/http.token"))?;
    assert!(token.trim().len() >= 40, "a token of {} characters", token.trim().len());

    let own = own_configuration(free_port()?, &installed.broker);
    std::fs::write(installed.root.path("/etc/forebay/conf.d/own.toml"), &own)?;
    let user = Who::User("forebay", "dialout");
    let said = installed.root.run_as(user, &["forebay", "check"])?;
    assert!(!said.contains("FAIL"), "{said}");
    let mut daemon = installed.start()?;
    let groups = std::fs::read_to_string(format!("/proc/{}/status", daemon.id()))?;
    let groups = groups.lines().find(|line| line.starts_with("Groups:")).unwrap_or_default().to_owned();
    assert!(groups.split_whitespace().any(|id| id == "20"), "dialout is not among its groups: {groups}");
    subscribed(&installed)?;
    installed.read(21.5, 1)?;
    let said = installed.root.run_as(user, &["forebay", "status"])?;
    assert!(said.contains("esp"), "{said}");
    assert!(daemon.terminate(LIMIT)?.success());

    // An edited conffile stays, and nobody is asked.
    let conffile = installed.root.path("/etc/forebay/forebay.toml");
    let edited = std::fs::read_to_string(&conffile)? + "\n[tags]\ngateway = \"north-barn\"\n";
    std::fs::write(&conffile, &edited)?;
    installed.install(&second)?;
    let version = installed.root.run(&["dpkg-query", "--show", "--showformat", "${Version}", "forebay"])?;
    assert_eq!(version, "0.1.1-1");
    assert_eq!(std::fs::read_to_string(&conffile)?, edited);
    assert_eq!(installed.readings()?, 1, "an upgrade keeps what was read");
    assert_eq!(std::fs::read_to_string(installed.root.path("/etc/forebay/http.token"))?, token);
    let mut daemon = installed.start()?;
    subscribed(&installed)?;
    installed.read(22.5, 2)?;
    assert!(daemon.terminate(LIMIT)?.success());

    installed.root.run(&["dpkg", "--remove", "forebay"])?;
    assert!(!installed.is_there("/usr/bin/forebay"));
    assert_eq!(installed.readings()?, 2, "a removal keeps what was read");
    assert_eq!(std::fs::read_to_string(&conffile)?, edited, "and what was configured");
    installed.install(&second)?;
    let mut daemon = installed.start()?;
    subscribed(&installed)?;
    installed.read(23.5, 3)?;
    assert!(daemon.terminate(LIMIT)?.success());

    installed.root.run(&["dpkg", "--purge", "forebay"])?;
    for gone in
        ["/var/lib/forebay", "/etc/forebay/http.token", "/etc/forebay/forebay.toml", "/usr/share/doc/forebay"]
    {
        assert!(!installed.is_there(gone), "a purge leaves {gone}");
    }
    assert!(installed.is_there("/etc/forebay/conf.d/own.toml"), "a file of somebody else's stays");
    assert!(!std::fs::read_to_string(installed.root.path("/etc/passwd"))?.contains("forebay"));
    scratch.passed();
    Ok(())
}

/// Waits until the broker's messages reach the daemon: what is published before its subscription is there is nobody's.
fn subscribed(installed: &Installed) -> anyhow::Result<()> {
    let probes = || readings(&installed.root, "field = 'probe'").unwrap_or(0);
    let before = probes();
    wait_for("the daemon's subscription", LIMIT, || {
        let probe = ("sensors/probe/cellar".to_owned(), b"{\"probe\":1}".to_vec());
        publish(installed.broker.port, vec![probe]).map_err(|error| format!("{error:#}"))?;
        if probes() > before { Ok(()) } else { Err(tail(&installed.log())) }
    })
}

fn the_files_are_right(installed: &Installed) -> anyhow::Result<()> {
    for (path, rights) in [
        ("/usr/bin/forebay", "755 root:root"),
        ("/etc/forebay/forebay.toml", "644 root:root"),
        ("/etc/forebay/conf.d", "750 root:forebay"),
        ("/etc/forebay/http.token", "640 root:forebay"),
        ("/var/lib/forebay", "750 forebay:forebay"),
        ("/usr/lib/systemd/system/forebay.service", "644 root:root"),
        ("/usr/lib/udev/rules.d/70-forebay.rules", "644 root:root"),
        ("/usr/share/doc/forebay/README.md", "644 root:root"),
        ("/usr/share/doc/forebay/SECURITY.md", "644 root:root"),
        ("/usr/share/doc/forebay/docs/damaged-card.md", "644 root:root"),
        ("/usr/share/man/man1/forebay.1.gz", "644 root:root"),
        ("/usr/share/man/man1/forebay-dead-letters-replay.1.gz", "644 root:root"),
        ("/usr/share/bash-completion/completions/forebay", "644 root:root"),
        ("/usr/share/zsh/vendor-completions/_forebay", "644 root:root"),
        ("/usr/share/fish/vendor_completions.d/forebay.fish", "644 root:root"),
    ] {
        assert_eq!(installed.rights(path)?, rights, "{path}");
    }
    let conffiles =
        installed.root.run(&["dpkg-query", "--show", "--showformat", "${Conffiles}", "forebay"])?;
    assert!(conffiles.contains(" /etc/forebay/forebay.toml "), "{conffiles}");
    assert_eq!(conffiles.lines().filter(|line| !line.trim().is_empty()).count(), 1, "{conffiles}");
    let user = std::fs::read_to_string(installed.root.path("/etc/passwd"))?;
    let user = user.lines().find(|line| line.starts_with("forebay:")).context("there is no user forebay")?;
    assert!(user.ends_with("/usr/sbin/nologin"), "{user}");
    let enabled = "/etc/systemd/system/multi-user.target.wants/forebay.service";
    assert!(installed.is_there(enabled), "the unit is not enabled");
    Ok(())
}

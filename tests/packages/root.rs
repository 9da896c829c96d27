//! A fresh root file system of this Debian release, in which packages are installed, and what runs in it.
//!
//! Everything runs in mount namespaces of its own, so that no mount is left behind, whatever happens.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;
use forebay_tests::process::Process;

/// A root file system below a directory that outlives it.
#[derive(Debug)]
pub(crate) struct Root {
    directory: PathBuf,
}

/// Who a program runs as.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Who<'a> {
    /// Whoever may do everything.
    Root,
    /// A user with a group of the same name, and one more group.
    User(&'a str, &'a str),
}

impl Root {
    /// Makes the smallest system of this release in which a package can be installed, with what `included` names.
    pub(crate) fn make(directory: &Path, included: &str) -> anyhow::Result<Root> {
        anyhow::ensure!(rustix::process::geteuid().is_root(), "only root can make a root file system");
        let release = std::fs::read_to_string("/etc/os-release").context("reading /etc/os-release")?;
        let suite = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
        let mut command = Command::new("mmdebstrap");
        command.args(["--quiet", "--variant=minbase", "--mode=root", "--include", included]);
        command.arg(suite.context("this is no Debian")?).arg(directory);
        let status = command.stdin(Stdio::null()).status();
        let status =
            status.context("mmdebstrap is not installed: apt-get install mmdebstrap, or run tests/run")?;
        anyhow::ensure!(status.success(), "mmdebstrap: {status}");
        Ok(Root { directory: directory.to_owned() })
    }

    /// A path as this machine sees it.
    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        self.directory.join(inside.trim_start_matches('/'))
    }

    /// A command in there, with these variables and no others.
    pub(crate) fn command(&self, who: Who<'_>, variables: &[(&str, &str)], words: &[&str]) -> Command {
        // The directories that a program expects of the kernel, and a temporary one, for as long as it runs.
        let script = "mount -t proc proc \"$0/proc\" && mount --rbind /dev \"$0/dev\" && mount -t sysfs sysfs \"$0/sys\" \
                      && mount -t tmpfs tmpfs \"$0/tmp\" && exec chroot \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", script]).arg(&self.directory);
        if let Who::User(user, group) = who {
            command.arg(format!("--userspec={user}:{user}")).arg(format!("--groups={group}"));
        }
        command.arg(&self.directory).args(["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]);
        for (name, value) in variables {
            let mut word = String::new();
            // Writing to a string cannot fail.
            let _ = write!(word, "{name}={value}");
            command.arg(word);
        }
        command.args(words);
        command
    }

    /// Runs a command as root to its end, and returns what it said.
    pub(crate) fn run(&self, words: &[&str]) -> anyhow::Result<String> {
        self.run_as(Who::Root, words)
    }

    /// The same as somebody.
    pub(crate) fn run_as(&self, who: Who<'_>, words: &[&str]) -> anyhow::Result<String> {
        let variables = [("DEBIAN_FRONTEND", "noninteractive"), ("LC_ALL", "C.UTF-8")];
        let output = self.command(who, &variables, words).stdin(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        anyhow::ensure!(output.status.success(), "{}: {}\n{said}", words.join(" "), output.status);
        Ok(said)
    }

    /// Starts a command that goes on.
    pub(crate) fn spawn(
        &self,
        who: Who<'_>,
        variables: &[(&str, &str)],
        words: &[&str],
        log: &Path,
    ) -> anyhow::Result<Process> {
        Process::spawn("forebay", self.command(who, variables, words), log)
    }
}

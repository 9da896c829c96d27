//! Faults at chosen system calls of the real gateway, by strace's injection.
//!
//! strace counts calls for each thread apart: `when=7` is the seventh call of whichever thread comes to it first. It runs
//! as a detached grandchild (`-D`), so that the process that is spawned, signalled and waited for is the gateway itself.
//!
//! A short write cannot be made this way: `retval=` answers without writing anything, which is not a short write but a
//! lie. [`crate::forgetting_fs`] makes them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::services;

/// What is done to which calls.
#[derive(Clone, Debug)]
pub struct Strace {
    /// Traced calls, separated by commas.
    calls: String,
    /// strace's expression behind `inject=`.
    fault: String,
    log: PathBuf,
}

impl Strace {
    /// Kills the process when one of its threads makes the `nth` such call; the call is not carried out.
    #[must_use]
    pub fn kill_at(call: &str, nth: u64, log: &Path) -> Strace {
        Strace {
            calls: call.to_owned(),
            fault: format!("{call}:signal=KILL:when={nth}"),
            log: log.to_owned(),
        }
    }

    /// Lets calls fail with `error` without being carried out: `when` as strace takes it, such as `5`, `5..7` or `5+`.
    /// What `also` names is logged besides.
    #[must_use]
    pub fn fail(call: &str, error: &str, when: &str, also: &str, log: &Path) -> Strace {
        let calls = format!("{call},{also}").trim_end_matches(',').to_owned();
        Strace { calls, fault: format!("{call}:error={error}:when={when}"), log: log.to_owned() }
    }

    /// Lets every such call take that much longer.
    #[must_use]
    pub fn delay(call: &str, by: Duration, log: &Path) -> Strace {
        let (calls, fault) = (call.to_owned(), format!("{call}:delay_enter={}", by.as_micros()));
        Strace { calls, fault, log: log.to_owned() }
    }

    /// The command under strace.
    ///
    /// # Errors
    /// strace is not installed.
    pub fn wrap(&self, command: &Command) -> anyhow::Result<Command> {
        let mut traced = services::command("strace", "strace")?;
        traced.args(self.options()).arg("--").arg(command.get_program()).args(command.get_args());
        Ok(traced)
    }

    fn options(&self) -> Vec<OsString> {
        let mut options: Vec<OsString> = ["-D", "-f", "-qq", "-y"].map(OsString::from).into();
        if !self.fault.contains(":signal=") {
            // Only traced calls stop, which costs the others nothing. strace injects no signals in this mode.
            options.push("--seccomp-bpf".into());
        }
        options.extend(["-o".into(), self.log.clone().into_os_string()]);
        options.extend(["-e".into(), format!("trace={}", self.calls).into()]);
        options.extend(["-e".into(), format!("inject={}", self.fault).into()]);
        options
    }

    /// What strace has logged so far, call by call.
    ///
    /// # Errors
    /// There is no log.
    pub fn calls(&self) -> anyhow::Result<Vec<Call>> {
        let log = std::fs::read(&self.log)?;
        Ok(String::from_utf8_lossy(&log).lines().filter_map(Call::parse).collect())
    }
}

/// One logged call on a file descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its name.
    pub name: String,
    /// The file that the descriptor stands for.
    pub path: String,
    /// Whether the fault was put in.
    pub injected: bool,
}

impl Call {
    /// Reads `1234 fdatasync(9</dir/file>) = 0`, or the first half of a call that another thread interrupted.
    fn parse(line: &str) -> Option<Call> {
        let (name, rest) = line.split_once(' ')?.1.trim_start().split_once('(')?;
        let path = rest.split_once('<')?.1.split_once('>')?.0;
        Some(Call { name: name.to_owned(), path: path.to_owned(), injected: line.ends_with("(INJECTED)") })
    }
}

#[cfg(test)]
mod tests {
    use super::{Call, Strace};
    use std::ffi::OsStr;
    use std::path::Path;

    #[test]
    fn calls_are_read_from_the_log() {
        let call = Call::parse("77 fdatasync(9</d/a b>) = -1 EIO (Input/output error) (INJECTED)").unwrap();
        assert_eq!(call, Call { name: "fdatasync".into(), path: "/d/a b".into(), injected: true });
        let call = Call::parse("77 pwrite64(3</d/x>, \"\\0\"..., 512, 0 <unfinished ...>").unwrap();
        assert_eq!((call.name.as_str(), call.path.as_str(), call.injected), ("pwrite64", "/d/x", false));
        assert_eq!(Call::parse("77 +++ exited with 0 +++"), None);
    }

    #[test]
    fn signals_are_injected_without_the_filter_that_loses_them() {
        let text = |strace: Strace| strace.options().join(OsStr::new(" ")).to_string_lossy().into_owned();
        let kill = text(Strace::kill_at("pwrite64", 7, Path::new("/l")));
        assert_eq!(kill, "-D -f -qq -y -o /l -e trace=pwrite64 -e inject=pwrite64:signal=KILL:when=7");
        let fail = text(Strace::fail("fdatasync", "EIO", "5+", "fsync", Path::new("/l")));
        assert!(
            fail.contains(
                "--seccomp-bpf -o /l -e trace=fdatasync,fsync -e inject=fdatasync:error=EIO:when=5+"
            )
        );
    }
}

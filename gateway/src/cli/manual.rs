//! `forebay completions` and `forebay man`: what a package installs for shells and readers, made from the definitions of the
//! commands themselves, so that it never says anything else.

use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context as _, Result};
use clap::{Command, ValueEnum};
use clap_complete::aot::{Bash, Fish, Zsh, generate};
use clap_mangen::Man;

/// The shells that can complete the commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Prints what a shell needs to complete the commands.
pub(super) fn completions(shell: Shell, command: Command) -> Result<()> {
    print(&script(shell, command))
}

/// Prints the manual page, or writes one for it and for each command into a directory, which is made where it is missing.
pub(super) fn pages(command: Command, directory: Option<&Path>) -> Result<()> {
    let Some(directory) = directory else {
        let mut page = Vec::new();
        Man::new(command).render(&mut page)?;
        return print(&page);
    };
    std::fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(command, directory))
        .with_context(|| {
            format!("cannot write manual pages into {}; name a directory of yours", directory.display())
        })
}

fn script(shell: Shell, mut command: Command) -> Vec<u8> {
    let (name, mut script) = (command.get_name().to_owned(), Vec::new());
    match shell {
        Shell::Bash => generate(Bash, &mut command, name, &mut script),
        Shell::Zsh => generate(Zsh, &mut command, name, &mut script),
        Shell::Fish => generate(Fish, &mut command, name, &mut script),
    }
    script
}

/// Prints a page. Whoever has seen enough, as `head` has, is no fault.
pub(super) fn print(text: &[u8]) -> Result<()> {
    match io::stdout().lock().write_all(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::CommandFactory as _;

    /// The commands that `forebay --help` shows, and theirs.
    fn names(command: &Command) -> Vec<String> {
        let below = |command: &Command| names(command).into_iter();
        let all = command.get_subcommands().filter(|command| !command.is_hide_set());
        all.flat_map(|command| std::iter::once(command.get_name().to_owned()).chain(below(command))).collect()
    }

    #[test]
    fn every_shell_is_told_of_every_command_and_option() {
        let names = names(&Cli::command());
        assert!(names.len() > 20, "{names:?}");
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = String::from_utf8(script(shell, Cli::command())).unwrap();
            for word in names.iter().map(String::as_str).chain(["config", "dry-run", "watch", "payload"]) {
                assert!(script.contains(word), "{shell:?} does not complete {word}");
            }
        }
    }

    #[test]
    fn there_is_a_manual_page_for_each_command() {
        let directory = tempfile::tempdir().unwrap();
        let inside = directory.path().join("man1");
        pages(Cli::command(), Some(&inside)).unwrap();
        let files: Vec<_> = std::fs::read_dir(&inside).unwrap().map(|file| file.unwrap().path()).collect();
        assert_eq!(files.len(), 1 + names(&Cli::command()).len());
        for name in ["forebay.1", "forebay-run.1", "forebay-dead-letters-replay.1"] {
            let page = std::fs::read_to_string(inside.join(name)).unwrap();
            assert!(page.contains(".SH NAME") && page.contains(".SH SYNOPSIS"), "{name}: {page}");
        }
        let refused = pages(Cli::command(), Some(Path::new("/proc/forebay"))).unwrap_err();
        assert!(format!("{refused:#}").contains("/proc/forebay"), "{refused:#}");
    }
}

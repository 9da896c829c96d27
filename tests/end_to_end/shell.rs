//! Commands from a shell beside a packaged gateway: without its variables, and as root where the data is another user's.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::Path;
use std::process::{Output, Stdio};

use forebay_tests::gateway::{Gateway, Program, Settings, data_dir};
use forebay_tests::process::free_port;

use crate::world::{Scratch, program};

const VARIABLE: &str = "FOREBAY_TEST_PASSWORD";

/// No system has a user with this number.
const STRANGER: u32 = 54_321;

fn with_the_variable() -> Program {
    program().with_variable(VARIABLE, "only-the-service-has-it".into())
}

/// Its exit status, and all that it prints.
fn ran(program: &Program, words: &[&str], gateway: &Gateway) -> anyhow::Result<(Option<i32>, String)> {
    let mut command = program.bare();
    command.args(words).arg("--config").arg(gateway.config()).stdin(Stdio::null());
    let Output { status, stdout, stderr } = command.output()?;
    Ok((status.code(), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned()))
}

fn start(scratch: &Scratch) -> anyhow::Result<Gateway> {
    let port = free_port()?;
    let tables = format!(
        "[[mqtt]]\nurl = \"mqtt://127.0.0.1:{port}\"\nusername = \"forebay\"\npassword = \"${{{VARIABLE}}}\"\n"
    );
    let settings = Settings { tables, ..Settings::default() };
    Gateway::start(with_the_variable(), &scratch.path().join("gateway"), &settings)
}

#[test]
fn who_asks_the_gateway_needs_none_of_its_variables() -> anyhow::Result<()> {
    let scratch = Scratch::new("shell-variables")?;
    let mut gateway = start(&scratch)?;
    for words in [
        &["status"][..],
        &["audit"],
        &["ports"],
        &["query"],
        &["dead-letters", "list"],
        &["journal", "verify"],
    ] {
        let (status, said) = ran(&program(), words, &gateway)?;
        assert_eq!(status, Some(0), "{words:?}: {said}");
        assert!(!said.contains(VARIABLE), "{words:?}: {said}");
    }
    let (status, said) = ran(&program(), &["check"], &gateway)?;
    assert!(status == Some(1) && said.contains(&format!("no variable {VARIABLE}")), "{said}");
    assert!(gateway.terminate()?.success());
    let (status, said) = ran(&program(), &["sinks", "list"], &gateway)?;
    assert!(status == Some(0) && said.contains("sqlite"), "{said}");
    // Now the databases are asked from here, which takes all that the configuration says.
    let (status, said) = ran(&program(), &["audit"], &gateway)?;
    assert!(status == Some(2) && said.contains("no gateway runs") && said.contains(VARIABLE), "{said}");
    let (status, said) = ran(&with_the_variable(), &["audit"], &gateway)?;
    assert_eq!(status, Some(0), "{said}");
    scratch.passed();
    Ok(())
}

/// Each file of a directory with its owner, size and time of its last change.
fn files(directory: &Path) -> anyhow::Result<BTreeMap<String, (u32, u64, i64, i64)>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(directory)? {
        let (entry, name) = entry.map(|entry| (entry.metadata(), entry.file_name()))?;
        let found = entry?;
        let state = (found.uid(), found.size(), found.mtime(), found.mtime_nsec());
        files.insert(name.to_string_lossy().into_owned(), state);
    }
    Ok(files)
}

#[test]
fn root_leaves_nothing_in_a_journal_of_another_user() -> anyhow::Result<()> {
    let scratch = Scratch::new("shell-root")?;
    let mut gateway = start(&scratch)?;
    assert!(gateway.terminate()?.success());
    let journal = data_dir(&scratch.path().join("gateway")).join("journal");
    if chown(&journal, Some(STRANGER), None).is_err() {
        eprintln!("not root: nothing to refuse");
        scratch.passed();
        return Ok(());
    }
    let before = files(&journal)?;
    let export = ["export", "--from", "0", "--format", "csv"];
    for words in [&["sinks", "list"][..], &["sinks", "forget", "sqlite"], &["audit"], &export] {
        let (status, said) = ran(&with_the_variable(), words, &gateway)?;
        assert!(status.is_some_and(|status| status != 0), "{words:?}: {said}");
        assert!(said.contains(&format!("run `sudo -u '#{STRANGER}' ")), "{words:?}: {said}");
        assert!(said.contains(&format!(" {} ", words.join(" "))), "the command itself: {said}");
        assert_eq!(files(&journal)?, before, "{words:?}");
    }
    chown(&journal, Some(0), None)?;
    let (status, said) = ran(&with_the_variable(), &["sinks", "list"], &gateway)?;
    assert!(status == Some(0) && said.contains("sqlite"), "{said}");
    scratch.passed();
    Ok(())
}

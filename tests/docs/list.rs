//! Every block of every page, and which test runs it.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context as _;
use forebay_tests::docs::{Block, blocks, pages};

use crate::stage::root;

/// Who runs the blocks of these kinds on a page, but for those that are marked. Each of them fails over a block that it
/// does not know.
const RUN: &[(&str, &[&str], &str)] = &[
    ("README.md", &["sh", "toml", "json", "mosquitto"], "tests/docs/readme.rs"),
    ("docs/damaged-card.md", &["sh"], "tests/docs/upkeep.rs"),
    ("docs/dashboard.md", &["sh"], "tests/docs/upkeep.rs"),
    ("docs/devices.md", &["toml", "mqtt", "influx"], "gateway/tests/devices_md.rs"),
    ("docs/guarantees.md", &["toml", "mosquitto"], "gateway/tests/guarantees_md.rs"),
    ("docs/guarantees.md", &["sh"], "tests/docs/upkeep.rs"),
    ("docs/influxdb.md", &["sh", "toml"], "tests/docs/tasks.rs"),
    ("docs/pico.md", &["sh", "toml", "text"], "tests/docs/tasks.rs"),
    ("docs/sd-card.md", &["sh", "toml"], "tests/docs/upkeep.rs"),
    ("docs/spool.md", &["sh", "toml"], "tests/docs/upkeep.rs"),
    ("docs/sqlite.md", &["sql", "text"], "gateway/tests/sqlite_md.rs"),
    ("docs/sqlite.md", &["sh"], "tests/docs/upkeep.rs"),
    ("docs/start.md", &["sh", "toml", "text"], "tests/docs/tasks.rs"),
    ("docs/tasmota.md", &["sh", "toml", "mosquitto", "text"], "tests/docs/tasks.rs"),
    ("docs/upgrade.md", &["sh"], "tests/docs/upkeep.rs"),
    ("docs/wire.md", &["frame", "conversation"], "shared/tests/wire_md.rs"),
];

/// What is looked at and not run: drawings, answers, files of other programs in outline.
const SHOWN: &str = "text";

#[derive(Debug, Default)]
struct Counts {
    run: usize,
    marked: usize,
}

impl Counts {
    fn add(&mut self, block: &Block, count: usize) {
        if block.not_run.is_some() { self.marked += count } else { self.run += count }
    }

    fn total(&self) -> usize {
        self.run + self.marked
    }
}

#[test]
fn every_block_is_run_or_says_why_not() -> anyhow::Result<()> {
    let (mut commands, mut others) = (Counts::default(), Counts::default());
    let (mut used, mut nobody) = (BTreeSet::new(), Vec::new());
    for page in pages(root())? {
        let text = std::fs::read_to_string(root().join(&page))?;
        for block in blocks(&text).with_context(|| page.clone())? {
            let runner =
                RUN.iter().position(|(of, kinds, _)| *of == page && kinds.contains(&block.kind.as_str()));
            match (runner, &block.not_run) {
                (Some(runner), None) => {
                    used.insert(runner);
                }
                (None, None) if block.kind != SHOWN => {
                    nobody.push(format!("{page}:{}: a block of {}", block.line, block.kind));
                }
                _ => {}
            }
            if block.kind == "sh" {
                commands.add(&block, block.commands().len());
            } else if block.kind != SHOWN || runner.is_some() {
                others.add(&block, 1);
            }
        }
    }
    println!(
        "\ndocs: {} commands, {} run, {} marked; {} other blocks, {} run, {} marked",
        commands.total(),
        commands.run,
        commands.marked,
        others.total(),
        others.run,
        others.marked
    );
    assert!(nobody.is_empty(), "no test runs these, and nothing says why not: {nobody:#?}");
    for (at, (page, kinds, test)) in RUN.iter().enumerate() {
        assert!(used.contains(&at), "{test} has nothing to run of {page}: {kinds:?}");
        let source = std::fs::read_to_string(root().join(test)).with_context(|| (*test).to_owned())?;
        let name = Path::new(page).file_name().unwrap_or_default().to_string_lossy();
        assert!(source.contains(name.as_ref()), "{test} does not read {page}");
    }
    Ok(())
}

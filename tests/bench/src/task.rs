//! Each measurement runs in a process of its own, so that its processor time and memory are its own too.
//!
//! Operation: this program starts itself as `forebay-bench task NAME JSON`, and the task prints its outcome as JSON.

use std::env;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{ack, journal};

/// Something to be measured in a process of its own.
pub(crate) trait Task: Serialize + DeserializeOwned {
    /// What it is called between the two processes.
    const NAME: &'static str;
    /// What is measured.
    type Outcome: Serialize + DeserializeOwned;

    /// Does it, in the process that was started for it.
    fn run(&self) -> Result<Self::Outcome>;

    /// Has it done, in a process that is started for it.
    fn measure(&self) -> Result<Self::Outcome> {
        let mut command = Command::new(env::current_exe()?);
        command.args(["task", Self::NAME, &serde_json::to_string(self)?]);
        let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
        ensure!(output.status.success(), "the task {} ended with {}", Self::NAME, output.status);
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("the task {} printed nonsense", Self::NAME))
    }
}

/// Does the task that this process was started for.
pub(crate) fn run(name: &str, task: &str) -> Result<()> {
    match name {
        journal::Paced::NAME => run_one::<journal::Paced>(task),
        journal::FlatOut::NAME => run_one::<journal::FlatOut>(task),
        journal::Fill::NAME => run_one::<journal::Fill>(task),
        journal::Open::NAME => run_one::<journal::Open>(task),
        ack::Closed::NAME => run_one::<ack::Closed>(task),
        ack::Limited::NAME => run_one::<ack::Limited>(task),
        ack::Wear::NAME => run_one::<ack::Wear>(task),
        _ => bail!("there is no task {name}"),
    }
}

fn run_one<T: Task>(task: &str) -> Result<()> {
    let outcome = serde_json::from_str::<T>(task)?.run()?;
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(())
}

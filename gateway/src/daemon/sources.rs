//! The sources that run, each broker with its own word to stop, so that one whose configuration has changed can be begun anew
//! while the others go on. The thread of the serial ports is told what is wanted now, and does the same for each `[[serial]]`.

use std::path::PathBuf;
use std::thread::{Builder, JoinHandle};

use anyhow::Result;
use tokio::sync::watch;
use tracing::info;

use super::{client_id, join};
use crate::config::{Config, Mqtt, Serial};
use crate::source::{Context, Reporter, mqtt, serial};

/// All threads that read.
pub(super) struct Sources {
    context: Context,
    data_dir: PathBuf,
    brokers: Vec<(Mqtt, Running)>,
    /// The ports that are wanted, which share a thread; there is none before there is a port.
    serial: Option<(watch::Sender<Vec<Serial>>, Running)>,
}

/// A thread, and how it is stopped.
#[derive(Debug)]
struct Running {
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl Running {
    fn start(name: &str, context: &Context, run: impl FnOnce(&Context) + Send + 'static) -> Result<Running> {
        let (stop, stopped) = watch::channel(false);
        let context = Context { stop: stopped, ..context.clone() };
        let thread = Builder::new().name(name.to_owned()).spawn(move || run(&context))?;
        Ok(Running { stop, thread })
    }
}

/// Tells all of them to stop before it waits for any.
fn stop(all: Vec<Running>) {
    for running in &all {
        running.stop.send_replace(true);
    }
    join(all.into_iter().map(|running| running.thread).collect());
}

impl Sources {
    /// Starts what the configuration names. The word to stop in `context` counts for none of it.
    ///
    /// # Errors
    /// The system gives no thread, or the client id cannot be had.
    pub(super) fn start(config: &Config, context: Context) -> Result<Sources> {
        let data_dir = config.data_dir.clone();
        let mut sources = Sources { context, data_dir, brokers: Vec::new(), serial: None };
        sources.change(config)?;
        Ok(sources)
    }

    /// Begins anew whatever is configured otherwise than it runs, and lets all others be. A source that stops has sent the acks
    /// of what was committed, and its broker sends the rest again to the next. What runs as it should is never touched, so this
    /// may be done again at any time.
    ///
    /// # Errors
    /// The system gives no thread, or the client id cannot be had. Sources that this concerns do not run then.
    pub(super) fn change(&mut self, config: &Config) -> Result<()> {
        let (kept, gone): (Vec<_>, Vec<_>) =
            self.brokers.drain(..).partition(|(broker, _)| config.mqtt.contains(broker));
        self.brokers = kept;
        let (gone, running): (Vec<Mqtt>, Vec<Running>) = gone.into_iter().unzip();
        stop(running);
        for broker in gone {
            if config.mqtt.iter().any(|other| other.url == broker.url) {
                info!("{} is left, and begun anew: its configuration has changed", broker.url);
            } else {
                info!("{} is left: it is not in the configuration any more", broker.url);
                self.context.stats.forget_source(&broker.url);
            }
        }
        let mut result = Ok(());
        for broker in &config.mqtt {
            if !self.brokers.iter().any(|(running, _)| running == broker) {
                result = result.and(self.start_broker(broker));
            }
        }
        result.and(self.change_serial(&config.serial))
    }

    fn start_broker(&mut self, broker: &Mqtt) -> Result<()> {
        let client_id = match &broker.client_id {
            Some(client_id) => client_id.clone(),
            None => client_id::kept_or_new(&self.data_dir)?,
        };
        let reporter = Reporter::new(broker.url.clone(), self.context.stats.source(&broker.url));
        let own = broker.clone();
        let run = move |context: &Context| mqtt::run(&own, &client_id, context, reporter);
        let running = Running::start("mqtt", &self.context, run)?;
        self.brokers.push((broker.clone(), running));
        Ok(())
    }

    fn change_serial(&mut self, ports: &[Serial]) -> Result<()> {
        if let Some((wanted, _)) = &self.serial {
            wanted.send_if_modified(|wanted| {
                let is_changed = *wanted != ports;
                ports.clone_into(wanted);
                is_changed
            });
        } else if !ports.is_empty() {
            let (wanted, heard) = watch::channel(ports.to_vec());
            let run = move |context: &Context| serial::run(heard, context);
            self.serial = Some((wanted, Running::start("serial", &self.context, run)?));
        }
        Ok(())
    }

    /// Stops all of them, and waits for their end.
    pub(super) fn stop(&mut self) {
        let brokers = self.brokers.drain(..).map(|(_, running)| running);
        stop(brokers.chain(self.serial.take().map(|(_, running)| running)).collect());
    }
}

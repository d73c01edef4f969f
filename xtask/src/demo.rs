//! The main job on real brokers, from nothing, told to whoever watches.

mod activemq;
mod rabbitmq;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;

use crate::brokers::{Kind, PrivateNode, Settings};
use crate::interrupt::Interrupt;
use crate::packages;
use crate::python;
use crate::services::{self, Configuration, Esm, Programs};
use crate::wait;

/// Retries included, everything here is over within seconds on a quiet machine.
const LIMIT: Duration = Duration::from_mins(2);

/// The function's source.
const FUNCTION: &str = include_str!("../assets/function.py");

/// What is worth showing of the metrics page.
const METRICS: [&str; 7] = [
    "esm_source_connected",
    "esm_polled_events_total",
    "esm_batches_total",
    "esm_invocations_total",
    "esm_errors_total",
    "esm_deleted_events_total",
    "esm_duration_seconds_count",
];

#[derive(Args)]
pub(crate) struct Arguments {
    /// End by itself, with success only if every message arrived
    #[arg(long)]
    once: bool,
    /// Show only this one
    #[arg(long)]
    broker: Option<Kind>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let kinds = arguments.broker.map_or_else(|| vec![Kind::Rabbitmq, Kind::Activemq], |kind| vec![kind]);
    packages::ensure(&packages::BUILD)?;
    packages::ensure(&packages::PYTHON)?;
    for kind in &kinds {
        packages::ensure(kind.packages())?;
    }
    say("Building esm and programs that send messages; making a Python with AWS's runtime client and Powertools.");
    let programs = Programs::build("debug", &[])?;
    let interrupt = Interrupt::hold()?;
    let python = python::for_functions()?;
    for (place, kind) in kinds.iter().enumerate() {
        let stays = !arguments.once && place == kinds.len() - 1;
        let folder = tempfile::Builder::new().prefix("esm-demo-").tempdir()?;
        let stage = Stage { programs: &programs, python: &python, folder: folder.path(), interrupt: &interrupt };
        stage.show(*kind, stays)?;
    }
    Ok(())
}

/// What is shown of one broker.
trait Scene {
    fn queue(&self) -> &'static str;

    /// How many messages [`Scene::send`] sends.
    fn messages(&self) -> u64;

    /// Makes the queue, where a broker does not do so by itself.
    fn prepare(&mut self) -> Result<()>;

    /// What [`Scene::send`] is about to do, in words.
    fn announcement(&self) -> String;

    fn send(&mut self) -> Result<()>;

    /// How to look around, and how to send more.
    fn hints(&self) -> Result<String>;

    /// What the broker itself says is left in the queue: a list.
    fn rest(&mut self) -> Result<String>;
}

/// Where a scene plays.
struct Stage<'a> {
    programs: &'a Programs,
    python: &'a Path,
    folder: &'a Path,
    interrupt: &'a Interrupt,
}

impl Stage<'_> {
    fn show(&self, kind: Kind, stays: bool) -> Result<()> {
        let title = kind.title();
        say(&format!(
            "Starting {title}: a node of our own, on free ports and in a temporary folder. This takes some seconds."
        ));
        let node = PrivateNode::up(&self.folder.join(kind.name()), Settings::of(kind))?;
        let mut scene: Box<dyn Scene + '_> = match kind {
            Kind::Rabbitmq => Box::new(rabbitmq::Show { stage: self, node: &node }),
            Kind::Activemq => Box::new(activemq::Show::open(self, &node)?),
        };
        scene.prepare()?;
        say("The function is a Lambda handler in Python. It will fail its first invocation on purpose.");
        let file = self.write_function()?;
        println!("{}:\n\n{FUNCTION}", file.display());

        let queue = scene.queue();
        let mapping = services::mapping(queue, "batch_size = 5\nmaximum_batching_window_in_seconds = 1\n");
        let configuration = Configuration::new(&node.source(), &self.backend(&file), &[mapping]);
        say(&format!("esm gets this configuration, and begins to read the queue `{queue}`:"));
        println!("{}", configuration.text);
        let mut esm = Esm::start(self.programs, self.folder, &configuration)?;
        esm.wait_until_ready(self.interrupt)?;

        say(&format!(
            "{}\nesm makes batches of up to five and invokes the function with each. The first invocation fails, so \
             that batch comes again after a second, marked as such. esm logs what the function prints:",
            scene.announcement()
        ));
        scene.send()?;
        self.wait_for_arrival(&mut esm, scene.messages())?;

        say("Every message has arrived, and only then left the broker. esm's metrics say so too:");
        show_metrics(&esm)?;
        if stays {
            self.wait_for_end(&mut esm, &scene.hints()?)?;
        }
        esm.stop()?;
        say("esm has stopped. The broker is asked for whatever is left in the queue, and answers:");
        let rest = scene.rest()?;
        println!("{rest}");
        ensure!(rest.trim() == "[]", "the queue is not empty");
        say(&format!("Nothing: the queue is empty. That was all of {title}."));
        Ok(())
    }

    fn write_function(&self) -> Result<PathBuf> {
        let file = self.folder.join("function.py");
        fs::write(&file, FUNCTION)?;
        Ok(file)
    }

    /// The line that says how the function is run.
    fn backend(&self, file: &Path) -> String {
        let (python, dir) = (self.python.display(), file.parent().unwrap_or(self.folder).display());
        format!(r#"process = {{ command = ["{python}", "-m", "awslambdaric", "function.handle"], dir = "{dir}" }}"#)
    }

    fn wait_for_arrival(&self, esm: &mut Esm, messages: u64) -> Result<()> {
        let expected = [("esm_deleted_events_total", messages), ("esm_errors_total", 1)];
        let waited = esm.wait_for("every message to arrive", LIMIT, self.interrupt, |esm| {
            show_printed(esm)?;
            let page = esm.page("/metrics")?;
            Ok(expected.iter().all(|(name, least)| services::metric(&page, name) >= *least as f64))
        });
        show_printed(esm)?;
        waited
    }

    fn wait_for_end(&self, esm: &mut Esm, hints: &str) -> Result<()> {
        say(&format!(
            "All of this keeps running until you press Ctrl-C. Look around, or send more:\n  \
             metrics: http://127.0.0.1:{}/metrics\n{hints}",
            esm.port(),
        ));
        wait::until("Ctrl-C", Duration::MAX, || {
            show_printed(esm)?;
            Ok(self.interrupt.asked())
        })
    }
}

fn show_printed(esm: &mut Esm) -> Result<()> {
    for line in esm.printed()? {
        println!("  {line}");
    }
    Ok(())
}

fn show_metrics(esm: &Esm) -> Result<()> {
    let page = esm.page("/metrics")?;
    for line in page.lines().filter(|line| METRICS.iter().any(|name| line.starts_with(name))) {
        println!("  {line}");
    }
    Ok(())
}

fn say(text: &str) {
    println!("\n== {text}\n");
}

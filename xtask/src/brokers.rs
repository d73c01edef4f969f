//! Private brokers on loopback, for tests, demonstrations and benchmarks.
//!
//! A node lives in one folder, needs no service manager and nothing under `/etc` or `/var`, and any user can
//! run several at once. Standard output carries the environment only, so a shell can read it:
//! `eval "$(cargo xtask brokers up)"`.

mod activemq;
mod certificates;
mod node;
mod rabbitmq;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};

pub(crate) use activemq::classpath;
pub(crate) use node::{Engine, Node, PrivateNode};
pub(crate) use rabbitmq::Ports as RabbitmqPorts;

use node::Settings;

use crate::process::Process;
use crate::workspace;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Start a node and print the environment that tests read
    Up {
        #[command(flatten)]
        place: Place,
        /// For RabbitMQ a further line of rabbitmq.conf, for ActiveMQ connector=OPTION, policy=XML, store=FOLDER or
        /// jit=full; may be given several times
        #[arg(long = "conf", value_name = "LINE")]
        conf: Vec<String>,
        /// End the node when this process is gone
        #[arg(long, value_name = "PID")]
        parent_pid: Option<u32>,
    },
    /// Print the environment of a node that is up
    Env(Place),
    /// Start a stopped or killed node again, on its data and its ports
    Start(Place),
    /// Stop a node in good order; its data stays
    Stop(Place),
    /// Kill a node as a power cut would; its data stays
    Kill(Place),
    /// Halt a node's process, so that it neither speaks nor listens
    Pause(Place),
    /// Let a halted node go on
    Resume(Place),
    /// End a node and remove its folder
    Down(Place),
    /// Wait for a process to end, then end a node
    #[command(hide = true)]
    Watch {
        #[command(flatten)]
        place: Place,
        /// The process to wait for
        #[arg(long, value_name = "PID")]
        parent_pid: u32,
    },
}

#[derive(Args)]
pub(crate) struct Place {
    /// Which kind of broker
    #[arg(value_enum, default_value = "rabbitmq")]
    engine: Engine,
    /// The node's folder [default: in cargo's target folder, brokers/ and the kind]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Place {
    fn folder(&self) -> Result<PathBuf> {
        let folder = match &self.dir {
            Some(dir) => dir.clone(),
            None => workspace::target_dir()?.join("brokers").join(self.engine.name()),
        };
        std::path::absolute(&folder).with_context(|| format!("cannot use the folder {}", folder.display()))
    }
}

pub(crate) fn run(command: Command) -> Result<()> {
    match command {
        Command::Up { place, conf, parent_pid } => up(place.engine, &place.folder()?, &Settings { conf, parent_pid }),
        Command::Env(place) => print_environment(&Node::open(&place.folder()?)?),
        Command::Start(place) => start(&place.folder()?),
        Command::Stop(place) => Node::open(&place.folder()?)?.stop(),
        Command::Kill(place) => Node::open(&place.folder()?)?.kill(),
        Command::Pause(place) => Node::open(&place.folder()?)?.pause(),
        Command::Resume(place) => Node::open(&place.folder()?)?.resume(),
        Command::Down(place) => Node::open(&place.folder()?)?.down(),
        Command::Watch { place, parent_pid } => watch(&place.folder()?, parent_pid),
    }
}

fn up(engine: Engine, folder: &Path, settings: &Settings) -> Result<()> {
    engine.install()?;
    let node = match Node::open(folder) {
        Ok(node) if node.is_running() => {
            eprintln!("this node is up already");
            node
        }
        _ => Node::up(engine, folder, settings)?,
    };
    print_environment(&node)
}

fn start(folder: &Path) -> Result<()> {
    let mut node = Node::open(folder)?;
    node.start()?;
    print_environment(&node)
}

#[expect(clippy::unnecessary_wraps, reason = "every command ends alike")]
fn print_environment(node: &Node) -> Result<()> {
    print!("{}", node.exports());
    Ok(())
}

fn watch(folder: &Path, parent_pid: u32) -> Result<()> {
    if let Some(parent) = Process::find(parent_pid) {
        parent.wait_for_end()?;
    }
    // Whoever waited for may have ended the node in good order.
    match Node::open(folder) {
        Ok(node) => node.down(),
        Err(_) => Ok(()),
    }
}

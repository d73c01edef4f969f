//! Private brokers on loopback, for tests, demonstrations and benchmarks.
//!
//! A node lives in one folder, needs no service manager and nothing under `/etc` or `/var`, and any user can
//! run several at once. Standard output carries the environment only, so a shell can read it:
//! `eval "$(cargo xtask brokers up)"`.

mod certificates;
mod node;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};

pub(crate) use node::{Node, PrivateNode};

use node::Settings;

use crate::packages;
use crate::process::Process;
use crate::workspace;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Start a RabbitMQ node and print the environment that tests read
    Up {
        #[command(flatten)]
        place: Place,
        /// A further line of rabbitmq.conf; may be given several times
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
    /// The node's folder [default: brokers/rabbitmq in cargo's target folder]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Place {
    fn folder(&self) -> Result<PathBuf> {
        let folder = match &self.dir {
            Some(dir) => dir.clone(),
            None => workspace::target_dir()?.join("brokers/rabbitmq"),
        };
        std::path::absolute(&folder).with_context(|| format!("cannot use the folder {}", folder.display()))
    }
}

pub(crate) fn run(command: Command) -> Result<()> {
    match command {
        Command::Up { place, conf, parent_pid } => up(&place.folder()?, &Settings { conf, parent_pid }),
        Command::Env(place) => print_environment(&Node::open(&place.folder()?)?),
        Command::Start(place) => start(&place.folder()?),
        Command::Stop(place) => Node::open(&place.folder()?)?.stop(),
        Command::Kill(place) => Node::open(&place.folder()?)?.kill(),
        Command::Down(place) => Node::open(&place.folder()?)?.down(),
        Command::Watch { place, parent_pid } => watch(&place.folder()?, parent_pid),
    }
}

fn up(folder: &Path, settings: &Settings) -> Result<()> {
    packages::ensure(&packages::RABBITMQ)?;
    let node = match Node::open(folder) {
        Ok(node) if node.is_running() => {
            eprintln!("this node is up already");
            node
        }
        _ => Node::up(folder, settings)?,
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

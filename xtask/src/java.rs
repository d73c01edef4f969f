//! Java: the jars that ActiveMQ's broker and its own client need, and a tool on top of that client.
//!
//! The tool stands in `assets/java`. It is what shares no code with `esm`: tests, demonstrations and measurements
//! send and read with it.

mod tool;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

pub(crate) use tool::Tool;

use crate::digest::sha256;
use crate::process;
use crate::workspace;

/// Where Debian keeps jars.
const JARS: &str = "/usr/share/java";

/// All that a broker with our configuration loads; its client needs a few of them.
const NEEDED: [&str; 20] = [
    "activemq-broker",
    "activemq-client",
    "activemq-console",
    "activemq-jaas",
    "activemq-kahadb-store",
    "activemq-openwire-legacy",
    "activemq-protobuf",
    "activemq-spring",
    "activemq-stomp",
    "geronimo-j2ee-management-1.1-spec",
    "geronimo-jms_1.1_spec",
    "hawtbuf",
    "jcl-over-slf4j",
    "slf4j-api",
    "slf4j-simple",
    "spring3-aop",
    "spring3-beans",
    "spring3-context",
    "spring3-core",
    "spring3-expression",
];

/// Reads the broker's configuration.
const XBEAN: &str = "xbean-spring";

/// The jars as a class path.
pub(crate) fn jars() -> String {
    let paths = NEEDED.iter().chain([&XBEAN]).map(|name| format!("{JARS}/{name}.jar"));
    paths.collect::<Vec<_>>().join(":")
}

/// The jars and the tool, compiled when nobody has done so yet.
pub(crate) fn classpath() -> Result<String> {
    Ok(format!("{}:{}", jars(), compiled()?.display()))
}

/// The folder's name says what it was made of, so a change to the tool is never missed.
fn compiled() -> Result<PathBuf> {
    let sources = sources()?;
    let mut text = Vec::new();
    for source in &sources {
        text.extend(fs::read(source).with_context(|| format!("cannot read {}", source.display()))?);
    }
    let name = sha256(&text);
    let folder = workspace::target_dir()?.join("java").join(name);
    if !folder.exists() {
        compile(&sources, &folder)?;
    }
    Ok(folder)
}

fn sources() -> Result<Vec<PathBuf>> {
    let folder = workspace::root().join("xtask/assets/java");
    let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut sources = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<PathBuf>>>()?;
    sources.sort();
    Ok(sources)
}

/// Several may do this at once: each compiles beside and renames, and the first one wins.
fn compile(sources: &[PathBuf], folder: &Path) -> Result<()> {
    let parent = folder.parent().context("the folder stands in another")?;
    fs::create_dir_all(parent)?;
    let draft = tempfile::Builder::new().prefix("draft-").tempdir_in(parent)?;
    let mut command = Command::new("javac");
    command.args(["-J-XX:TieredStopAtLevel=1", "-J-XX:+UseSerialGC", "-Xlint:all,-options,-path", "-Werror"]);
    command.args(["-proc:none", "-encoding", "UTF-8", "-cp", &jars(), "-d"]).arg(draft.path()).args(sources);
    process::output(&mut command)?;
    match fs::rename(draft.path(), folder) {
        Err(error) if !folder.exists() => Err(error).with_context(|| format!("cannot make {}", folder.display())),
        _ => Ok(()),
    }
}

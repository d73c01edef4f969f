//! RabbitMQ of another release than the system's own package: from a newer suite of Debian, in a folder that
//! `debootstrap` fills and that a node has for its root.
//!
//! A node's mounts are in a namespace of its own and end with it, so nothing is left that the removal of the folder
//! could reach.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::rabbitmq::SERVER;
use crate::packages;
use crate::process;
use crate::workspace;

/// A release that is installed only when somebody asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Release {
    /// RabbitMQ 4.0, from Debian 13
    #[value(name = "4")]
    Four,
    /// The newest that Debian has, from its unstable suite
    Unstable,
}

impl Release {
    /// As the command line has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Four => "4",
            Self::Unstable => "unstable",
        }
    }

    /// Debian's name of the suite.
    fn suite(self) -> &'static str {
        match self {
            Self::Four => "trixie",
            Self::Unstable => "sid",
        }
    }

    fn root(self) -> Result<PathBuf> {
        Ok(workspace::target_dir()?.join("rabbitmq").join(self.suite()))
    }

    /// Installs it, if it is not there.
    pub(crate) fn ensure_installed(self) -> Result<()> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "a RabbitMQ of another release than the system's runs with a root folder of its own, which takes the user root"
        );
        let root = self.root()?;
        if root.exists() {
            return Ok(());
        }
        packages::ensure(&packages::OTHER_RELEASES)?;
        let suite = self.suite();
        eprintln!("installing rabbitmq-server of Debian's suite {suite} into {}; this takes a minute", root.display());
        let draft = root.with_extension(format!("draft-{}", std::process::id()));
        fs::create_dir_all(&draft).with_context(|| format!("cannot create {}", draft.display()))?;
        let mut command = Command::new("debootstrap");
        command.args(["--variant=minbase", "--include=rabbitmq-server", suite]).arg(&draft).arg(archive()?);
        let installed = process::output(&mut command).and_then(|_| {
            ensure!(within(&draft, SERVER).exists(), "debootstrap has put no {SERVER} into {}", draft.display());
            fs::copy("/etc/hosts", draft.join("etc/hosts"))?;
            fs::remove_dir_all(draft.join("var/cache/apt/archives"))?;
            Ok(fs::rename(&draft, &root)?)
        });
        if installed.is_err() {
            // What was installed in part would be taken for whole.
            drop(fs::remove_dir_all(&draft));
        }
        installed.with_context(|| format!("cannot install RabbitMQ from Debian's suite {suite}"))
    }

    /// A program of this release, which sees `folder` where everybody else does.
    pub(super) fn command(self, program: &str, folder: &Path) -> Result<Command> {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-ec", ENTER, "sh"]);
        command.arg(self.root()?).arg(folder).arg(program);
        Ok(command)
    }
}

/// Each step becomes the next one, so that the process which is started is the program in the end.
const ENTER: &str = r#"
root="$1" folder="$2"
shift 2
mkdir -p "$root$folder"
mount --rbind /dev "$root/dev"
mount --rbind /proc "$root/proc"
mount --bind "$folder" "$root$folder"
exec chroot "$root" "$@"
"#;

/// Where this machine gets Debian's packages from.
fn archive() -> Result<String> {
    let mut command = Command::new("apt-get");
    command.args(["indextargets", "--format", "$(REPO_URI)"]);
    command.args(["Created-By: Packages", "Origin: Debian", "Label: Debian", "Component: main"]);
    let archives = process::output(&mut command)?;
    match archives.lines().next() {
        Some(archive) => Ok(archive.to_owned()),
        None => bail!("apt-get has no archive of Debian among its sources"),
    }
}

fn within(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

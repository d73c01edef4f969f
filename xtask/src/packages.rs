//! Installs what a task needs from the system's package manager, and says so.
//!
//! What is there already is found by looking for the thing itself, so that an ordinary user who has it
//! needs no right to install, and a system without `apt-get` can be set up by hand.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::interrupt::Interrupt;
use crate::process;

/// Something that the operating system provides.
#[derive(Clone, Copy)]
pub(crate) struct Need {
    /// Debian's package that brings it.
    package: &'static str,
    /// How to see that it is there.
    sign: Sign,
}

#[derive(Clone, Copy)]
enum Sign {
    Program(&'static str),
    File(&'static str),
    /// A library that `pkg-config` knows.
    Library(&'static str),
    /// A module that Python can import.
    PythonModule(&'static str),
}

/// To build and test the workspace: the system's TLS library.
pub(crate) const BUILD: [Need; 2] = [
    Need { package: "pkg-config", sign: Sign::Program("pkg-config") },
    Need { package: "libssl-dev", sign: Sign::Library("openssl") },
];

/// To run private RabbitMQ nodes; `openssl` makes their certificates, and `faketime` has tests live with a wrong clock.
pub(crate) const RABBITMQ: [Need; 3] = [
    Need { package: "openssl", sign: Sign::Program("openssl") },
    Need { package: "rabbitmq-server", sign: Sign::File("/usr/lib/rabbitmq/bin/rabbitmq-server") },
    Need { package: "faketime", sign: Sign::Program("faketime") },
];

/// To install RabbitMQ of another release.
pub(crate) const OTHER_RELEASES: [Need; 2] = [
    Need { package: "debootstrap", sign: Sign::Program("debootstrap") },
    Need { package: "util-linux", sign: Sign::Program("unshare") },
];

/// To make virtual environments for functions in Python.
pub(crate) const PYTHON: [Need; 2] = [
    Need { package: "python3", sign: Sign::Program("python3") },
    Need { package: "python3-venv", sign: Sign::PythonModule("ensurepip") },
];

/// To compile AWS's runtime client for Node.js, with the libcurl that it brings.
pub(crate) const NODE: [Need; 8] = [
    Need { package: "nodejs", sign: Sign::Program("node") },
    Need { package: "npm", sign: Sign::Program("npm") },
    Need { package: "g++", sign: Sign::Program("g++") },
    Need { package: "make", sign: Sign::Program("make") },
    Need { package: "cmake", sign: Sign::Program("cmake") },
    Need { package: "autoconf", sign: Sign::Program("autoconf") },
    Need { package: "automake", sign: Sign::Program("automake") },
    Need { package: "libtool", sign: Sign::Program("libtoolize") },
];

/// To run private ActiveMQ nodes, and the tool in Java that sends to them and reads from them.
pub(crate) const ACTIVEMQ: [Need; 5] = [
    Need { package: "openssl", sign: Sign::Program("openssl") },
    Need { package: "activemq", sign: Sign::File("/usr/share/java/activemq-broker.jar") },
    Need { package: "default-jre-headless", sign: Sign::Program("java") },
    Need { package: "default-jdk-headless", sign: Sign::Program("javac") },
    Need { package: "faketime", sign: Sign::Program("faketime") },
];

/// To measure: a C compiler with the C client, and callgrind.
pub(crate) const BENCH: [Need; 3] = [
    Need { package: "gcc", sign: Sign::Program("gcc") },
    Need { package: "librabbitmq-dev", sign: Sign::Library("librabbitmq") },
    Need { package: "valgrind", sign: Sign::Program("valgrind") },
];

/// To count system calls.
pub(crate) const TRACE: [Need; 1] = [Need { package: "strace", sign: Sign::Program("strace") }];

/// Makes sure that all of this is there.
pub(crate) fn ensure(needs: &[Need]) -> Result<()> {
    let missing: Vec<Need> = needs.iter().copied().filter(|need| !is_there(need.sign)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
    // Two engines may need the same.
    packages.sort_unstable();
    packages.dedup();
    install(&packages)?;
    match missing.iter().find(|need| !is_there(need.sign)) {
        Some(need) => bail!("`{}` was installed and still does not work", need.package),
        None => Ok(()),
    }
}

fn is_there(sign: Sign) -> bool {
    match sign {
        Sign::Program(name) => is_on_path(name),
        Sign::File(path) => Path::new(path).exists(),
        Sign::PythonModule(name) => process::succeeds(Command::new("python3").args(["-c", &format!("import {name}")])),
        Sign::Library(name) => process::succeeds(Command::new("pkg-config").args(["--exists", name])),
    }
}

fn is_on_path(program: &str) -> bool {
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}

fn install(packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    if !is_on_path("apt-get") {
        bail!("missing: {list} (Debian's names); there is no apt-get here: please install them by hand");
    }
    let administrator = Administrator::new()
        .with_context(|| format!("missing packages; please ask an administrator for: apt-get install {list}"))?;
    eprintln!("installing with apt-get: {list}");
    let interrupt = Interrupt::hold()?;
    let _no_services = administrator.forbid_services()?;
    // A list that is absent or old makes the first attempt fail; a fresh one is worth fetching only then.
    if process::output(&mut administrator.install(packages)).is_ok() {
        return Ok(());
    }
    interrupt.check()?;
    eprintln!("updating apt-get's list of packages first");
    process::output(administrator.command("apt-get").args(["update", "-q"]))?;
    process::output(&mut administrator.install(packages))?;
    interrupt.check()
}

/// The right to change the system: root, or `sudo` without a password.
struct Administrator {
    sudo: bool,
}

impl Administrator {
    fn new() -> Result<Self> {
        if rustix::process::geteuid().is_root() {
            return Ok(Self { sudo: false });
        }
        if process::succeeds(Command::new("sudo").args(["-n", "true"])) {
            return Ok(Self { sudo: true });
        }
        bail!("this user is not root and `sudo -n` does not work")
    }

    fn command(&self, program: &str) -> Command {
        if !self.sudo {
            return Command::new(program);
        }
        let mut command = Command::new("sudo");
        command.args(["-n", program]);
        command
    }

    fn install(&self, packages: &[&str]) -> Command {
        // Through `env`, since sudo clears the environment.
        let mut command = self.command("env");
        command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "--yes", "--quiet"]);
        command.args(["--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"]);
        command.args(packages);
        command
    }

    /// While the guard lives, packages that are installed start no services: we want the programs only.
    /// A policy that the system has already is left alone.
    fn forbid_services(&self) -> Result<ServicePolicy<'_>> {
        let ours = fs::symlink_metadata(POLICY).is_err();
        if ours {
            let write = format!("printf '#!/bin/sh\\nexit 101\\n' >{POLICY} && chmod 755 {POLICY}");
            process::output(self.command("sh").args(["-c", &write]))?;
        }
        Ok(ServicePolicy { administrator: self, ours })
    }
}

/// Debian asks this program whether a service may be started; 101 means no.
const POLICY: &str = "/usr/sbin/policy-rc.d";

struct ServicePolicy<'a> {
    administrator: &'a Administrator,
    ours: bool,
}

impl Drop for ServicePolicy<'_> {
    fn drop(&mut self) {
        if self.ours && !process::succeeds(self.administrator.command("rm").arg(POLICY)) {
            eprintln!("please remove {POLICY}: it keeps services from starting");
        }
    }
}

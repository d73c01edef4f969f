//! Processes that tasks start: whether they live, how they end, what they cost.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

use crate::interrupt::Interrupt;
use crate::wait;

/// How long a process may take to end after it was asked to.
const GRACE: Duration = Duration::from_mins(1);

/// A process by its id, and by its start time, so that a recycled id is never mistaken for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pid: i32,
    started: u64,
}

impl Process {
    /// The living process with this id, if there is one.
    pub(crate) fn find(pid: u32) -> Option<Self> {
        let pid = i32::try_from(pid).ok()?;
        let stat = Stat::read(pid)?;
        (!stat.is_dead()).then_some(Self { pid, started: stat.started })
    }

    /// This process.
    pub(crate) fn current() -> Result<Self> {
        Self::find(std::process::id()).context("/proc does not show this process")
    }

    pub(crate) fn is_alive(self) -> bool {
        Stat::read(self.pid).is_some_and(|stat| stat.started == self.started && !stat.is_dead())
    }

    /// The CPU time it has used so far, its own and the system's for it.
    pub(crate) fn cpu(self) -> Result<Duration> {
        let stat = Stat::read(self.pid).context("the process is gone")?;
        let ticks = Duration::from_secs(stat.ticks);
        Ok(ticks / u32::try_from(rustix::param::clock_ticks_per_second())?)
    }

    /// A line of `/proc/PID/status` that counts memory, such as `VmHWM`, the most it ever had.
    pub(crate) fn memory_kib(self, line: &str) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let value = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
        let number = value.and_then(|value| value.trim().strip_suffix("kB")?.trim().parse().ok());
        number.with_context(|| format!("/proc shows no {line}"))
    }

    /// Asks it to end and waits until it has.
    pub(crate) fn terminate(self) -> Result<()> {
        self.signal(Signal::TERM);
        let what = format!("process {} to end", self.pid);
        wait::until(&what, GRACE, || Ok(!self.is_alive()))
    }

    /// Ends it at once and waits until it is gone.
    pub(crate) fn kill(self) -> Result<()> {
        self.signal(Signal::KILL);
        let what = format!("process {} to be gone", self.pid);
        wait::until(&what, GRACE, || Ok(!self.is_alive()))
    }

    /// Stops it where it is, without ending it.
    pub(crate) fn pause(self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on after a pause.
    pub(crate) fn resume(self) {
        self.signal(Signal::CONT);
    }

    /// A process that is already gone needs no signal: that is not an error.
    fn signal(self, signal: Signal) {
        if self.is_alive()
            && let Some(pid) = Pid::from_raw(self.pid)
        {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// Sleeps until it has ended.
    pub(crate) fn wait_for_end(self) -> Result<()> {
        use rustix::event::{PollFd, PollFlags, poll};
        use rustix::io::Errno;
        use rustix::process::{PidfdFlags, pidfd_open};

        let pid = Pid::from_raw(self.pid).context("0 is no process")?;
        let handle = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => handle,
            Err(Errno::SRCH) => return Ok(()),
            Err(error) => return Err(error).context("cannot watch the process"),
        };
        // Opened and then looked at again: now the handle is known to belong to this very process.
        while self.is_alive() {
            match poll(&mut [PollFd::new(&handle, PollFlags::IN)], None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error).context("cannot watch the process"),
            }
        }
        Ok(())
    }
}

/// What `/proc/PID/stat` tells.
struct Stat {
    state: String,
    /// User and system time.
    ticks: u64,
    started: u64,
}

impl Stat {
    fn read(pid: i32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The second field is the name in parentheses and may hold anything, so fields are counted from its end.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |place: usize| fields.get(place)?.parse::<u64>().ok();
        Some(Self { state: (*fields.first()?).to_owned(), ticks: number(11)? + number(12)?, started: number(19)? })
    }

    /// A zombie has ended; whether its parent has noticed does not matter here.
    fn is_dead(&self) -> bool {
        matches!(self.state.as_str(), "Z" | "X")
    }
}

/// Starts a process that outlives this one and that Ctrl-C on this terminal does not reach.
pub(crate) fn spawn_detached(command: &mut Command) -> Result<Process> {
    let child = command.process_group(0).stdin(Stdio::null()).spawn().with_context(|| cannot_start(command))?;
    Process::find(child.id()).with_context(|| format!("`{}` ended at once", program(command)))
}

/// A command whose process ends with this one, however this one ends. Ctrl-C on this terminal does not reach it.
pub(crate) fn attached(program: &Path) -> Result<Command> {
    let mut command = Command::new(env::current_exe()?);
    command.args(["become", "--parent-pid", &std::process::id().to_string(), "--"]).arg(program);
    command.process_group(0).stdin(Stdio::null());
    Ok(command)
}

/// The other half of [`attached`]: what it asks for must be asked by the new process itself.
#[derive(Args)]
pub(crate) struct Become {
    #[arg(long)]
    parent_pid: i32,
    #[arg(required = true, last = true)]
    command: Vec<OsString>,
}

impl Become {
    pub(crate) fn run(self) -> Result<()> {
        let (program, arguments) = self.command.split_first().context("become what?")?;
        rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
        // The parent may have ended before that.
        let parent = rustix::process::getppid().map_or(0, Pid::as_raw_pid);
        ensure!(parent == self.parent_pid, "process {} has ended", self.parent_pid);
        let mut command = Command::new(program);
        let error = command.args(arguments).exec();
        Err(error).with_context(|| cannot_start(&command))
    }
}

/// A child that is killed when it goes out of sight.
pub(crate) struct Running {
    name: String,
    child: Child,
}

impl Running {
    pub(crate) fn start(name: &str, command: &mut Command) -> Result<Self> {
        let child = command.spawn().with_context(|| cannot_start(command))?;
        Ok(Self { name: name.to_owned(), child })
    }

    pub(crate) fn process(&self) -> Result<Process> {
        Process::find(self.child.id()).with_context(|| format!("{} has ended", self.name))
    }

    pub(crate) fn ensure_alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("{} has ended ({status})", self.name),
            None => Ok(()),
        }
    }

    /// Its standard input, if that is a pipe.
    pub(crate) fn input(&mut self) -> Option<&mut ChildStdin> {
        self.child.stdin.as_mut()
    }

    /// Asks it to end, and expects that it does so with success.
    pub(crate) fn stop(self) -> Result<()> {
        rustix::process::kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        self.wait()
    }

    /// Closes its standard input, for a process that waits for that.
    pub(crate) fn release(mut self) -> Result<()> {
        drop(self.child.stdin.take());
        self.wait()
    }

    fn wait(mut self) -> Result<()> {
        let mut ended = None;
        wait::until(&format!("{} to end", self.name), GRACE, || {
            ended = self.child.try_wait()?;
            Ok(ended.is_some())
        })?;
        let status = ended.context("it has ended")?;
        ensure!(status.success(), "{} did not end well ({status})", self.name);
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails when it has ended already, which is what we want.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command in a process group of its own, and ends the whole group when somebody wants us to end.
pub(crate) fn run_in_group(command: &mut Command, interrupt: &Interrupt) -> Result<ExitStatus> {
    let mut child = command.process_group(0).spawn().with_context(|| cannot_start(command))?;
    let group = Pid::from_child(&child);
    let what = format!("`{}`", program(command));
    let mut ended = None;
    wait::until(&what, Duration::MAX, || {
        ended = child.try_wait()?;
        if ended.is_none() && interrupt.asked() {
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
            ended = Some(child.wait()?);
        }
        Ok(ended.is_some())
    })?;
    interrupt.check()?;
    ended.context("the command has not ended")
}

/// Runs a command with our standard streams and expects success.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| cannot_start(command))?;
    ensure!(status.success(), "`{}` failed ({status})", describe(command));
    Ok(())
}

/// Runs a command and hands back what it printed; what it said on standard error is part of the failure.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| cannot_start(command))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`{}` failed ({}): {}", describe(command), output.status, complaint.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether a command ends with success; what it prints is of no interest.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

/// The command line, as a person would type it.
pub(crate) fn describe(command: &Command) -> String {
    let arguments = command.get_args().map(|argument| argument.to_string_lossy().into_owned());
    [program(command)].into_iter().chain(arguments).collect::<Vec<_>>().join(" ")
}

/// Its name; the folder it lies in says little to a reader.
fn program(command: &Command) -> String {
    let program = Path::new(command.get_program());
    program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned()
}

fn cannot_start(command: &Command) -> String {
    format!("cannot start `{}`", program(command))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_blanks_and_parentheses_moves_no_field() {
        let fields = "1 8455 5703 0 -1 4194304 35937 524 6 1 459 214 0 0 20 0 20 0 120188 23";
        let stat = Stat::parse(&format!("8455 (a) b (c)) S {fields}")).unwrap();

        assert_eq!((stat.ticks, stat.started), (459 + 214, 120_188));
        assert!(!stat.is_dead());
    }

    #[test]
    fn a_child_that_nobody_waited_for_counts_as_ended() {
        let mut child = Command::new("true").spawn().unwrap();
        let process = Process::find(child.id());
        wait::until("`true` to end", GRACE, || Ok(!process.is_some_and(Process::is_alive))).unwrap();

        assert_eq!(Process::find(child.id()), None);
        child.wait().unwrap();
    }
}

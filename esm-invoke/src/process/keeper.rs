//! Ends what functions have started when we are killed and can end nothing any more.
//!
//! A process that we started asked the system to end it with us. What it started in its turn did not. So there is one
//! more process, without any other work, which knows the groups of those that live, and kills what is left of them
//! when the pipe from us breaks.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    io::{BufRead, Write as _},
    os::unix::process::CommandExt as _,
    process::{ChildStdin, Command, Stdio},
    sync::{Mutex, PoisonError},
};

use rustix::process::{Pid, Signal, kill_process_group};
use tracing::warn;

/// Asks the launcher to become the keeper.
pub(super) const KEEP: &str = "keep";

/// The way to it, once a process was started. If it is gone, functions run all the same.
static KEEPER: Mutex<Option<ChildStdin>> = Mutex::new(None);

/// From now on the group ends with us. Starts the keeper with this launcher if there is none.
pub(super) fn keep(group: Pid, launcher: &[OsString]) {
    let mut keeper = KEEPER.lock().unwrap_or_else(PoisonError::into_inner);
    if keeper.is_none() {
        *keeper = start(launcher);
    }
    tell(keeper.as_mut(), '+', group);
}

/// The group has ended. Said before its number may be another's.
pub(super) fn forget(group: Pid) {
    tell(KEEPER.lock().unwrap_or_else(PoisonError::into_inner).as_mut(), '-', group);
}

fn tell(keeper: Option<&mut ChildStdin>, what: char, group: Pid) {
    if let Some(keeper) = keeper {
        // Who does not listen has ended, and nothing can be done about that.
        let _ = writeln!(keeper, "{what}{}", group.as_raw_pid());
    }
}

fn start(launcher: &[OsString]) -> Option<ChildStdin> {
    let (program, arguments) = launcher.split_first()?;
    let mut command = Command::new(program);
    command.args(arguments).arg(KEEP).env_clear().current_dir("/").process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    match command.spawn() {
        Ok(mut keeper) => keeper.stdin.take(),
        Err(error) => {
            warn!(%error, "what functions start will not end if esm is killed: cannot start the process for that");
            None
        }
    }
}

/// The keeper's work: until the input ends.
pub(super) fn watch(input: impl BufRead) {
    // Numbers are given out in turn: none of these is another's a moment after we have ended.
    for group in left(input).into_iter().filter_map(Pid::from_raw) {
        // A group that is gone needs none.
        let _ = kill_process_group(group, Signal::KILL);
    }
}

/// What was to be kept and not forgotten.
fn left(input: impl BufRead) -> BTreeSet<i32> {
    let mut groups = BTreeSet::new();
    for line in input.lines().map_while(Result::ok) {
        // 1 is everybody's parent, and what is below it no group.
        let group = |number: &str| number.parse().ok().filter(|number| *number > 1);
        if let Some(group) = line.strip_prefix('+').and_then(group) {
            groups.insert(group);
        } else if let Some(group) = line.strip_prefix('-').and_then(group) {
            groups.remove(&group);
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_ended_is_left_alone_and_so_is_everybody_else() {
        assert_eq!(left(&b"+7\n+8\n-7\n"[..]), BTreeSet::from([8]));
        assert_eq!(left(&b"+0\n+1\n+-5\n+x\n7\n\n-9\n+6"[..]), BTreeSet::from([6]));
        assert_eq!(left(&b""[..]), BTreeSet::new());
    }
}

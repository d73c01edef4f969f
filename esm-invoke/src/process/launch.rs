//! The last steps before a process becomes the function: what it must ask of the system by itself.
//!
//! They are the work of a program that then makes room for the function, and not of our own copy
//! between `fork` and `exec`, where a process with threads may hardly do anything safely.

use std::{
    ffi::{OsStr, OsString},
    io,
    num::ParseIntError,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Command, ExitCode},
};

use rustix::process::{Pid, Resource, Rlimit, Signal, getppid, set_parent_process_death_signal, setrlimit, setsid};

use super::{
    FileAccess,
    confine::confine,
    keeper::{self, KEEP},
};

/// As shells have it, for a command that cannot be run.
const NOT_FOUND: u8 = 127;
/// Stands for a limit that is not set.
const NONE: &str = "-";

/// What a process becomes, and within which limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Launch {
    /// The process that starts it, and with which it ends.
    pub(super) parent: i32,
    /// In bytes.
    pub(super) memory: Option<u64>,
    pub(super) open_files: Option<u64>,
    pub(super) file_access: Option<FileAccess>,
    pub(super) command: Vec<OsString>,
}

/// Becomes the function that the arguments describe, which are those that a
/// [`ProcessInvoker`](super::ProcessInvoker) appends to
/// [`ProcessSettings::launcher`](super::ProcessSettings::launcher). Returns only if that is not
/// possible, and has said why on standard error.
pub fn launch(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments.into_iter().peekable();
    if arguments.next_if(|first| first == KEEP).is_some() {
        keeper::watch(io::stdin().lock());
        return ExitCode::SUCCESS;
    }
    let launch = Launch::from_arguments(arguments);
    let Some(launch) = launch else {
        eprintln!("functions are started by a running service only");
        return ExitCode::from(NOT_FOUND);
    };
    let error = match launch.prepare() {
        Ok(()) => launch.exec(),
        Err(error) => error,
    };
    let program = launch.command.first().map(|program| program.display().to_string()).unwrap_or_default();
    eprintln!("cannot run `{program}`: {error}");
    ExitCode::from(NOT_FOUND)
}

impl Launch {
    pub(super) fn to_arguments(&self) -> Vec<OsString> {
        let limit = |limit: Option<u64>| limit.map_or_else(|| NONE.into(), |limit| limit.to_string());
        let options = [self.parent.to_string(), limit(self.memory), limit(self.open_files)];
        let options = options.into_iter().map(OsString::from);
        options.chain(files(self.file_access.as_ref())).chain(self.command.iter().cloned()).collect()
    }

    fn from_arguments(mut arguments: impl Iterator<Item = OsString>) -> Option<Self> {
        let parent = arguments.next()?.to_str()?.parse().ok()?;
        let memory = limit(&arguments.next()?).ok()?;
        let open_files = limit(&arguments.next()?).ok()?;
        let file_access = match limit(&arguments.next()?).ok()? {
            None => None,
            Some(length) => {
                let read = paths(&mut arguments, length)?;
                let length = limit(&arguments.next()?).ok()??;
                Some(FileAccess { read, write: paths(&mut arguments, length)? })
            }
        };
        let command: Vec<OsString> = arguments.collect();
        (!command.is_empty()).then_some(Self { parent, memory, open_files, file_access, command })
    }

    fn prepare(&self) -> io::Result<()> {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have ended before that.
        if getppid().map(Pid::as_raw_pid) != Some(self.parent) {
            return Err(io::Error::other("the service that started it has ended"));
        }
        // A group tells whose process it is, and within a session anybody may join a group.
        setsid()?;
        rustix::thread::set_no_new_privs(true)?;
        // A crash must not leave the messages that a function works on in a file.
        set(Resource::Core, Some(0))?;
        // Not the address space, of which some runtimes reserve far more than they use.
        set(Resource::Data, self.memory)?;
        set(Resource::Nofile, self.open_files)?;
        self.file_access.as_ref().map_or(Ok(()), confine)
    }

    fn exec(&self) -> io::Error {
        let Some((program, arguments)) = self.command.split_first() else {
            return io::ErrorKind::InvalidInput.into();
        };
        Command::new(program).args(arguments).exec()
    }
}

/// Each list with its length before it.
fn files(access: Option<&FileAccess>) -> Vec<OsString> {
    let Some(FileAccess { read, write }) = access else { return vec![NONE.into()] };
    let list = |paths: &[PathBuf]| {
        let length = OsString::from(paths.len().to_string());
        [length].into_iter().chain(paths.iter().map(OsString::from)).collect::<Vec<_>>()
    };
    [list(read), list(write)].concat()
}

fn paths(arguments: &mut impl Iterator<Item = OsString>, length: u64) -> Option<Vec<PathBuf>> {
    let paths: Vec<PathBuf> = arguments.take(usize::try_from(length).ok()?).map(PathBuf::from).collect();
    (paths.len() as u64 == length).then_some(paths)
}

fn limit(text: &OsStr) -> Result<Option<u64>, ParseIntError> {
    match text.to_string_lossy().as_ref() {
        NONE => Ok(None),
        number => number.parse().map(Some),
    }
}

fn set(resource: Resource, limit: Option<u64>) -> io::Result<()> {
    match limit {
        Some(_) => Ok(setrlimit(resource, Rlimit { current: limit, maximum: limit })?),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_for_the_launcher_is_what_it_reads() {
        let access = FileAccess { read: vec!["/usr".into(), "-".into()], write: vec!["3".into()] };
        let nothing = FileAccess::default();
        for (memory, open_files, file_access) in
            [(None, None, None), (Some(1), None, Some(access)), (None, Some(2), Some(nothing))]
        {
            let command = ["-".into(), "--x".into(), OsString::new()].to_vec();
            let launch = Launch { parent: 7, memory, open_files, file_access, command };
            assert_eq!(Launch::from_arguments(launch.to_arguments().into_iter()), Some(launch));
        }
    }

    #[test]
    fn other_arguments_start_nothing() {
        for arguments in [
            &[][..],
            &["7"],
            &["7", "-", "-", "-"],
            &["x", "-", "-", "-", "true"],
            &["7", "", "-", "-", "true"],
            &["7", "-", "-", "2", "/usr"],
            &["7", "-", "-", "1", "/usr", "-", "true"],
            &["7", "-", "-", "99999999999", "/usr", "0", "true"],
        ] {
            assert_eq!(Launch::from_arguments(arguments.iter().map(OsString::from)), None, "{arguments:?}");
        }
    }
}

//! Starting processes, signalling them, noticing their end.

use std::{
    ffi::OsString,
    io,
    process::{self, Command, ExitStatus},
    sync::{Arc, LazyLock},
    thread,
};

use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid},
};
use tokio::{
    signal::unix::{Signal as Signals, SignalKind, signal},
    sync::{mpsc, oneshot},
};

use super::keeper;

/// A process that leads a group of its own, and ends with whatever else is in the group.
///
/// It is looked at, but not waited for, until it has ended and the group was ended too: so long its
/// id, which names the group, cannot become that of another, and signals reach nobody else.
pub(super) struct Child {
    process: process::Child,
    /// Made by `launch`, with a session around it.
    group: Pid,
    /// Says that some child has ended.
    ends: Signals,
    is_reaped: bool,
}

impl Child {
    /// Starts the command, whose group ends with us.
    pub(super) async fn start(command: Command, launcher: Arc<[OsString]>) -> io::Result<Self> {
        let ends = signal(SignalKind::child())?;
        let (reply, process) = oneshot::channel();
        let starter = STARTER.as_ref().map_err(|error| io::Error::new(error.kind(), error.to_string()))?;
        starter.send(Order { command, launcher, reply }).await.map_err(io::Error::other)?;
        let mut process = process.await.map_err(io::Error::other)??;
        match group(&process) {
            Some(group) => Ok(Self { process, group, ends, is_reaped: false }),
            None => {
                discard(&mut process);
                Err(io::Error::other("a process has an id that cannot be"))
            }
        }
    }

    /// The process's id, and that of its group.
    pub(super) fn group(&self) -> Pid {
        self.group
    }

    /// Sends a signal to the whole group, or to the process while it has not made one yet.
    pub(super) fn signal(&self, signal: Signal) {
        if kill_process_group(self.group, signal) == Err(Errno::SRCH) {
            // A process that has ended needs none.
            let _ = kill_process(self.group, signal);
        }
    }

    /// Waits for the process's end, and ends what is left of its group. May be dropped half-way; is
    /// not called again once it returned.
    pub(super) async fn ended(&mut self) -> io::Result<ExitStatus> {
        while waitid(WaitId::Pid(self.group), ENDED)?.is_none() {
            self.ends.recv().await;
        }
        self.reap()
    }

    fn reap(&mut self) -> io::Result<ExitStatus> {
        self.signal(Signal::KILL);
        keeper::forget(self.group);
        let status = self.process.wait()?;
        self.is_reaped = true;
        Ok(status)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.is_reaped {
            // Whoever drops it early does not want to wait; what is killed takes no time to end.
            let _ = self.reap();
        }
    }
}

/// Asks whether a process has ended, and leaves it as it is.
const ENDED: WaitIdOptions = WaitIdOptions::EXITED.union(WaitIdOptions::NOHANG).union(WaitIdOptions::NOWAIT);

struct Order {
    command: Command,
    launcher: Arc<[OsString]>,
    reply: oneshot::Sender<io::Result<process::Child>>,
}

/// A process ends with the *thread* that started it, so all are started by one that ends with us.
static STARTER: LazyLock<io::Result<mpsc::Sender<Order>>> = LazyLock::new(|| {
    let (orders, receiver) = mpsc::channel(16);
    thread::Builder::new().name("function-starter".into()).spawn(move || start_all(receiver))?;
    Ok(orders)
});

fn start_all(mut orders: mpsc::Receiver<Order>) {
    while let Some(Order { mut command, launcher, reply }) = orders.blocking_recv() {
        let started = command.spawn();
        if let Some(group) = started.as_ref().ok().and_then(group) {
            keeper::keep(group, &launcher);
        }
        if let Err(Ok(mut unwanted)) = reply.send(started) {
            discard(&mut unwanted);
        }
    }
}

fn group(process: &process::Child) -> Option<Pid> {
    i32::try_from(process.id()).ok().and_then(Pid::from_raw)
}

fn discard(process: &mut process::Child) {
    group(process).into_iter().for_each(keeper::forget);
    // It is ours and not waited for yet, so neither can fail in a way that leaves it behind.
    let _ = process.kill();
    let _ = process.wait();
}

//! Futures that wake themselves.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures_util::task::AtomicWaker;

/// How often in a row a future runs that wakes itself.
const TURNS: usize = 2;

/// Runs a future, and runs it again at once when it wakes itself meanwhile.
///
/// A connection of hyper does so for each request that has a body. The runtime would put it at the end of the line, and
/// wake another thread to help: a seventh of a small invocation's CPU.
pub(super) async fn unyielding<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let turn = Arc::new(Turn::default());
    let waker = Waker::from(turn.clone());
    poll_fn(|context| {
        turn.task.register(context.waker());
        for _ in 0..TURNS {
            turn.state.store(RUNS, SeqCst);
            let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
            if polled.is_ready() || turn.state.compare_exchange(RUNS, WAITS, SeqCst, SeqCst).is_ok() {
                return polled;
            }
        }
        // It is the others' turn.
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

const WAITS: u8 = 0;
const RUNS: u8 = 1;
const IS_WOKEN: u8 = 2;

/// Wakes the task of a future that waits, and remembers it for one that runs.
#[derive(Default)]
struct Turn {
    state: AtomicU8,
    task: AtomicWaker,
}

impl Wake for Turn {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.swap(IS_WOKEN, SeqCst) == WAITS {
            self.task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::oneshot;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    /// Wakes itself so many times before it is done.
    async fn waking_itself(mut times: usize) {
        poll_fn(|context| {
            if times == 0 {
                return Poll::Ready(());
            }
            times -= 1;
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    #[test]
    fn who_wakes_itself_goes_on_at_once_but_does_not_keep_others_from_their_turn() {
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        let mut context = Context::from_waker(&waker);

        assert!(pin!(unyielding(waking_itself(TURNS - 1))).poll(&mut context).is_ready());
        assert_eq!(count.0.load(SeqCst), 0);

        let mut long = pin!(unyielding(waking_itself(TURNS)));
        assert!(long.as_mut().poll(&mut context).is_pending());
        assert_eq!(count.0.load(SeqCst), 1);
        assert!(long.poll(&mut context).is_ready());
    }

    #[test]
    fn who_waits_is_woken() {
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        let mut context = Context::from_waker(&waker);
        let (sender, receiver) = oneshot::channel();
        let mut waiting = pin!(unyielding(receiver));

        assert!(waiting.as_mut().poll(&mut context).is_pending());
        assert_eq!(count.0.load(SeqCst), 0);
        sender.send(7).unwrap();
        assert_eq!(count.0.load(SeqCst), 1);
        assert_eq!(waiting.poll(&mut context), Poll::Ready(Ok(7)));
    }
}

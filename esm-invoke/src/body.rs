//! An event on its way out: a request body that hands over the event's pieces and lets others see
//! how far it got.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use esm_core::event::Event;
use http_body::{Body, Frame, SizeHint};
use tokio::{sync::watch, time};

use crate::frames::Frames;

/// The event as a request body of a known size.
pub(crate) struct EventBody {
    frames: Frames,
    progress: watch::Sender<usize>,
}

/// How far an [`EventBody`] got, for those who wait.
#[derive(Clone)]
pub(crate) struct Progress(watch::Receiver<usize>);

/// Which limit an invocation ran into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overdue {
    /// Nothing more of the event could be sent.
    Sending,
    /// The event was sent, and the function took too long.
    Answering,
}

impl EventBody {
    pub(crate) fn new(event: Event) -> (Self, Progress) {
        let (progress, seen) = watch::channel(event.size());
        (Self { frames: Frames::new(event), progress }, Progress(seen))
    }
}

impl Body for EventBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = Pin::new(&mut self.frames).poll_frame(context);
        if matches!(frame, Poll::Ready(Some(_))) {
            self.progress.send_replace(self.frames.left());
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        Body::size_hint(&self.frames)
    }
}

impl Progress {
    /// Whether the last piece was taken, so that the function may have run.
    pub(crate) fn is_complete(&self) -> bool {
        *self.0.borrow() == 0
    }

    /// Waits until nothing more was taken for `stall`, or until `timeout` has passed since the last
    /// piece was taken.
    pub(crate) async fn overdue(mut self, stall: Duration, timeout: Duration) -> Overdue {
        while *self.0.borrow_and_update() > 0 {
            match time::timeout(stall, self.0.changed()).await {
                Ok(Ok(())) => {}
                Err(_) => return Overdue::Sending,
                // Broken off, or answered before all was taken: what is left of the answer comes soon.
                Ok(Err(_)) => {
                    time::sleep(stall).await;
                    return Overdue::Sending;
                }
            }
        }
        time::sleep(timeout).await;
        Overdue::Answering
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::frames::FRAME;

    const STALL: Duration = Duration::from_secs(10);
    const TIMEOUT: Duration = Duration::from_secs(60);

    fn take(body: &mut EventBody) -> Option<Bytes> {
        match Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(frame) => Some(frame?.unwrap().into_data().unwrap()),
            Poll::Pending => panic!("a body never waits"),
        }
    }

    #[test]
    fn what_is_left_is_told_after_each_frame() {
        let (mut body, progress) = EventBody::new(Event::from(Bytes::from(vec![0; FRAME + 1])));
        for left in [1, 0] {
            take(&mut body);
            assert_eq!(*progress.0.borrow(), left);
            assert_eq!(body.size_hint().exact(), Some(left as u64));
            assert_eq!(body.is_end_stream(), left == 0);
        }
        assert!(take(&mut body).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn the_functions_time_begins_when_the_last_piece_is_taken() {
        let (mut body, progress) = EventBody::new(Event::from(Bytes::from(vec![0; 3 * FRAME])));
        let overdue = tokio::spawn(progress.clone().overdue(STALL, TIMEOUT));
        for _ in 0..3 {
            time::sleep(STALL / 2).await;
            take(&mut body);
        }
        let sent = time::Instant::now();

        assert_eq!(overdue.await.unwrap(), Overdue::Answering);
        assert_eq!(sent.elapsed(), TIMEOUT);
        assert!(progress.is_complete());
    }

    #[tokio::test(start_paused = true)]
    async fn sending_may_take_long_but_not_stand_still() {
        let (mut body, progress) = EventBody::new(Event::from(Bytes::from(vec![0; 3 * FRAME])));
        let overdue = tokio::spawn(progress.clone().overdue(STALL, TIMEOUT));
        for _ in 0..2 {
            time::sleep(STALL / 2).await;
            take(&mut body);
        }
        let last = time::Instant::now();

        assert_eq!(overdue.await.unwrap(), Overdue::Sending);
        assert_eq!(last.elapsed(), STALL);
        assert!(!progress.is_complete());
    }
}

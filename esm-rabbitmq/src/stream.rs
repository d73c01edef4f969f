//! The deliveries of one channel in the broker's order, whichever of its consumers they are for.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    task::{Context, Poll},
};

use futures_util::StreamExt;
use lapin::message::Delivery;
use tokio::sync::mpsc;

/// Merges a consumer and those that take its place, one after the other.
pub(crate) struct Deliveries {
    consumers: Vec<lapin::Consumer>,
    successors: mpsc::Receiver<lapin::Consumer>,
    in_order: InOrder<Delivery>,
}

impl Deliveries {
    /// Those of the first consumer of a channel, and of `successors`, each of which has to be sent before the one before
    /// it is cancelled.
    pub(crate) fn new(consumer: lapin::Consumer, successors: mpsc::Receiver<lapin::Consumer>) -> Self {
        Self { consumers: vec![consumer], successors, in_order: InOrder::new() }
    }

    /// The next one; `None` when the last consumer has ended. May be dropped half-way.
    pub(crate) async fn next(&mut self) -> Option<lapin::Result<Delivery>> {
        loop {
            if let Some(delivery) = self.in_order.next() {
                return Some(Ok(delivery));
            }
            if self.consumers.is_empty() {
                match self.successors.try_recv() {
                    Ok(successor) => self.consumers.push(successor),
                    Err(_) => return self.in_order.rest().map(Ok),
                }
            }
            match poll_fn(|context| self.poll_next(context)).await {
                Some(Ok(delivery)) => {
                    if let Some(delivery) = self.in_order.pass(delivery.delivery_tag, delivery) {
                        return Some(Ok(delivery));
                    }
                }
                Some(Err(error)) => return Some(Err(error)),
                None => {}
            }
        }
    }

    /// What one of the consumers has; `None` if it has ended.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<lapin::Result<Delivery>>> {
        while let Poll::Ready(Some(successor)) = self.successors.poll_recv(context) {
            self.consumers.push(successor);
        }
        for index in 0..self.consumers.len() {
            match self.consumers[index].poll_next_unpin(context) {
                Poll::Ready(Some(next)) => return Poll::Ready(Some(next)),
                Poll::Ready(None) => {
                    drop(self.consumers.remove(index));
                    return Poll::Ready(None);
                }
                Poll::Pending => {}
            }
        }
        Poll::Pending
    }
}

/// Puts what comes from several sides into the order of its tags, which count up from 1 without a gap. A side may be
/// lent to before it is known here: so what is missing is waited for, however many sides there seem to be.
struct InOrder<T> {
    next: u64,
    early: BTreeMap<u64, T>,
}

impl<T> InOrder<T> {
    fn new() -> Self {
        Self { next: 1, early: BTreeMap::new() }
    }

    /// Lets an item through whose turn it is, and keeps one that came too early.
    fn pass(&mut self, tag: u64, item: T) -> Option<T> {
        if tag == self.next {
            self.next += 1;
            return Some(item);
        }
        self.early.insert(tag, item);
        None
    }

    /// The next one of those that were kept, if it is its turn.
    fn next(&mut self) -> Option<T> {
        let first = self.early.first_entry().filter(|first| *first.key() == self.next)?;
        self.next += 1;
        Some(first.remove())
    }

    /// The first of those that were kept, when nothing more comes.
    fn rest(&mut self) -> Option<T> {
        self.early.pop_first().map(|(_, item)| item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_too_early_waits_for_its_turn() {
        let mut in_order = InOrder::new();
        assert_eq!(in_order.pass(1, 'a'), Some('a'));
        assert_eq!(in_order.pass(3, 'c'), None);
        assert_eq!(in_order.pass(4, 'd'), None);
        assert_eq!(in_order.next(), None);
        assert_eq!(in_order.pass(2, 'b'), Some('b'));
        let kept: String = std::iter::from_fn(|| in_order.next()).collect();
        assert_eq!(kept, "cd");
        assert_eq!(in_order.pass(5, 'e'), Some('e'));
    }

    #[test]
    fn at_the_end_nothing_waits() {
        let mut in_order = InOrder::new();
        assert_eq!(in_order.pass(9, 'b'), None);
        assert_eq!(in_order.pass(7, 'a'), None);
        assert_eq!(
            [in_order.next(), in_order.rest(), in_order.rest(), in_order.rest()],
            [None, Some('a'), Some('b'), None]
        );
    }
}

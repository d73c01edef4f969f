//! How many bytes may be in hand: of all mappings together, and of one session.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use tokio::sync::{Notify, watch};

/// What all mappings that run may have in hand together. Each gets the same share.
#[derive(Clone, Debug)]
pub struct Memory {
    limit: usize,
    mappings: watch::Sender<usize>,
}

impl Memory {
    /// So many bytes unless told otherwise.
    pub const DEFAULT: usize = 512 * 1024 * 1024;

    /// So many bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, mappings: watch::Sender::new(0) }
    }

    /// What each of so many mappings gets.
    pub fn share_of(limit: usize, mappings: usize) -> usize {
        limit / mappings.max(1)
    }

    /// The share of one more mapping, for as long as it is kept.
    pub(crate) fn share(&self) -> Share {
        self.mappings.send_modify(|mappings| *mappings += 1);
        Share(self.clone())
    }
}

/// What one mapping may have in hand.
pub(crate) struct Share(Memory);

impl Share {
    pub(crate) fn bytes(&self) -> usize {
        Memory::share_of(self.0.limit, *self.0.mappings.borrow())
    }

    /// Tells when it may have become another.
    pub(crate) fn subscribe(&self) -> watch::Receiver<usize> {
        self.0.mappings.subscribe()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.0.mappings.send_modify(|mappings| *mappings -= 1);
    }
}

/// The bytes that the deliveries of one session take, and how many they may.
#[derive(Clone, Debug)]
pub struct Hand(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    held: AtomicUsize,
    limit: AtomicUsize,
    is_over: AtomicBool,
    went_over: Notify,
}

impl Hand {
    /// An empty one for so many bytes.
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Inner {
            held: AtomicUsize::new(0),
            limit: AtomicUsize::new(limit),
            is_over: AtomicBool::new(false),
            went_over: Notify::new(),
        }))
    }

    /// Takes a delivery of so many bytes, if it has room for it; one alone always has. After a first one without,
    /// nothing more is taken, since it would overtake that one.
    pub fn take(&self, bytes: usize) -> Option<Held> {
        if self.is_over() {
            return None;
        }
        let before = self.0.held.fetch_add(bytes, Ordering::Relaxed);
        let held = Held { hand: self.clone(), bytes };
        if before > 0 && before.saturating_add(bytes) > self.0.limit.load(Ordering::Relaxed) {
            self.0.is_over.store(true, Ordering::Relaxed);
            self.0.went_over.notify_one();
            return None;
        }
        Some(held)
    }

    /// Whether there was no room for a delivery.
    pub fn is_over(&self) -> bool {
        self.0.is_over.load(Ordering::Relaxed)
    }

    /// What its deliveries take now.
    pub(crate) fn held(&self) -> usize {
        self.0.held.load(Ordering::Relaxed)
    }

    /// Waits until there was no room for a delivery. May be dropped half-way; tells it once.
    pub(crate) async fn went_over(&self) {
        self.0.went_over.notified().await;
    }

    /// Another limit; a smaller one as soon as what is held is below it.
    pub(crate) fn limit(&self, bytes: usize) {
        if bytes > self.0.limit.load(Ordering::Relaxed) || self.0.held.load(Ordering::Relaxed) <= bytes {
            self.0.limit.store(bytes, Ordering::Relaxed);
        }
    }
}

/// What one delivery takes, until it is dropped.
#[derive(Debug)]
pub struct Held {
    hand: Hand,
    bytes: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.hand.0.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_share_equally_and_leave_their_share_to_the_others() {
        let memory = Memory::new(1_200);
        let first = memory.share();
        assert_eq!(first.bytes(), 1_200);
        let others = [memory.share(), memory.share()];
        assert_eq!([first.bytes(), others[1].bytes()], [400, 400]);
        drop(others);
        assert_eq!(first.bytes(), 1_200);
    }

    #[test]
    fn nothing_overtakes_what_had_no_room() {
        let hand = Hand::new(100);
        let held = hand.take(60).expect("has room");
        assert!(hand.take(41).is_none());
        assert!(hand.is_over());
        drop(held);
        assert!(hand.take(1).is_none());
    }

    #[test]
    fn what_is_dropped_makes_room_and_one_delivery_always_has_it() {
        let hand = Hand::new(100);
        let large = hand.take(5_000).expect("it is alone");
        drop(large);
        let _first = hand.take(60).expect("has room");
        let second = hand.take(40).expect("has room");
        drop(second);
        assert!(hand.take(40).is_some());
        assert!(!hand.is_over());
    }

    #[test]
    fn a_smaller_limit_begins_when_what_is_held_is_below_it() {
        let hand = Hand::new(100);
        let held = hand.take(80).expect("has room");
        hand.limit(50);
        let _small = hand.take(20).expect("the limit is the old one");
        drop(held);
        hand.limit(50);
        assert!(hand.take(31).is_none());
    }
}

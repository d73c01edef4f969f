//! How much is borrowed, by what was seen so far.

/// The size of records lately: follows a larger one at once, and smaller ones by and by, so that a
/// single large message does not count for ever.
#[derive(Default)]
pub(super) struct RecordSize(pub(super) usize);

impl RecordSize {
    pub(super) fn observe(&mut self, average: usize) {
        self.0 = if average > self.0 { average } else { self.0 - (self.0 - average) / 4 };
    }
}

/// After a message that ended its connection unread: one message at a time is borrowed, on a
/// connection that nobody shares, until the queue is past what was lent together with it. We and
/// the message may meet again further back, and each time counts as a delivery of all that
/// was lent: so caution lasts twice as long each time.
#[derive(Default)]
pub(super) struct Caution {
    batches_to_go: u32,
    length: u32,
}

impl Caution {
    pub(super) fn begin(&mut self, lent: u32) {
        if !self.is_on() {
            self.length = lent.max(self.length.saturating_mul(2));
        }
        self.batches_to_go = self.length;
    }

    pub(super) fn is_on(&self) -> bool {
        self.batches_to_go > 0
    }

    pub(super) fn reassure(&mut self) {
        self.batches_to_go = self.batches_to_go.saturating_sub(1);
    }
}

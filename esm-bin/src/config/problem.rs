//! What is wrong with a configuration, collected while it is read.

use std::{cell::RefCell, fmt};

/// One thing to change, in words for whoever wrote it. Never holds what stood at the key when that
/// could be a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where: the full key, or a place in the file.
    pub key: String,
    /// What is wrong, and what would be right.
    pub words: String,
}

impl Problem {
    pub(super) fn new(key: impl Into<String>, words: impl Into<String>) -> Self {
        Self { key: key.into(), words: words.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.key, self.words)
    }
}

/// Stands where a value should: its problem was reported, and reading goes on with the next key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reported(());

/// Every problem found so far, in the order of reading.
#[derive(Default)]
pub(crate) struct Problems(RefCell<Vec<Problem>>);

impl Problems {
    pub(super) fn report(&self, key: &str, words: impl fmt::Display) -> Reported {
        self.0.borrow_mut().push(Problem::new(key, words.to_string()));
        Reported(())
    }

    pub(super) fn into_vec(self) -> Vec<Problem> {
        self.0.into_inner()
    }
}

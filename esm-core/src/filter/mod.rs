//! `FilterCriteria`: which records a function gets, by patterns as Amazon `EventBridge` has them.
//!
//! A pattern's key `data` speaks about the decoded body, every other key about the record's own
//! members, such as `basicProperties`. Patterns are compiled once (`pattern`, `compile`, `program`,
//! `operator`); a record costs one `pass` over the texts that a pattern names, with no tree and,
//! as a rule, no allocation (`json`).
//!
//! - A list holds if a value meets one of its operators; an array's elements are such values.
//! - All members of an object have to hold, in one and the same element where there is an array.
//! - `{"exists": false}` holds where there is no value: no member, an object, or an empty array.
//! - A body that is a JSON object or array is judged by patterns with `"data": {…}`, any other text by
//!   those with `"data": […]`. To a pattern of the other kind, and for a body that is not UTF-8, the
//!   body has no say, and the rest of the pattern decides; with nothing else in it, it accepts.
//! - Numbers are compared as doubles.

mod compile;
mod explain;
mod json;
mod operator;
mod pass;
mod pattern;
mod program;
mod sieve;

use std::fmt;

pub use self::explain::{BodyFormat, Clause, Explanation, Judgement, Verdict};
pub(crate) use self::sieve::Sieve;
use self::{
    pass::{Pass, State, all_hold},
    program::Program,
};

/// The most filters of a mapping.
pub const MOST_FILTERS: usize = 10;
/// The most characters of a pattern.
pub const LONGEST_PATTERN: usize = 4_096;

/// So many clauses cost no allocation.
const FEW_CLAUSES: usize = 64;

/// Compiled filters. A record passes if one of them accepts it, or if there is none.
#[derive(Clone)]
pub struct FilterCriteria {
    patterns: Vec<String>,
    program: Program,
}

impl FilterCriteria {
    /// Compiles patterns, or says everything that is wrong with them.
    pub fn parse(patterns: &[String]) -> Result<Self, FilterErrors> {
        let program = compile::compile(patterns)?;
        Ok(Self { patterns: patterns.to_vec(), program })
    }

    /// The patterns as they were given.
    pub fn patterns(&self) -> &[String] {
        &self.patterns
    }

    /// Whether a pattern speaks about the body; if not, [`Self::accepts`] does not look at it.
    pub fn needs_body(&self) -> bool {
        !self.program.plain.is_empty() || !self.program.node(self.program.body).groups.is_empty()
    }

    /// Whether a record passes: its JSON, whose `data` is not looked at, and its decoded body.
    pub fn accepts(&self, record: &[u8], body: &[u8]) -> bool {
        if self.program.filters.is_empty() {
            return true;
        }
        let mut few = [0; FEW_CLAUSES];
        let mut many = Vec::new();
        let states = if let Some(few) = few.get_mut(..self.program.clauses) {
            few
        } else {
            many.resize(self.program.clauses, 0);
            &mut many
        };
        if self.needs_body() {
            Pass::new(&self.program, states).body(body);
        }
        Pass::new(&self.program, states).metadata(record);
        self.program.filters.iter().any(|filter| all_hold(&filter.terms, states) != 0)
    }

    /// Why a record passes or does not.
    pub fn explain(&self, record: &[u8], body: &[u8]) -> Explanation {
        let mut states: Vec<State> = vec![0; self.program.clauses];
        let mut pass = Pass::new(&self.program, &mut states);
        let body = pass.body(body);
        pass.metadata(record);
        let judgement = |filter: &program::Filter| Judgement {
            accepts: all_hold(&filter.terms, &states) != 0,
            clauses: filter.leaves.iter().map(|clause| Clause::new(clause, body, &states)).collect(),
        };
        Explanation { body, filters: self.program.filters.iter().map(judgement).collect() }
    }
}

impl fmt::Debug for FilterCriteria {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("FilterCriteria").field(&self.patterns).finish()
    }
}

/// The same patterns are the same filters.
impl PartialEq for FilterCriteria {
    fn eq(&self, other: &Self) -> bool {
        self.patterns == other.patterns
    }
}

impl Eq for FilterCriteria {}

/// Everything that is wrong with the patterns of a mapping.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid filter pattern definition: {}", .0.iter().map(FilterProblem::to_string).collect::<Vec<_>>().join("; "))]
pub struct FilterErrors(pub Vec<FilterProblem>);

/// One thing to change in a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterProblem {
    /// Which filter, counted from 0.
    pub filter: usize,
    /// Where in its pattern, such as `data.kind[1].numeric`; empty: the whole of it.
    pub path: String,
    /// What is wrong, in words that follow the place.
    pub reason: String,
}

impl FilterProblem {
    /// The place in the pattern and what is wrong there.
    pub fn words(&self) -> String {
        if self.path.is_empty() { self.reason.clone() } else { format!("{} {}", self.path, self.reason) }
    }
}

impl fmt::Display for FilterProblem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "filter {}: {}", self.filter, self.words())
    }
}

//! Which clause of which filter accepted or refused a message, for people.

use std::fmt;

use super::{
    pass::{ONCE_MET, SEEN, State},
    program::{NamedClause, Subject},
};

/// Why a message passes or does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// What the body is.
    pub body: BodyFormat,
    /// Every filter, in order. One that accepts is enough.
    pub filters: Vec<Judgement>,
}

/// What a body is, to filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFormat {
    /// A JSON object or array.
    Json,
    /// Any other text.
    Plain,
    /// No UTF-8.
    Binary,
}

/// What one filter says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Whether it accepts the message.
    pub accepts: bool,
    /// Its lists of operators, in the pattern's order.
    pub clauses: Vec<Clause>,
}

/// One list of operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clause {
    /// Where it stands in the pattern, such as `data.kind`.
    pub path: String,
    /// The list itself.
    pub asks: String,
    /// What came of it.
    pub verdict: Verdict,
}

/// What came of one list of operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A value meets it.
    Met,
    /// There is no value, and it asks for none.
    MetByAbsence,
    /// There are values, and none meets it.
    NotMet,
    /// There is no value.
    Missing,
    /// It speaks about bodies of another format, so it has no say.
    NotJudged,
}

impl Explanation {
    /// Whether the message passes.
    pub fn accepts(&self) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|filter| filter.accepts)
    }
}

impl Clause {
    pub(super) fn new(clause: &NamedClause, body: BodyFormat, states: &[State]) -> Self {
        let state = states[clause.clause];
        let is_judged = match clause.of {
            Subject::Metadata => true,
            Subject::Json => body == BodyFormat::Json,
            Subject::Plain => body == BodyFormat::Plain,
        };
        let verdict = match (state & ONCE_MET != 0, state & SEEN != 0) {
            _ if !is_judged => Verdict::NotJudged,
            (true, _) => Verdict::Met,
            (false, true) => Verdict::NotMet,
            (false, false) if clause.absence => Verdict::MetByAbsence,
            (false, false) => Verdict::Missing,
        };
        Self { path: clause.path.clone(), asks: clause.asks.clone(), verdict }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{}: the body is {}", if self.accepts() { "accepted" } else { "refused" }, self.body)?;
        for (index, filter) in self.filters.iter().enumerate() {
            writeln!(formatter, "filter {index} {}", if filter.accepts { "accepts" } else { "refuses" })?;
            for Clause { path, asks, verdict } in &filter.clauses {
                writeln!(formatter, "  {path} {asks}: {verdict}")?;
            }
            let all_met = filter.clauses.iter().all(|clause| clause.verdict.may_hold());
            if !filter.accepts && all_met {
                writeln!(formatter, "  each is met somewhere, but not all in the same element of an array")?;
            }
        }
        Ok(())
    }
}

impl Verdict {
    fn may_hold(self) -> bool {
        match self {
            Self::Met | Self::MetByAbsence | Self::NotJudged => true,
            Self::NotMet | Self::Missing => false,
        }
    }
}

impl fmt::Display for BodyFormat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Json => "JSON",
            Self::Plain => "a plain text",
            Self::Binary => "binary",
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Met => "met",
            Self::MetByAbsence => "met, there is no value",
            Self::NotMet => "not met by any value there",
            Self::Missing => "not met, there is no value",
            Self::NotJudged => "has no say, it speaks about bodies of another format",
        })
    }
}

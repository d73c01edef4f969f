//! One pass over a text: every clause is judged while its values go by.
//!
//! A clause can hold in two ways: a value was found that meets it, or it asks for no value and there
//! is none. The two are kept apart for arrays. What one object of a pattern asks for has to be found
//! in one and the same element; but if nothing is found anywhere, what must not be there must not be
//! in any element.

use std::str;

use super::{
    explain::BodyFormat,
    json::{Malformed, Scanner},
    operator::Scalar,
    program::{ClauseId, Node, Program, Term},
};

/// What is known of a clause, as bits.
pub(super) type State = u8;
/// A value meets it.
pub(super) const MET: State = 1;
/// It asks for no value, and there is none.
pub(super) const ABSENT: State = 2;
pub(super) const HOLDS: State = MET | ABSENT;
/// The same two, gathered over the elements of an array.
const MET_BY_ELEMENT: State = MET << GATHERED;
const GATHERED: u32 = 2;
const IN_ELEMENTS: State = HOLDS << GATHERED;
/// For people: there was a value at all, and one met the clause.
pub(super) const SEEN: State = 16;
pub(super) const ONCE_MET: State = 32;

/// Judges every clause of a program.
pub(super) struct Pass<'p> {
    program: &'p Program,
    states: &'p mut [State],
}

impl<'p> Pass<'p> {
    /// `states` has one for every clause.
    pub(super) fn new(program: &'p Program, states: &'p mut [State]) -> Self {
        Self { program, states }
    }

    /// Judges what is asked of the members of a record beside `data`.
    pub(super) fn metadata(&mut self, record: &[u8]) {
        let root = self.program.node(self.program.metadata);
        if !root.has_children() {
            return;
        }
        let is_read = str::from_utf8(record).is_ok_and(|text| self.whole(&mut Scanner::new(text), root).is_ok());
        if !is_read {
            self.lacks_members(root);
        }
    }

    /// Judges what is asked of the body. What speaks about another format than the body's holds.
    pub(super) fn body(&mut self, body: &[u8]) -> BodyFormat {
        let format = self.judge_body(body);
        if format != BodyFormat::Json {
            for group in &self.program.node(self.program.body).groups {
                self.states[group.clause] = MET;
            }
        }
        if format != BodyFormat::Plain {
            for leaf in &self.program.plain {
                self.states[leaf.clause] = MET;
            }
        }
        format
    }

    /// Finds out what the body is, as far as that makes a difference.
    fn judge_body(&mut self, body: &[u8]) -> BodyFormat {
        let Ok(text) = str::from_utf8(body) else { return BodyFormat::Binary };
        let mut scanner = Scanner::new(text);
        let root = self.program.node(self.program.body);
        if matches!(scanner.peek(), Some(b'{' | b'[')) && self.whole(&mut scanner, root).is_ok() {
            return BodyFormat::Json;
        }
        for leaf in &self.program.plain {
            self.states[leaf.clause] = judged(leaf.is_met_by(Scalar::Text(text)));
        }
        BodyFormat::Plain
    }

    /// A whole text. An array at the top has no members that a pattern could name.
    fn whole(&mut self, scanner: &mut Scanner<'_>, root: &Node) -> Result<(), Malformed> {
        if scanner.peek() == Some(b'{') {
            self.object(scanner, root)?;
        } else {
            scanner.skip()?;
            self.lacks_members(root);
            self.is_absent(root);
        }
        scanner.end()
    }

    fn value(&mut self, scanner: &mut Scanner<'_>, node: &Node) -> Result<(), Malformed> {
        match scanner.peek() {
            Some(b'[') => self.array(scanner, node),
            _ => self.single(scanner, node),
        }
    }

    /// The elements of an array count as values of its own path, however deep arrays are nested.
    fn array(&mut self, scanner: &mut Scanner<'_>, node: &Node) -> Result<(), Malformed> {
        for (clause, absence) in node.clauses() {
            self.set(clause, IN_ELEMENTS, if absence { ABSENT << GATHERED } else { 0 });
        }
        let mut elements = scanner.open(b'[')?;
        let mut depth = 1_usize;
        while depth > 0 {
            if !scanner.element(&mut elements)? {
                depth -= 1;
            } else if scanner.peek() == Some(b'[') {
                depth += 1;
                elements = scanner.open(b'[')?;
            } else {
                self.single(scanner, node)?;
                for (clause, _) in node.clauses() {
                    self.gather(clause);
                }
            }
        }
        for (clause, _) in node.clauses() {
            self.set(clause, HOLDS, (self.states[clause] & IN_ELEMENTS) >> GATHERED);
        }
        Ok(())
    }

    fn gather(&mut self, clause: ClauseId) {
        let state = &mut self.states[clause];
        if *state & MET != 0 {
            *state |= MET_BY_ELEMENT;
        }
        if *state & ABSENT == 0 {
            *state &= !(ABSENT << GATHERED);
        }
    }

    /// A value that is no array.
    fn single(&mut self, scanner: &mut Scanner<'_>, node: &Node) -> Result<(), Malformed> {
        let scalar = match scanner.peek() {
            Some(b'{') => {
                for leaf in &node.leaves {
                    self.set_absent(leaf.clause, leaf.absence);
                }
                return if node.has_children() { self.object(scanner, node) } else { scanner.skip() };
            }
            // What does not ask for a text or a number need not know it.
            _ if node.leaves.is_empty() => {
                scanner.skip()?;
                self.is_absent(node);
                return Ok(());
            }
            Some(b'"') => {
                let text = scanner.string()?;
                self.scalar(node, Scalar::Text(&scanner.unescaped(text)));
                return Ok(());
            }
            Some(b't') => scanner.word("true").map(|()| Scalar::Boolean(true))?,
            Some(b'f') => scanner.word("false").map(|()| Scalar::Boolean(false))?,
            Some(b'n') => scanner.word("null").map(|()| Scalar::Null)?,
            _ => Scalar::Number(scanner.number()?.parse().unwrap_or(f64::INFINITY)),
        };
        self.scalar(node, scalar);
        Ok(())
    }

    fn scalar(&mut self, node: &Node, value: Scalar<'_>) {
        for leaf in &node.leaves {
            let is_met = leaf.is_met_by(value);
            let state = self.states[leaf.clause] & !HOLDS;
            self.states[leaf.clause] = state | judged(is_met);
        }
        for group in &node.groups {
            self.set_absent(group.clause, group.absence);
        }
    }

    fn object(&mut self, scanner: &mut Scanner<'_>, node: &Node) -> Result<(), Malformed> {
        self.lacks_members(node);
        let mut members = scanner.open(b'{')?;
        while let Some(name) = scanner.key(&mut members)? {
            match node.child(&scanner.unescaped_bytes(name)) {
                Some(child) => self.value(scanner, self.program.node(child))?,
                None => scanner.skip()?,
            }
        }
        for group in &node.groups {
            let holds = all_hold(&group.terms, self.states);
            self.set(group.clause, HOLDS, holds);
        }
        Ok(())
    }

    /// Until a member comes, it is missing.
    fn lacks_members(&mut self, node: &Node) {
        for &(clause, absence) in &node.asked_of_children {
            self.set_absent(clause, absence);
        }
    }

    fn is_absent(&mut self, node: &Node) {
        for (clause, absence) in node.clauses() {
            self.set_absent(clause, absence);
        }
    }

    fn set_absent(&mut self, clause: ClauseId, absence: bool) {
        self.set(clause, HOLDS, if absence { ABSENT } else { 0 });
    }

    fn set(&mut self, clause: ClauseId, bits: State, to: State) {
        let state = &mut self.states[clause];
        *state = *state & !bits | to;
    }
}

fn judged(is_met: bool) -> State {
    if is_met { MET | SEEN | ONCE_MET } else { SEEN }
}

/// How all these terms hold together, if they do: by a value as soon as one does, else by absence.
pub(super) fn all_hold(terms: &[Term], states: &[State]) -> State {
    let (mut any, mut all) = (0, HOLDS);
    for term in terms {
        let holds = match term {
            Term::Clause(clause) => states[*clause] & HOLDS,
            Term::Or(alternatives) => alternatives.iter().fold(0, |any, terms| any | all_hold(terms, states)),
        };
        if holds == 0 {
            return 0;
        }
        any |= holds;
        all &= holds;
    }
    any & MET | all & ABSENT
}

//! Patterns become a program, or problems: all of them, each with its place.

use super::{
    FilterErrors, FilterProblem, LONGEST_PATTERN, MOST_FILTERS,
    operator::{Cidr, Operator, Wildcard, numeric},
    pattern::Value,
    program::{Filter, Group, Leaf, NamedClause, NodeId, Program, Subject, Term},
};

const OPERATORS: &str =
    "anything-but, cidr, equals-ignore-case, exists, numeric, prefix, suffix and wildcard are the operators";

pub(super) fn compile(patterns: &[String]) -> Result<Program, FilterErrors> {
    let mut compiler = Compiler { program: Program::new(), filter: 0, leaves: Vec::new(), problems: Vec::new() };
    for (filter, pattern) in patterns.iter().enumerate() {
        compiler.filter = filter;
        compiler.filter(pattern);
    }
    if compiler.problems.is_empty() { Ok(compiler.program) } else { Err(FilterErrors(compiler.problems)) }
}

struct Compiler {
    program: Program,
    /// The filter that is read, and its lists of operators so far.
    filter: usize,
    leaves: Vec<NamedClause>,
    problems: Vec<FilterProblem>,
}

/// Something was wrong and is among the problems.
struct Reported;

/// Whose members are read.
#[derive(Clone, Copy)]
enum Of {
    /// The record, whose `data` is the body.
    Record,
    Node(NodeId, Subject),
}

/// The terms of an object, and whether they also hold where there is none.
struct Terms {
    terms: Vec<Term>,
    absence: bool,
}

impl Compiler {
    fn filter(&mut self, pattern: &str) {
        if self.filter == MOST_FILTERS {
            self.report("", format!("is one too many: a mapping can have {MOST_FILTERS} filters"));
        }
        let length = pattern.chars().count();
        if length > LONGEST_PATTERN {
            self.report("", format!("has {length} characters, and may have {LONGEST_PATTERN}"));
            return;
        }
        match Value::read(pattern) {
            Ok(Value::Object(members)) => {
                if let Ok(Terms { terms, .. }) = self.members("", &members, Of::Record) {
                    let leaves = std::mem::take(&mut self.leaves);
                    self.program.filters.push(Filter { terms, leaves });
                }
            }
            Ok(other) => drop(self.report("", format!("must be an object, is {}", other.kind()))),
            Err(words) => drop(self.report("", words)),
        }
    }

    fn report(&mut self, path: &str, reason: impl Into<String>) -> Reported {
        self.problems.push(FilterProblem { filter: self.filter, path: path.into(), reason: reason.into() });
        Reported
    }

    fn members(&mut self, path: &str, members: &[(String, Value)], of: Of) -> Result<Terms, Reported> {
        if members.is_empty() {
            return Err(self.report(path, "is an empty object, which asks for nothing"));
        }
        let mut all = Ok(Terms { terms: Vec::with_capacity(members.len()), absence: true });
        for (name, value) in members {
            let path = join(path, name);
            let term =
                if name == "$or" { self.alternatives(&path, value, of) } else { self.member(&path, name, value, of) };
            all = match (all, term) {
                (Ok(mut all), Ok((term, absence))) => {
                    all.terms.push(term);
                    all.absence &= absence;
                    Ok(all)
                }
                _ => Err(Reported),
            };
        }
        all
    }

    /// `$or`: a list of objects.
    fn alternatives(&mut self, path: &str, value: &Value, of: Of) -> Result<(Term, bool), Reported> {
        let Value::List(list) = value else {
            return Err(self.report(path, format!("must be a list of objects, is {}", value.kind())));
        };
        if list.len() < 2 {
            return Err(self.report(path, format!("must have at least 2 alternatives, has {}", list.len())));
        }
        let mut alternatives = Ok((Vec::with_capacity(list.len()), false));
        for (index, alternative) in list.iter().enumerate() {
            let path = format!("{path}[{index}]");
            let terms = match alternative {
                Value::Object(members) => self.members(&path, members, of),
                other => Err(self.report(&path, format!("must be an object, is {}", other.kind()))),
            };
            alternatives = match (alternatives, terms) {
                (Ok((mut alternatives, absence)), Ok(terms)) => {
                    alternatives.push(terms.terms);
                    Ok((alternatives, absence || terms.absence))
                }
                _ => Err(Reported),
            };
        }
        alternatives.map(|(alternatives, absence)| (Term::Or(alternatives), absence))
    }

    fn member(&mut self, path: &str, name: &str, value: &Value, of: Of) -> Result<(Term, bool), Reported> {
        let (parent, subject) = match (of, name) {
            (Of::Record, "data") => (None, Subject::Json),
            (Of::Record, _) => (Some(self.program.metadata), Subject::Metadata),
            (Of::Node(parent, subject), _) => (Some(parent), subject),
        };
        let node = parent.map(|parent| self.program.child(parent, name));
        let clause = self.program.new_clause();
        let absence = match value {
            Value::List(list) => {
                let leaf = self.leaf(path, list, clause)?;
                let absence = leaf.absence;
                let of = if parent.is_none() { Subject::Plain } else { subject };
                self.leaves.push(NamedClause { clause, path: path.into(), asks: value.to_string(), of, absence });
                match parent.zip(node) {
                    Some((parent, node)) => self.program.add_leaf(parent, node, leaf),
                    None => self.program.plain.push(leaf),
                }
                absence
            }
            Value::Object(members) => {
                let node = node.unwrap_or(self.program.body);
                let Terms { terms, absence } = self.members(path, members, Of::Node(node, subject))?;
                self.program.add_group(parent, node, Group { clause, terms, absence });
                absence
            }
            other => {
                let words = format!("must be a list such as [{other}], or an object, is {}", other.kind());
                return Err(self.report(path, words));
            }
        };
        Ok((Term::Clause(clause), absence))
    }

    fn leaf(&mut self, path: &str, list: &[Value], clause: usize) -> Result<Leaf, Reported> {
        if list.is_empty() {
            return Err(self.report(path, "is an empty list, which no value meets"));
        }
        let mut leaf = Ok(Leaf { clause, operators: Vec::with_capacity(list.len()), absence: false });
        for (index, value) in list.iter().enumerate() {
            let operator = self.operator(&format!("{path}[{index}]"), value);
            leaf = match (leaf, operator) {
                (Ok(mut leaf), Ok(operator)) => {
                    leaf.absence |= operator.is_none();
                    leaf.operators.extend(operator);
                    Ok(leaf)
                }
                _ => Err(Reported),
            };
        }
        leaf
    }

    /// One element of a list; none: it asks that there be no value.
    fn operator(&mut self, path: &str, value: &Value) -> Result<Option<Operator>, Reported> {
        let operator = match value {
            Value::Null => Operator::Null,
            Value::Boolean(value) => Operator::Boolean(*value),
            Value::Number(number) => Operator::Number(*number),
            Value::Text(text) => Operator::Text(text.as_str().into()),
            Value::List(_) => return Err(self.report(path, "must be a value or an operator, is a list")),
            Value::Object(members) => {
                let [(name, argument)] = members.as_slice() else {
                    let words = format!("must be an object with one operator, has {} members", members.len());
                    return Err(self.report(path, words));
                };
                let path = join(path, name);
                match (name.as_str(), argument) {
                    ("exists", Value::Boolean(true)) => Operator::Exists,
                    ("exists", Value::Boolean(false)) => return Ok(None),
                    ("exists", other) => {
                        return Err(self.report(&path, format!("must be true or false, is {}", other.kind())));
                    }
                    ("numeric", Value::List(list)) => self.numeric(&path, list)?,
                    ("numeric", other) => {
                        return Err(self.report(&path, format!("must be a list, is {}", other.kind())));
                    }
                    ("cidr", argument) => {
                        let text = self.text(&path, argument)?;
                        Operator::Cidr(Cidr::read(text).map_err(|words| self.report(&path, words))?)
                    }
                    ("anything-but", argument) => self.anything_but(&path, argument)?,
                    (name, argument) => self.text_operator(&path, name, argument)?,
                }
            }
        };
        Ok(Some(operator))
    }

    /// The operators that may also stand inside `anything-but`.
    fn text_operator(&mut self, path: &str, name: &str, argument: &Value) -> Result<Operator, Reported> {
        let operator = match (name, argument) {
            ("prefix" | "suffix", Value::Object(members)) => {
                let [(inner, argument)] = members.as_slice() else {
                    return Err(self.report(path, "must be a text, or an object with equals-ignore-case alone"));
                };
                let path = join(path, inner);
                if inner != "equals-ignore-case" {
                    return Err(self.report(&path, "is no operator here; only equals-ignore-case is"));
                }
                let text = self.text(&path, argument)?.into();
                if name == "prefix" { Operator::PrefixIgnoreCase(text) } else { Operator::SuffixIgnoreCase(text) }
            }
            ("prefix", argument) => Operator::Prefix(self.text(path, argument)?.into()),
            ("suffix", argument) => Operator::Suffix(self.text(path, argument)?.into()),
            ("equals-ignore-case", argument) => Operator::EqualsIgnoreCase(self.text(path, argument)?.into()),
            ("wildcard", argument) => {
                let text = self.text(path, argument)?;
                Operator::Wildcard(Wildcard::read(text).map_err(|words| self.report(path, words))?)
            }
            _ => return Err(self.report(path, format!("is no operator here; {OPERATORS}"))),
        };
        Ok(operator)
    }

    fn anything_but(&mut self, path: &str, argument: &Value) -> Result<Operator, Reported> {
        let others = match argument {
            Value::Object(members) => {
                let [(name, argument)] = members.as_slice() else {
                    let words = format!("must be an object with one operator, has {} members", members.len());
                    return Err(self.report(path, words));
                };
                let path = join(path, name);
                let one_by_one = each(&path, argument);
                let operators: Vec<_> =
                    one_by_one.into_iter().map(|(path, argument)| self.text_operator(&path, name, argument)).collect();
                operators.into_iter().collect::<Result<Vec<_>, _>>()?
            }
            argument => {
                let one_by_one = each(path, argument);
                let operators: Vec<_> = one_by_one
                    .into_iter()
                    .map(|(path, argument)| match argument {
                        Value::Number(number) => Ok(Operator::Number(*number)),
                        Value::Text(text) => Ok(Operator::Text(text.as_str().into())),
                        other => Err(self.report(&path, format!("must be a text or a number, is {}", other.kind()))),
                    })
                    .collect();
                operators.into_iter().collect::<Result<Vec<_>, _>>()?
            }
        };
        if others.is_empty() {
            return Err(self.report(path, "is an empty list, which excludes nothing"));
        }
        Ok(Operator::AnythingBut(others))
    }

    fn numeric(&mut self, path: &str, list: &[Value]) -> Result<Operator, Reported> {
        numeric(list).map_err(|(place, words)| match place {
            Some(index) => self.report(&format!("{path}[{index}]"), words),
            None => self.report(path, words),
        })
    }

    fn text<'v>(&mut self, path: &str, value: &'v Value) -> Result<&'v str, Reported> {
        match value {
            Value::Text(text) => Ok(text),
            other => Err(self.report(path, format!("must be a text, is {}", other.kind()))),
        }
    }
}

/// The elements of a list with their places, or the one value that is no list.
fn each<'v>(path: &str, value: &'v Value) -> Vec<(String, &'v Value)> {
    match value {
        Value::List(list) => {
            list.iter().enumerate().map(|(index, value)| (format!("{path}[{index}]"), value)).collect()
        }
        other => vec![(path.into(), other)],
    }
}

/// A path with quotes around a name that could be misread.
fn join(path: &str, name: &str) -> String {
    let is_bare = !name.is_empty() && name.chars().all(|letter| letter.is_alphanumeric() || "-_$".contains(letter));
    let dot = if path.is_empty() { "" } else { "." };
    if is_bare { format!("{path}{dot}{name}") } else { format!("{path}{dot}{name:?}") }
}

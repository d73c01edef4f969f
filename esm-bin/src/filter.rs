//! What a mapping's filters would say about a message, without a broker.

use std::{borrow::Cow, fs};

use esm_core::filter::{Explanation, FilterCriteria, FilterProblem};

/// Begins an argument that names a file, as for the AWS command line.
const FILE: &str = "file://";

/// Judges a message's body, with the record that it would have around it. Arguments are texts or name files.
pub fn test(patterns: &[String], message: &str, record: &str) -> Result<Explanation, Vec<String>> {
    let mut problems = Vec::new();
    let patterns: Vec<_> = patterns.iter().map(|pattern| read("--pattern", pattern, &mut problems)).collect();
    let message = read("--message", message, &mut problems);
    let record = read("--record", record, &mut problems);
    let mut texts = Vec::with_capacity(patterns.len());
    for pattern in patterns {
        match String::from_utf8(pattern.into_owned()) {
            Ok(text) => texts.push(text),
            Err(error) => problems.push(format!("--pattern: is not UTF-8: {error}")),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    match FilterCriteria::parse(&texts) {
        Ok(filter) => Ok(filter.explain(&record, &message)),
        Err(errors) => Err(errors.0.iter().map(FilterProblem::to_string).collect()),
    }
}

/// The bytes of an argument; none, with a problem, if its file cannot be read.
fn read<'a>(name: &str, argument: &'a str, problems: &mut Vec<String>) -> Cow<'a, [u8]> {
    let Some(path) = argument.strip_prefix(FILE) else { return Cow::Borrowed(argument.as_bytes()) };
    match fs::read(path) {
        Ok(content) => Cow::Owned(content),
        Err(error) => {
            problems.push(format!("{name}: cannot read `{path}`: {error}"));
            Cow::default()
        }
    }
}

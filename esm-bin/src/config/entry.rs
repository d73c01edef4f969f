//! One value with its key: becomes a typed value, or a problem with that key.
//!
//! Conversions are strict where `config`'s own are generous (`1.5` is no whole number, `true` is
//! not 1), except for what the environment sets, which is always text.

use std::{
    cell::RefCell,
    fmt::Display,
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    str::FromStr,
};

use config::{Value, ValueKind};

use super::{
    Environment,
    problem::{Problems, Reported},
    table::Table,
};

/// What reading needs beside the values themselves.
pub(crate) struct Context<'a> {
    /// Where relative paths start.
    pub(super) folder: &'a Path,
    pub(super) environment: &'a Environment,
    pub(super) problems: Problems,
    /// What was read beside the tree itself: the contents of files, in hashes.
    pub(super) readings: RefCell<Vec<u64>>,
    /// What keeps a mapping from connecting and not the service from running.
    pub(super) unreadable: Problems,
}

impl<'a> Context<'a> {
    pub(super) fn new(folder: &'a Path, environment: &'a Environment) -> Self {
        let (problems, unreadable) = (Problems::default(), Problems::default());
        Self { folder, environment, problems, readings: RefCell::default(), unreadable }
    }

    /// Takes note of what was read beside the tree.
    pub(super) fn note(&self, content: &[u8]) {
        let mut hasher = DefaultHasher::new();
        content.hash(&mut hasher);
        self.readings.borrow_mut().push(hasher.finish());
    }
}

#[derive(Clone)]
pub(crate) struct Entry<'a> {
    key: String,
    value: Value,
    pub(super) context: &'a Context<'a>,
}

impl<'a> Entry<'a> {
    pub(super) fn new(key: String, value: Value, context: &'a Context<'a>) -> Self {
        Self { key, value, context }
    }

    /// Reports a problem with this value. The words never repeat a text that could be a secret.
    pub(crate) fn report(&self, words: impl Display) -> Reported {
        let problems = &self.context.problems;
        match self.value.origin() {
            Some(variable) => problems.report(&self.key, format_args!("{words} (set by {variable})")),
            None => problems.report(&self.key, words),
        }
    }

    /// Reports that what the value leads to cannot be read now.
    pub(super) fn report_unreadable(&self, words: impl Display) {
        self.context.unreadable.report(&self.key, words);
    }

    /// Reports that the key is known and this build would not do what it says.
    pub(super) fn not_yet(&self) -> Reported {
        self.report("this build does not act on it yet; remove it")
    }

    pub(crate) fn text(&self) -> Result<String, Reported> {
        match &self.value.kind {
            ValueKind::String(text) => Ok(text.clone()),
            _ => Err(self.wrong_kind("a text in quotes")),
        }
    }

    pub(super) fn is_text(&self) -> bool {
        matches!(self.value.kind, ValueKind::String(_))
    }

    /// A text that means something.
    pub(crate) fn parsed<T: FromStr<Err: Display>>(&self) -> Result<T, Reported> {
        self.text()?.parse().map_err(|error| self.report(error))
    }

    pub(super) fn boolean(&self) -> Result<bool, Reported> {
        match &self.value.kind {
            ValueKind::Boolean(value) => Ok(*value),
            _ => self.environment_setting().ok_or_else(|| self.wrong_kind("true or false")),
        }
    }

    pub(super) fn integer(&self) -> Result<i64, Reported> {
        match &self.value.kind {
            ValueKind::I64(number) => Ok(*number),
            _ => self.environment_setting().ok_or_else(|| self.wrong_kind("a whole number")),
        }
    }

    /// A number that a type restricts.
    pub(super) fn number<T: TryFrom<i64, Error: Display>>(&self) -> Result<T, Reported> {
        self.integer()?.try_into().map_err(|error| self.report(error))
    }

    pub(super) fn within<T: TryFrom<i64>>(&self, range: RangeInclusive<i64>) -> Result<T, Reported> {
        let number = self.integer()?;
        let refused = || self.report(format_args!("must be from {} to {}, is {number}", range.start(), range.end()));
        if range.contains(&number) { number.try_into().map_err(|_| refused()) } else { Err(refused()) }
    }

    /// The path of a file that can be read.
    pub(super) fn readable_file(&self) -> Result<PathBuf, Reported> {
        self.read_file().map(|(path, _)| path)
    }

    /// What a file holds.
    pub(super) fn file_content(&self) -> Result<String, Reported> {
        let (path, content) = self.read_file()?;
        String::from_utf8(content)
            .map_err(|_| self.report(format_args!("cannot read `{}`: it is not UTF-8", path.display())))
    }

    fn read_file(&self) -> Result<(PathBuf, Vec<u8>), Reported> {
        let path = self.context.folder.join(self.text()?);
        match fs::read(&path) {
            Ok(content) => {
                self.context.note(&content);
                Ok((path, content))
            }
            Err(_) if path.is_dir() => Err(self.report(format_args!("`{}` is not a file", path.display()))),
            Err(error) => Err(self.report(format_args!("cannot read `{}`: {error}", path.display()))),
        }
    }

    /// A path, whether something is there or not.
    pub(super) fn path(&self) -> Result<PathBuf, Reported> {
        match self.text()? {
            path if path.is_empty() => Err(self.report("must be a path, is empty")),
            path => Ok(self.context.folder.join(path)),
        }
    }

    /// The path of a folder that exists.
    pub(super) fn folder(&self) -> Result<PathBuf, Reported> {
        let path = self.context.folder.join(self.text()?);
        if path.is_dir() { Ok(path) } else { Err(self.report(format_args!("`{}` is not a folder", path.display()))) }
    }

    /// The path of a file or folder that exists, from the root on.
    pub(super) fn existing_path(&self) -> Result<PathBuf, Reported> {
        let path = self.context.folder.join(self.text()?);
        path.canonicalize().map_err(|error| self.report(format_args!("cannot use `{}`: {error}", path.display())))
    }

    /// The elements of a list. The environment separates them by commas, but for those within parentheses.
    pub(super) fn list(&self) -> Result<Vec<Entry<'a>>, Reported> {
        let origin = self.value.origin().map(String::from);
        let values = match &self.value.kind {
            ValueKind::Array(values) => values.clone(),
            ValueKind::String(text) if origin.is_some() => {
                split_list(text).map(|part| Value::new(origin.as_ref(), part.trim())).collect()
            }
            _ => return Err(self.wrong_kind("a list in brackets")),
        };
        let elements = values.into_iter().enumerate();
        Ok(elements.map(|(index, value)| Entry::new(format!("{}[{index}]", self.key), value, self.context)).collect())
    }

    /// Reads a table; a key that `read` does not take is a problem.
    pub(super) fn table<T>(&self, read: impl FnOnce(&mut Table<'a>) -> Result<T, Reported>) -> Result<T, Reported> {
        let mut table = self.open()?;
        let result = read(&mut table);
        table.finish();
        result
    }

    /// The entries of a table whose keys are names that its author chose, by name.
    pub(super) fn named(&self) -> Result<Vec<(String, Entry<'a>)>, Reported> {
        Ok(self.open()?.into_entries())
    }

    fn open(&self) -> Result<Table<'a>, Reported> {
        match &self.value.kind {
            ValueKind::Table(entries) => Ok(Table::new(self.key.clone(), entries.clone(), self.context)),
            _ => Err(self.wrong_kind("a table")),
        }
    }

    fn environment_setting<T: FromStr>(&self) -> Option<T> {
        match &self.value.kind {
            ValueKind::String(text) if self.value.origin().is_some() => text.trim().parse().ok(),
            _ => None,
        }
    }

    fn wrong_kind(&self, wanted: &str) -> Reported {
        let found = match self.value.kind {
            ValueKind::Nil => "nothing",
            ValueKind::Boolean(_) => "true or false",
            ValueKind::I64(_) | ValueKind::I128(_) | ValueKind::U64(_) | ValueKind::U128(_) => "a whole number",
            ValueKind::Float(_) => "a number with a fraction",
            ValueKind::String(_) => "a text",
            ValueKind::Table(_) => "a table",
            ValueKind::Array(_) => "a list",
        };
        self.report(format_args!("must be {wanted}, is {found}"))
    }
}

/// At commas, but for those within parentheses: `failover:(tcp://a,tcp://b)` is one element.
fn split_list(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_i32;
    text.split(move |c| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        c == ',' && depth <= 0
    })
}

/// Every value, or a problem; none is skipped because of one before it.
pub(crate) fn all<T>(results: impl Iterator<Item = Result<T, Reported>>) -> Result<Vec<T>, Reported> {
    let results: Vec<_> = results.collect();
    results.into_iter().collect()
}

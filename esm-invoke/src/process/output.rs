//! What a function's process prints: logged line by line, and the last lines kept for the case that
//! it does not start.

use std::{
    collections::VecDeque,
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::{Buf as _, BytesMut};
use tokio::{io::AsyncReadExt as _, net::unix::pipe};

/// Longer lines are cut into pieces of this size.
const LINE_LIMIT: usize = 8 * 1024;
/// How many of the last lines are kept.
const KEPT_LINES: usize = 10;
/// As much as is kept of each.
const KEPT_BYTES: usize = 300;

/// The last lines that a process printed.
#[derive(Default)]
pub(super) struct LastLines(Mutex<VecDeque<String>>);

impl LastLines {
    fn keep(&self, line: &str) {
        let mut lines = self.lock();
        if lines.len() == KEPT_LINES {
            lines.pop_front();
        }
        lines.push_back(line[..line.floor_char_boundary(KEPT_BYTES)].to_owned());
    }

    /// All of them in one line, for a message. Empty when nothing was printed.
    pub(super) fn joined(&self) -> String {
        let lines = self.lock();
        lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" | ")
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a process's output to its end. `log` gets every line that is not empty.
pub(super) async fn read(mut pipe: pipe::Receiver, last: &LastLines, mut log: impl FnMut(&str)) -> io::Result<()> {
    let mut bytes = BytesMut::with_capacity(LINE_LIMIT);
    let mut take = |line: &[u8]| {
        let line = printable(line);
        if !line.is_empty() {
            last.keep(&line);
            log(&line);
        }
    };
    loop {
        let is_end = pipe.read_buf(&mut bytes).await? == 0;
        while let Some(end) = end_of_line(&bytes) {
            take(&bytes[..end]);
            bytes.advance(end);
        }
        if is_end {
            take(&bytes);
            return Ok(());
        }
        bytes.reserve(LINE_LIMIT);
    }
}

/// Where the first line ends, its newline included.
fn end_of_line(bytes: &[u8]) -> Option<usize> {
    let within = &bytes[..bytes.len().min(LINE_LIMIT)];
    let newline = within.iter().position(|byte| *byte == b'\n').map(|position| position + 1);
    newline.or((within.len() == LINE_LIMIT).then_some(LINE_LIMIT))
}

/// A line without its end, and without what could disturb a terminal or a log. Indentation stays: a
/// stack trace needs it.
fn printable(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    text.trim_end().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    async fn lines(written: &[u8]) -> (Vec<String>, String) {
        let (reader, mut writer) = io::pipe().unwrap();
        let written = written.to_vec();
        let writing = std::thread::spawn(move || writer.write_all(&written));
        let last = LastLines::default();
        let mut lines = Vec::new();
        let pipe = pipe::Receiver::from_owned_fd(reader.into()).unwrap();
        read(pipe, &last, |line| lines.push(line.to_owned())).await.unwrap();
        writing.join().unwrap().unwrap();
        (lines, last.joined())
    }

    #[tokio::test]
    async fn output_becomes_clean_lines() {
        let (lines, last) = lines(b"one\r\n\n  two \xff\x1b[31m\nthree").await;
        assert_eq!(lines, ["one", "  two \u{fffd} [31m", "three"]);
        assert_eq!(last, "one | two \u{fffd} [31m | three");
    }

    #[tokio::test]
    async fn a_line_without_end_is_cut() {
        let (lines, _) = lines("x".repeat(2 * LINE_LIMIT + 1).as_bytes()).await;
        assert_eq!(lines.iter().map(String::len).collect::<Vec<_>>(), [LINE_LIMIT, LINE_LIMIT, 1]);
    }

    #[tokio::test]
    async fn only_the_last_lines_are_kept() {
        let written: Vec<_> = (0..KEPT_LINES + 2).map(|number| number.to_string()).collect();
        let (lines, last) = lines(written.join("\n").as_bytes()).await;
        assert_eq!(lines.len(), KEPT_LINES + 2);
        assert!(last.starts_with("2 | ") && last.ends_with(" | 11"), "{last}");
    }
}

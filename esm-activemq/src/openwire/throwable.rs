//! What went wrong on the other side, in Java's terms.

use super::{
    error::{DecodeError, Problem},
    reader::Reader,
    text::Text,
    writer::Writer,
};

/// How many causes may follow one another.
const MAX_CAUSES: usize = 32;

/// An exception of a Java peer. Its class is a name to compare and to show, and never more than that.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Throwable {
    /// The name of its class.
    pub class: Option<Text>,
    /// What it says.
    pub message: Option<Text>,
    /// Where it was thrown; empty unless stack traces were negotiated.
    pub stack_trace: Vec<StackTraceElement>,
    /// Why it was thrown; absent unless stack traces were negotiated.
    pub cause: Option<Box<Throwable>>,
}

/// One line of a stack trace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct StackTraceElement {
    /// The name of the class.
    pub class: Option<Text>,
    /// The name of the method.
    pub method: Option<Text>,
    /// The name of the source file.
    pub file: Option<Text>,
    /// The line in it; -1 if unknown, -2 in native code.
    pub line: i32,
}

impl Throwable {
    pub(super) fn read_chain(reader: &mut Reader<'_>, causes: usize) -> Result<Option<Box<Self>>, DecodeError> {
        if !reader.flag()? {
            return Ok(None);
        }
        if causes > MAX_CAUSES {
            return Err(Problem::TooDeep.into());
        }
        let class = reader.text().map_err(|error| error.inside("class"))?;
        let message = reader.text().map_err(|error| error.inside("message"))?;
        if !reader.has_stack_traces() {
            return Ok(Some(Box::new(Self { class, message, stack_trace: Vec::new(), cause: None })));
        }
        let stack_trace = reader.elements(StackTraceElement::read).map_err(|error| error.inside("stack_trace"))?;
        let cause = Self::read_chain(reader, causes + 1).map_err(|error| error.inside("cause"))?;
        Ok(Some(Box::new(Self { class, message, stack_trace, cause })))
    }

    pub(super) fn write_chain(mut next: Option<&Self>, writer: &mut Writer<'_>) {
        while let Some(throwable) = next {
            writer.flag(true);
            writer.text(throwable.class.as_ref());
            writer.text(throwable.message.as_ref());
            if !writer.has_stack_traces() {
                return;
            }
            writer.elements(&throwable.stack_trace, |writer, element| element.write(writer));
            next = throwable.cause.as_deref();
        }
        writer.flag(false);
    }
}

impl StackTraceElement {
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            class: reader.text().map_err(|error| error.inside("class"))?,
            method: reader.text().map_err(|error| error.inside("method"))?,
            file: reader.text().map_err(|error| error.inside("file"))?,
            line: reader.i32().map_err(|error| error.inside("line"))?,
        })
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.text(self.class.as_ref());
        writer.text(self.method.as_ref());
        writer.text(self.file.as_ref());
        writer.i32(self.line);
    }
}

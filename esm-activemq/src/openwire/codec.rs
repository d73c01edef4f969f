//! Frames become commands, and commands frames.

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    cache::Cache,
    commands::Command,
    error::{DecodeError, EncodeError, Problem},
    format::WireFormat,
    reader::Reader,
    writer::Writer,
};

/// Reads the frames of one direction of a connection, in order, as long as they have one format.
pub struct Decoder {
    format: WireFormat,
    cache: Option<Cache>,
}

/// Writes frames of one format.
pub struct Encoder {
    format: WireFormat,
    /// Fields in the tight encoding, until it is known what stands before them.
    scratch: BytesMut,
}

impl Decoder {
    /// A decoder that has seen nothing yet.
    pub fn new(format: WireFormat) -> Self {
        let cache = format.cache.then(|| Cache::new(format.cache_size));
        Self { format, cache }
    }

    /// Reads a frame without its length, as [`split_frame`](super::split_frame) gives it.
    ///
    /// With a cache an error is final: what the frame would have added to the cache is not known. Without one the
    /// next frame can be read.
    #[expect(clippy::needless_pass_by_value, reason = "the frame lives on in the command and nowhere else")]
    pub fn decode(&mut self, frame: Bytes) -> Result<Command, DecodeError> {
        let mut reader = Reader::new(&frame, &self.format, self.cache.as_mut());
        let type_id = reader.u8().map_err(|error| error.inside("type"))?;
        if type_id == 0 {
            reader.finish()?;
            return Ok(Command::Null);
        }
        if !Command::is_known(type_id) {
            if reader.is_cached() {
                return Err(Problem::UnknownType(type_id).into());
            }
            return Ok(Command::Unknown { type_id, payload: reader.rest() });
        }
        if self.format.tight {
            reader.boolean_stream().map_err(|error| error.inside("boolean stream"))?;
        }
        let mut result = Command::read(type_id, &mut reader);
        if let Ok(command) = &result
            && let Err(error) = reader.finish()
        {
            result = Err(error.inside(command.name()));
        }
        result
    }
}

impl Encoder {
    /// An encoder for frames of this format.
    pub fn new(format: WireFormat) -> Self {
        Self { format, scratch: BytesMut::new() }
    }

    /// Appends a frame with its length, or leaves `out` as it was.
    pub fn encode(&mut self, command: &Command, out: &mut BytesMut) -> Result<(), EncodeError> {
        let start = out.len();
        let result = self.append(command, out).and_then(|()| {
            let length = out.len() - start - size_of::<u32>();
            let announced = i32::try_from(length).map_err(|_| EncodeError::FrameTooLong(length))?;
            out[start..start + size_of::<u32>()].copy_from_slice(&announced.to_be_bytes());
            Ok(())
        });
        if result.is_err() {
            out.truncate(start);
        }
        result
    }

    fn append(&mut self, command: &Command, out: &mut BytesMut) -> Result<(), EncodeError> {
        out.put_i32(0);
        out.put_u8(command.type_id());
        let is_structured = !matches!(command, Command::Null | Command::Unknown { .. });
        if !(self.format.tight && is_structured) {
            let mut writer = Writer::new(out, &self.format);
            command.write(&mut writer);
            return writer.finish().map(drop);
        }
        self.scratch.clear();
        let mut writer = Writer::new(&mut self.scratch, &self.format);
        command.write(&mut writer);
        out.put_slice(&writer.finish()?);
        out.put_slice(&self.scratch);
        Ok(())
    }
}

//! What both sides agree on before anything else, and how.

use bytes::Bytes;
use thiserror::Error;

use super::{
    error::{DecodeError, Problem},
    kinds::Structure,
    primitive::{Primitive, encode_properties, properties},
    reader::Reader,
    text::Text,
    writer::Writer,
};

/// The highest version that this codec speaks, and the one that it asks for.
const VERSION: i32 = 12;

/// The oldest version that brokers of today still answer with, and the oldest that [`negotiate`] accepts.
const OLDEST_VERSION: i32 = 10;

/// How many cached objects we let the other side number. A peer that is offered 1 to 99 never stops evicting.
const CACHE_SIZE: i32 = 1024;

/// The number of slots that a cache size of zero stands for.
const DEFAULT_CACHE_SIZE: usize = 16_383;

const MAGIC: &[u8; 8] = b"ActiveMQ";

/// How the frames of a connection are written, after the first in each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireFormat {
    /// The version, 9 to 12.
    pub version: i32,
    /// Whether flags are bits in front of the fields, instead of bytes among them.
    pub tight: bool,
    /// Whether objects that came before may be referred to.
    pub cache: bool,
    /// How many objects can be referred to.
    pub cache_size: usize,
    /// Whether exceptions carry their stack traces and causes.
    pub stack_trace: bool,
}

impl WireFormat {
    /// The format of the first frame in each direction.
    pub const INITIAL: Self = Self { version: 1, tight: false, cache: false, cache_size: 0, stack_trace: false };

    /// The format that [`WireFormatInfo::request`] leads to.
    pub const LOOSE: Self = Self { version: VERSION, ..Self::INITIAL };
}

/// What one side can do and wants: the first frame in each direction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct WireFormatInfo {
    /// The highest version that the sender speaks.
    pub version: i32,
    /// Everything else, as it stands on the wire: see [`WireFormatInfo::options`].
    pub marshalled_properties: Option<Bytes>,
}

/// What a [`WireFormatInfo`] says beside the version. What it does not mention is off, zero or absent.
#[expect(clippy::struct_excessive_bools, reason = "they are switches on the wire")]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WireFormatOptions {
    /// Flags may be bits in front of the fields.
    pub tight_encoding_enabled: bool,
    /// Objects that came before may be referred to.
    pub cache_enabled: bool,
    /// Frames have no length, which this codec does not support.
    pub size_prefix_disabled: bool,
    /// Exceptions may carry their stack traces.
    pub stack_trace_enabled: bool,
    /// Small frames are sent without delay, in both directions.
    pub tcp_no_delay_enabled: bool,
    /// How many objects can be referred to; zero stands for the sender's default.
    pub cache_size: i32,
    /// How long a connection may be silent, in milliseconds; zero for ever.
    pub max_inactivity_duration: i64,
    /// How long it may be silent at first, in milliseconds.
    pub max_inactivity_duration_initial_delay: i64,
    /// The longest frame that the sender takes; zero or less is no limit.
    pub max_frame_size: i64,
    /// The name under which the client looked for the broker.
    pub host: Option<Text>,
    /// Whose implementation it is.
    pub provider_name: Option<Text>,
    /// Which version of it.
    pub provider_version: Option<Text>,
    /// What it runs on.
    pub platform_details: Option<Text>,
}

/// What both sides agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// How all further frames are written.
    pub format: WireFormat,
    /// How long either side may be silent, in milliseconds; zero for ever, and then there are no keep-alives.
    pub max_inactivity_duration: i64,
    /// How long either side may be silent at first, in milliseconds.
    pub max_inactivity_duration_initial_delay: i64,
    /// The longest frame that both sides take.
    pub max_frame_size: i64,
}

/// Why two sides cannot talk.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NegotiationError {
    /// The other side is older than what this codec is tested with.
    #[error("the broker speaks OpenWire version {0}, at least {OLDEST_VERSION} is needed (ActiveMQ 5.9 or newer)")]
    Version(i32),
    /// What one side said cannot be read.
    #[error("the wire format's properties cannot be read")]
    Properties(#[from] DecodeError),
    /// Both sides want frames without lengths.
    #[error("frames without a length are not supported")]
    SizePrefix,
}

impl WireFormatInfo {
    /// Its type number.
    pub const TYPE: u8 = 1;

    /// What a client should send: the highest version, loose, without a cache, which every broker agrees to.
    ///
    /// A broker checks `max_frame_size` against our frames too, so it should be as large as anything that is ever
    /// sent. `max_inactivity_duration` is in milliseconds.
    pub fn request(max_frame_size: i64, max_inactivity_duration: i64) -> Self {
        let options = WireFormatOptions {
            tcp_no_delay_enabled: true,
            cache_size: CACHE_SIZE,
            max_inactivity_duration,
            max_inactivity_duration_initial_delay: 10_000,
            max_frame_size,
            ..WireFormatOptions::default()
        };
        Self::new(VERSION, &options)
    }

    /// A wire format of any kind.
    pub fn new(version: i32, options: &WireFormatOptions) -> Self {
        // The names are short, and nothing else in these properties can fail to fit.
        Self { version, marshalled_properties: encode_properties(options.entries()).ok() }
    }

    /// What it says beside the version. A value of the wrong type is an error, as it is for every peer; properties
    /// that nobody knows are not.
    pub fn options(&self) -> Result<WireFormatOptions, DecodeError> {
        let mut options = WireFormatOptions::default();
        if let Some(marshalled) = &self.marshalled_properties {
            for property in properties(marshalled)? {
                let (name, value) = property?;
                options.set(&name, &value).map_err(|error| error.inside(&name))?;
            }
        }
        Ok(options)
    }
}

impl WireFormatOptions {
    fn set(&mut self, name: &str, value: &Primitive<'_>) -> Result<(), DecodeError> {
        match name {
            "TightEncodingEnabled" => self.tight_encoding_enabled = boolean(value)?,
            "CacheEnabled" => self.cache_enabled = boolean(value)?,
            "SizePrefixDisabled" => self.size_prefix_disabled = boolean(value)?,
            "StackTraceEnabled" => self.stack_trace_enabled = boolean(value)?,
            "TcpNoDelayEnabled" => self.tcp_no_delay_enabled = boolean(value)?,
            "CacheSize" => self.cache_size = int(value)?,
            "MaxInactivityDuration" => self.max_inactivity_duration = long(value)?,
            "MaxInactivityDurationInitalDelay" => self.max_inactivity_duration_initial_delay = long(value)?,
            "MaxFrameSize" => self.max_frame_size = long(value)?,
            "Host" => self.host = string(value)?,
            "ProviderName" => self.provider_name = string(value)?,
            "ProviderVersion" => self.provider_version = string(value)?,
            "PlatformDetails" => self.platform_details = string(value)?,
            _ => {}
        }
        Ok(())
    }

    /// The properties on the wire, each with the type that peers insist on.
    fn entries(&self) -> Vec<(&str, Primitive<'_>)> {
        let mut entries = vec![
            ("StackTraceEnabled", Primitive::Boolean(self.stack_trace_enabled)),
            ("TcpNoDelayEnabled", Primitive::Boolean(self.tcp_no_delay_enabled)),
            ("CacheEnabled", Primitive::Boolean(self.cache_enabled)),
            ("TightEncodingEnabled", Primitive::Boolean(self.tight_encoding_enabled)),
            ("SizePrefixDisabled", Primitive::Boolean(self.size_prefix_disabled)),
            ("CacheSize", Primitive::Int(self.cache_size)),
            ("MaxInactivityDuration", Primitive::Long(self.max_inactivity_duration)),
            ("MaxInactivityDurationInitalDelay", Primitive::Long(self.max_inactivity_duration_initial_delay)),
            ("MaxFrameSize", Primitive::Long(self.max_frame_size)),
        ];
        let strings = [
            ("Host", &self.host),
            ("ProviderName", &self.provider_name),
            ("ProviderVersion", &self.provider_version),
            ("PlatformDetails", &self.platform_details),
        ];
        entries.extend(
            strings.into_iter().filter_map(|(name, value)| Some((name, Primitive::String(value.as_ref()?.to_str())))),
        );
        entries
    }
}

/// What follows from what both sides said. Both come to the same result, so nothing more is sent.
pub fn negotiate(ours: &WireFormatInfo, theirs: &WireFormatInfo) -> Result<Negotiated, NegotiationError> {
    let version = ours.version.min(theirs.version).min(VERSION);
    if version < OLDEST_VERSION {
        return Err(NegotiationError::Version(version));
    }
    let (ours, theirs) = (ours.options()?, theirs.options()?);
    if ours.size_prefix_disabled && theirs.size_prefix_disabled {
        return Err(NegotiationError::SizePrefix);
    }
    let cache_size = match usize::try_from(ours.cache_size.min(theirs.cache_size)) {
        Ok(0) | Err(_) => DEFAULT_CACHE_SIZE,
        Ok(size) => size,
    };
    let limits = [ours.max_frame_size, theirs.max_frame_size];
    Ok(Negotiated {
        format: WireFormat {
            version,
            tight: ours.tight_encoding_enabled && theirs.tight_encoding_enabled,
            cache: ours.cache_enabled && theirs.cache_enabled,
            cache_size,
            stack_trace: ours.stack_trace_enabled && theirs.stack_trace_enabled,
        },
        max_inactivity_duration: ours.max_inactivity_duration.min(theirs.max_inactivity_duration).max(0),
        max_inactivity_duration_initial_delay: ours
            .max_inactivity_duration_initial_delay
            .min(theirs.max_inactivity_duration_initial_delay)
            .max(0),
        max_frame_size: limits.into_iter().filter(|limit| *limit > 0).min().unwrap_or(i64::MAX),
    })
}

impl Structure for WireFormatInfo {
    fn type_id(&self) -> u8 {
        Self::TYPE
    }

    fn read(type_id: u8, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if type_id != Self::TYPE {
            return Err(Problem::UnexpectedType(type_id).into());
        }
        let magic: [u8; 8] = reader.array().map_err(|error| error.inside("magic"))?;
        if magic != *MAGIC {
            return Err(DecodeError::from(Problem::Magic).inside("magic"));
        }
        Ok(Self {
            version: reader.i32().map_err(|error| error.inside("version"))?,
            marshalled_properties: reader.bytes().map_err(|error| error.inside("marshalled_properties"))?,
        })
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.raw(MAGIC);
        writer.i32(self.version);
        writer.bytes(self.marshalled_properties.as_ref());
    }
}

fn boolean(value: &Primitive<'_>) -> Result<bool, DecodeError> {
    if let Primitive::Boolean(value) = value { Ok(*value) } else { Err(Problem::WrongType.into()) }
}

fn int(value: &Primitive<'_>) -> Result<i32, DecodeError> {
    if let Primitive::Int(value) = value { Ok(*value) } else { Err(Problem::WrongType.into()) }
}

fn long(value: &Primitive<'_>) -> Result<i64, DecodeError> {
    if let Primitive::Long(value) = value { Ok(*value) } else { Err(Problem::WrongType.into()) }
}

fn string(value: &Primitive<'_>) -> Result<Option<Text>, DecodeError> {
    match value {
        Primitive::String(value) => Ok(Some(Text::from(&**value))),
        Primitive::Null => Ok(None),
        _ => Err(Problem::WrongType.into()),
    }
}

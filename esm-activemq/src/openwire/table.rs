//! How the table in `commands` becomes types that read and write themselves.
//!
//! A field is `name: Kind` or `name: Kind = first version` or `name: Kind = first version to last version`. A
//! field that a version does not have is its type's default when read, and left out when written. Versions below
//! 9 are not spoken, so a field without a number is in every version.

use super::{error::DecodeError, reader::Reader, writer::Writer};

/// Fields in a row, which is what a structure is after its type number.
pub(super) trait Fields: Default {
    /// Fills in the fields of a default value, so that large structures are not moved while they are read.
    fn read_fields(&mut self, reader: &mut Reader<'_>) -> Result<(), DecodeError>;

    fn write_fields(&self, writer: &mut Writer<'_>);

    /// A structure with its fields.
    fn read_new(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut structure = Self::default();
        structure.read_fields(reader)?;
        Ok(structure)
    }
}

/// What a kind's field holds in Rust.
macro_rules! value {
    (Text) => { Option<Text> };
    (Secret) => { Option<Secret> };
    (Bytes) => { Option<Bytes> };
    (Throwable) => { Option<Box<Throwable>> };
    (Object<$structure:ident>) => { Option<$structure> };
    (Cached<$structure:ident>) => { Option<$structure> };
    (Array<$structure:ident>) => { Option<Vec<Option<$structure>>> };
    ($number:ident) => { $number };
}

/// A structure from its part of the table. Members in brackets are not part of its fields on the wire.
macro_rules! structure {
    (
        $(#[$attribute:meta])*
        $name:ident $([ $($(#[$member_attribute:meta])* $member:ident: $member_type:ty,)* ])? {
            $(
                $(#[$field_attribute:meta])*
                $field:ident: $kind:ident $(<$structure:ident>)? $(= $since:literal $(to $until:literal)?)?,
            )*
        }
    ) => {
        $(#[$attribute])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
        pub struct $name {
            $($($(#[$member_attribute])* pub $member: $member_type,)*)?
            $(
                $(#[$field_attribute])*
                #[doc = concat!(
                    "\n\n`", stringify!($kind) $(, "<", stringify!($structure), ">")?, "`"
                    $(, " from version ", stringify!($since) $(, " to ", stringify!($until))?)?,
                    " on the wire."
                )]
                pub $field: value!($kind $(<$structure>)?),
            )*
        }

        impl Fields for $name {
            fn read_fields(&mut self, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
                $(
                    let is_there = true $(&& reader.speaks($since, i32::MAX $(.min($until))?))?;
                    if is_there {
                        <$kind $(<$structure>)? as Kind>::read(&mut self.$field, reader)
                            .map_err(|error| error.inside(stringify!($field)))?;
                    }
                )*
                Ok(())
            }

            fn write_fields(&self, writer: &mut Writer<'_>) {
                $(
                    let is_there = true $(&& writer.speaks($since, i32::MAX $(.min($until))?))?;
                    if is_there {
                        <$kind $(<$structure>)? as Kind>::write(&self.$field, writer);
                    }
                )*
            }
        }

        #[cfg(test)]
        impl $name {
            /// Random fields, where version 12 has them.
            pub(super) fn sample_fields(source: &mut Source<'_>) -> Self {
                Self {
                    $($($member: Default::default(),)*)?
                    $($field: {
                        let is_there = true $(&& ($since..=i32::MAX $(.min($until))?).contains(&12))?;
                        if is_there { Sample::sample(source) } else { Default::default() }
                    },)*
                }
            }
        }
    };
}

/// Puts in front what every command has, and what every response has.
macro_rules! with_base {
    ([]; [$($head:tt)*] $($fields:tt)*) => {
        structure! { $($head)* { $($fields)* } }
    };
    ([Base]; [$($head:tt)*] $($fields:tt)*) => {
        structure! { $($head)* {
            /// The sender's number for this command, which a response names.
            command_id: i32,
            /// Whether the sender waits for a response.
            response_required: bool,
            $($fields)*
        } }
    };
    ([Reply]; [$($head:tt)*] $($fields:tt)*) => {
        with_base! { [Base]; [$($head)*]
            /// The number of the command that is answered.
            correlation_id: i32,
            $($fields)*
        }
    };
}

/// The table itself: type numbers, names, what they begin with, and fields.
macro_rules! commands {
    ($(
        $(#[$attribute:meta])*
        $type_id:literal $name:ident $(: $base:ident)? { $($fields:tt)* }
    )*) => {
        $(
            with_base! { [$($base)?]; [$(#[$attribute])* $name] $($fields)* }

            impl $name {
                /// Its type number.
                pub const TYPE: u8 = $type_id;
            }

            impl Structure for $name {
                fn type_id(&self) -> u8 {
                    $type_id
                }

                fn read(slot: &mut Option<Self>, type_id: u8, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
                    if type_id != $type_id {
                        return Err(Problem::UnexpectedType(type_id).into());
                    }
                    slot.insert(Self::default()).read_fields(reader)
                }

                fn write(&self, writer: &mut Writer<'_>) {
                    self.write_fields(writer);
                }
            }

            #[cfg(test)]
            impl Sample for $name {
                fn sample(source: &mut Source<'_>) -> Self {
                    Self::sample_fields(source)
                }
            }

            impl From<$name> for Command {
                fn from(command: $name) -> Self {
                    Self::$name(Box::new(command))
                }
            }
        )*

        /// Everything that can travel in a frame. Most are commands; the others are parts of commands, which the
        /// format allows to travel alone. What is large lives in a box: it would be copied at each step of its way.
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub enum Command {
            /// The null command, which means nothing.
            Null,
            /// What one side can do and wants: the first frame in each direction.
            WireFormatInfo(WireFormatInfo),
            /// A message of any type, on its way to the broker.
            Message(Box<Message>),
            /// A destination alone.
            Destination(Destination),
            $($(#[$attribute])* $name(Box<$name>),)*
            /// A frame of a type that this codec does not know, as it came.
            Unknown {
                /// The type number.
                type_id: u8,
                /// Everything behind it.
                payload: Bytes,
            },
        }

        impl From<WireFormatInfo> for Command {
            fn from(info: WireFormatInfo) -> Self {
                Self::WireFormatInfo(info)
            }
        }

        impl From<Message> for Command {
            fn from(message: Message) -> Self {
                Self::Message(Box::new(message))
            }
        }

        impl Command {
            /// The number of its type.
            pub fn type_id(&self) -> u8 {
                match self {
                    Self::Null => 0,
                    Self::WireFormatInfo(_) => WireFormatInfo::TYPE,
                    Self::Message(message) => message.type_id(),
                    Self::Destination(destination) => destination.type_id(),
                    $(Self::$name(_) => $type_id,)*
                    Self::Unknown { type_id, .. } => *type_id,
                }
            }

            /// Its type as errors name it.
            pub(super) fn name(&self) -> &'static str {
                match self {
                    Self::Null => "null",
                    Self::WireFormatInfo(_) => "WireFormatInfo",
                    Self::Message(_) => "Message",
                    Self::Destination(_) => "Destination",
                    $(Self::$name(_) => stringify!($name),)*
                    Self::Unknown { .. } => "unknown",
                }
            }

            /// Whether there is a structure of this type.
            pub(super) fn is_known(type_id: u8) -> bool {
                matches!(type_id, WireFormatInfo::TYPE $(| $type_id)*)
                    || MessageKind::from_type(type_id).is_some()
                    || Destination::is_type(type_id)
            }

            /// Reads what follows a type number.
            pub(super) fn read(type_id: u8, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                Ok(match type_id {
                    WireFormatInfo::TYPE => Self::WireFormatInfo(
                        read_one(type_id, reader).map_err(|error| error.inside("WireFormatInfo"))?
                    ),
                    _ if MessageKind::from_type(type_id).is_some() => {
                        Self::Message(read_one(type_id, reader).map(Box::new).map_err(|error| error.inside("Message"))?)
                    }
                    _ if Destination::is_type(type_id) => {
                        Self::Destination(read_one(type_id, reader).map_err(|error| error.inside("Destination"))?)
                    }
                    $($type_id => {
                        let mut command = Box::<$name>::default();
                        command.read_fields(reader).map_err(|error| error.inside(stringify!($name)))?;
                        Self::$name(command)
                    })*
                    unknown => return Err(Problem::UnknownType(unknown).into()),
                })
            }

            /// A random value of a type.
            #[cfg(test)]
            pub(super) fn sample_type(type_id: u8, source: &mut Source<'_>) -> Self {
                match type_id {
                    WireFormatInfo::TYPE => Self::WireFormatInfo(Sample::sample(source)),
                    $($type_id => Self::$name(Box::new(Sample::sample(source))),)*
                    _ if Destination::is_type(type_id) => Self::Destination(Sample::sample(source)),
                    _ => Self::Message(Box::new(Sample::sample(source))),
                }
            }

            /// Writes what follows the type number.
            pub(super) fn write(&self, writer: &mut Writer<'_>) {
                match self {
                    Self::Null => {}
                    Self::WireFormatInfo(info) => info.write(writer),
                    Self::Message(message) => message.write(writer),
                    Self::Destination(destination) => destination.write(writer),
                    $(Self::$name(command) => command.write_fields(writer),)*
                    Self::Unknown { payload, .. } => writer.raw(payload),
                }
            }
        }
    };
}

pub(super) use {commands, structure, value, with_base};

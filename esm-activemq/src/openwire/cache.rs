//! What one direction of a connection has sent before, if a cache was negotiated.

use super::{
    commands::{BrokerId, ConnectionId, ConsumerId, ProducerId, SessionId},
    destination::Destination,
    error::{DecodeError, Problem},
    ids::RemovedId,
    transaction::TransactionId,
};

/// Numbered slots, which a peer fills and fills again.
pub(super) struct Cache {
    slots: Vec<Slot>,
    size: usize,
}

/// Null can be referred to, which is not the same as nothing.
#[derive(Clone)]
enum Slot {
    Empty,
    Null,
    Object(CachedObject),
}

/// A structure that can be in the cache: a field of its type may refer to what was sent for another field.
pub(super) trait Cacheable: Clone + Into<CachedObject> {
    /// The object, if it is one that this type can hold.
    fn from_cached(object: &CachedObject) -> Option<Self>;
}

/// Everything that fields refer to.
#[derive(Clone, Debug)]
pub(super) enum CachedObject {
    Broker(BrokerId),
    Connection(ConnectionId),
    Consumer(ConsumerId),
    Destination(Destination),
    Producer(ProducerId),
    Session(SessionId),
    Transaction(TransactionId),
}

impl Cache {
    /// An empty cache with this many slots; memory is taken as they are filled.
    pub(super) fn new(size: usize) -> Self {
        Self { slots: Vec::new(), size }
    }

    pub(super) fn get<T: Cacheable>(&self, index: i16) -> Result<Option<T>, DecodeError> {
        match self.slots.get(self.position(index)?) {
            None | Some(Slot::Empty) => Err(Problem::EmptySlot(index).into()),
            Some(Slot::Null) => Ok(None),
            Some(Slot::Object(object)) => match T::from_cached(object) {
                Some(object) => Ok(Some(object)),
                None => Err(Problem::UnexpectedType(object.type_id()).into()),
            },
        }
    }

    /// Remembers an object, or null, unless its index says that it is not worth it.
    pub(super) fn put<T: Cacheable>(&mut self, index: i16, object: Option<T>) -> Result<(), DecodeError> {
        if index == -1 {
            return Ok(());
        }
        let position = self.position(index)?;
        if position >= self.slots.len() {
            self.slots.resize(position + 1, Slot::Empty);
        }
        self.slots[position] = object.map_or(Slot::Null, |object| Slot::Object(object.into()));
        Ok(())
    }

    fn position(&self, index: i16) -> Result<usize, DecodeError> {
        match usize::try_from(index) {
            Ok(position) if position < self.size => Ok(position),
            _ => Err(Problem::CacheIndex(index).into()),
        }
    }
}

impl CachedObject {
    fn type_id(&self) -> u8 {
        use super::kinds::Structure as _;
        match self {
            Self::Broker(id) => id.type_id(),
            Self::Connection(id) => id.type_id(),
            Self::Consumer(id) => id.type_id(),
            Self::Destination(destination) => destination.type_id(),
            Self::Producer(id) => id.type_id(),
            Self::Session(id) => id.type_id(),
            Self::Transaction(id) => id.type_id(),
        }
    }
}

macro_rules! cacheable {
    ($($variant:ident($object:ident))*) => {$(
        impl From<$object> for CachedObject {
            fn from(object: $object) -> Self {
                Self::$variant(object)
            }
        }

        impl Cacheable for $object {
            fn from_cached(object: &CachedObject) -> Option<Self> {
                match object {
                    CachedObject::$variant(object) => Some(object.clone()),
                    _ => None,
                }
            }
        }
    )*};
}

cacheable! {
    Broker(BrokerId)
    Connection(ConnectionId)
    Consumer(ConsumerId)
    Destination(Destination)
    Producer(ProducerId)
    Session(SessionId)
    Transaction(TransactionId)
}

impl From<RemovedId> for CachedObject {
    fn from(id: RemovedId) -> Self {
        match id {
            RemovedId::Connection(id) => id.into(),
            RemovedId::Session(id) => id.into(),
            RemovedId::Consumer(id) => id.into(),
            RemovedId::Producer(id) => id.into(),
        }
    }
}

impl Cacheable for RemovedId {
    fn from_cached(object: &CachedObject) -> Option<Self> {
        match object {
            CachedObject::Connection(id) => Some(Self::Connection(id.clone())),
            CachedObject::Session(id) => Some(Self::Session(id.clone())),
            CachedObject::Consumer(id) => Some(Self::Consumer(id.clone())),
            CachedObject::Producer(id) => Some(Self::Producer(id.clone())),
            _ => None,
        }
    }
}

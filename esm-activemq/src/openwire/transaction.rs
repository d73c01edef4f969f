//! Transactions by their ids, of which there are two types.

use super::{
    commands::{LocalTransactionId, XaTransactionId},
    error::{DecodeError, Problem},
    kinds::Structure,
    reader::Reader,
    writer::Writer,
};

/// Which transaction a command belongs to. Consumers of queues see none, so it is kept small.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TransactionId {
    /// One of the broker's own.
    Local(Box<LocalTransactionId>),
    /// One of a transaction manager's.
    Xa(Box<XaTransactionId>),
}

impl Structure for TransactionId {
    fn type_id(&self) -> u8 {
        match self {
            Self::Local(id) => id.type_id(),
            Self::Xa(id) => id.type_id(),
        }
    }

    fn read(type_id: u8, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match type_id {
            LocalTransactionId::TYPE => Structure::read(type_id, reader).map(Box::new).map(Self::Local),
            XaTransactionId::TYPE => Structure::read(type_id, reader).map(Box::new).map(Self::Xa),
            other => Err(Problem::UnexpectedType(other).into()),
        }
    }

    fn write(&self, writer: &mut Writer<'_>) {
        match self {
            Self::Local(id) => id.write(writer),
            Self::Xa(id) => id.write(writer),
        }
    }
}

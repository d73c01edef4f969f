//! The two ends of a socket, as the transport wants them.
//!
//! A broker writes each message by itself, and to be woken for each costs more than all that is done with it. Tokio's
//! own streams are woken by everything that comes, even while nobody asks for it; so a socket without TLS is watched
//! only while somebody waits for it.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{Shutdown, TcpStream},
    pin::pin,
    task::{Context, Poll, Waker},
};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, Interest};

/// How much is read at once.
const READ: usize = 64 * 1024;

/// Where bytes come from. Nothing is the end of them.
pub(super) trait Incoming: Send {
    /// Appends what is there already. [`ErrorKind::WouldBlock`]: nothing is.
    fn read_now(&mut self, buffer: &mut BytesMut) -> io::Result<usize>;

    /// Waits for more. May be dropped half-way.
    fn read(&mut self, buffer: &mut BytesMut) -> impl Future<Output = io::Result<usize>> + Send;
}

/// Where bytes go.
pub(super) trait Outgoing: Send {
    /// Writes all of them.
    fn write_all(&mut self, bytes: &[u8]) -> impl Future<Output = io::Result<()>> + Send;

    /// Says that nothing more comes.
    fn finish(&mut self) -> impl Future<Output = io::Result<()>> + Send;
}

/// The end of a socket that is read.
pub(super) struct PlainIncoming {
    stream: TcpStream,
    /// Always the same memory, which costs less than new memory that is not copied from.
    scratch: Box<[u8]>,
}

/// The end of a socket that is written.
pub(super) struct PlainOutgoing(TcpStream);

/// Both ends of a socket.
pub(super) fn plain(stream: tokio::net::TcpStream) -> io::Result<(PlainIncoming, PlainOutgoing)> {
    let stream = stream.into_std()?;
    let outgoing = PlainOutgoing(stream.try_clone()?);
    Ok((PlainIncoming { stream, scratch: vec![0; READ].into() }, outgoing))
}

/// Waits until it may be read or written.
async fn watch(stream: &TcpStream, interest: Interest) -> io::Result<()> {
    let watched = tokio::net::TcpStream::from_std(stream.try_clone()?)?;
    watched.ready(interest).await.map(drop)
}

impl Incoming for PlainIncoming {
    fn read_now(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        let read = self.stream.read(&mut self.scratch)?;
        buffer.extend_from_slice(&self.scratch[..read]);
        Ok(read)
    }

    async fn read(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        loop {
            watch(&self.stream, Interest::READABLE).await?;
            match self.read_now(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                read => return read,
            }
        }
    }
}

impl Outgoing for PlainOutgoing {
    async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.0.write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => watch(&self.0, Interest::WRITABLE).await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn finish(&mut self) -> io::Result<()> {
        self.0.shutdown(Shutdown::Write)
    }
}

/// One end of a stream of another kind.
pub(super) struct Other<T>(pub(super) T);

impl<R: AsyncRead + Send + Unpin> Incoming for Other<R> {
    fn read_now(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        // Whoever finds nothing waits with `read`, which asks again.
        let mut context = Context::from_waker(Waker::noop());
        match pin!(self.read(buffer)).poll(&mut context) {
            Poll::Ready(read) => read,
            Poll::Pending => Err(ErrorKind::WouldBlock.into()),
        }
    }

    async fn read(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        buffer.reserve(READ);
        self.0.read_buf(buffer).await
    }
}

impl<W: AsyncWrite + Send + Unpin> Outgoing for Other<W> {
    async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes).await?;
        self.0.flush().await
    }

    async fn finish(&mut self) -> io::Result<()> {
        self.0.shutdown().await
    }
}

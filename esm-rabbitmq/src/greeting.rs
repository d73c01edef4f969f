//! What a broker says first: `Connection.Start`, which carries its version. The client reads it and keeps it to
//! itself, so it is listened to on its way.

use std::{
    fmt, io,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd},
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
    time::Duration,
};

use async_compat::Compat;
use async_rs::{Runtime, Tokio, traits::Reactor, util::RuntimeParts};
use futures_util::{
    Stream,
    io::{AsyncRead, AsyncWrite},
};
use lapin::AsyncTcpStream;
use tokio::net::TcpStream;

/// More than a greeting ever takes.
const LONGEST: usize = 16 * 1024;
/// Type, channel and size of a frame.
const FRAME_HEAD: usize = 7;

/// A broker's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    pub(crate) major: u32,
    pub(crate) minor: u32,
}

impl Version {
    /// How often a quorum queue takes a message back before it drops it, unless somebody has set another limit; of
    /// those versions where each return counts.
    pub(crate) fn default_delivery_limit(self) -> Option<u32> {
        let (first, last) = (Self { major: 4, minor: 0 }, Self { major: 4, minor: 2 });
        (first..=last).contains(&self).then_some(20)
    }

    /// Whether a quorum queue whose delivery is held too long cancels the consumer; before that, whatever the queue, the
    /// broker closed the channel and said why.
    pub(crate) fn cancels_who_holds_too_long(self) -> bool {
        self >= Self { major: 4, minor: 3 }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split('.').map(str::parse);
        Some(Self { major: numbers.next()?.ok()?, minor: numbers.next()?.ok()? })
    }

    /// Of a `Connection.Start` frame, whose properties name it.
    fn of_greeting(frame: &[u8]) -> Option<Self> {
        const NAME: &[u8] = b"\x07versionS"; // a long string
        let at = frame.windows(NAME.len()).position(|window| window == NAME)?;
        let (length, rest) = frame[at + NAME.len()..].split_first_chunk::<4>()?;
        let text = rest.get(..usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        Self::parse(std::str::from_utf8(text).ok()?)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// A stream whose first frame is listened to.
pub(crate) struct Listening {
    stream: AsyncTcpStream<Compat<TcpStream>>,
    /// What was heard of the first frame so far; `None` when there is no need to listen any more.
    heard: Option<Vec<u8>>,
    version: Arc<OnceLock<Version>>,
}

impl Listening {
    /// The version is told where it can be read from, as soon as it is known.
    pub(crate) fn new(stream: AsyncTcpStream<Compat<TcpStream>>, version: Arc<OnceLock<Version>>) -> Self {
        Self { stream, heard: Some(Vec::new()), version }
    }

    fn hear(&mut self, bytes: &[u8]) {
        let Some(heard) = &mut self.heard else { return };
        heard.extend_from_slice(&bytes[..bytes.len().min(LONGEST - heard.len())]);
        let is_whole = heard.get(3..FRAME_HEAD).and_then(|size| size.try_into().ok()).is_some_and(|size| {
            let size = usize::try_from(u32::from_be_bytes(size)).unwrap_or(usize::MAX);
            heard.len() - FRAME_HEAD >= size
        });
        if is_whole || heard.len() >= LONGEST {
            if let Some(version) = Version::of_greeting(heard) {
                // Nobody else writes it.
                let _ = self.version.set(version);
            }
            self.heard = None;
        }
    }
}

impl AsyncRead for Listening {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer));
        if let (Ok(length), true) = (&read, self.heard.is_some()) {
            self.hear(&buffer[..*length]);
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for Listening {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

/// The client's runtime, which names the kind of stream that it works with.
pub(crate) fn runtime() -> Runtime<RuntimeParts<Tokio, ListeningReactor>> {
    Runtime::new(RuntimeParts::new(Tokio::current(), ListeningReactor(Tokio::current())))
}

/// tokio, but for the kind of stream.
#[derive(Clone, Debug)]
pub(crate) struct ListeningReactor(Tokio);

impl Reactor for ListeningReactor {
    type TcpStream = Listening;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: io::Read + io::Write + AsFd + AsRawFd + Send + 'static>(
        &self,
        socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        self.0.register(socket)
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.0.sleep(duration)
    }

    fn interval(&self, duration: Duration) -> impl Stream<Item = std::time::Instant> + Send + 'static {
        self.0.interval(duration)
    }

    fn tcp_connect_addr(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        let connecting = self.0.tcp_connect_addr(address);
        async { Ok(Listening::new(AsyncTcpStream::Plain(connecting.await?), Arc::default())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_the_brokers_properties() {
        let greeting = |text: &[u8]| {
            let length = u32::try_from(text.len()).unwrap().to_be_bytes();
            [b"\x01\0\0\0\0\x01\xff\0\x0a\0\x0a\0\x09\x07productS\0\0\0\x08RabbitMQ\x07versionS", &length[..], text]
                .concat()
        };
        let check = |frame: &[u8], expected| {
            let expected = Option::map(expected, |(major, minor)| Version { major, minor });
            assert_eq!(Version::of_greeting(frame), expected, "{frame:?}");
        };
        check(&greeting(b"3.10.8"), Some((3, 10)));
        check(&greeting(b"4.0.5"), Some((4, 0)));
        check(&greeting(b"4.3.0-beta.1"), Some((4, 3)));
        check(&greeting(b"4"), None);
        check(&greeting(b"\xff.1"), None);
        check(&greeting(b"4.0.5")[..40], None);
        check(b"\x07versionS\xff\xff\xff\xff4.0", None);
        check(b"", None);
    }

    #[test]
    fn quorum_queues_have_a_limit_of_their_own_where_every_return_counts() {
        let check = |major, minor, expected| {
            assert_eq!(Version { major, minor }.default_delivery_limit(), expected, "{major}.{minor}");
        };
        check(3, 10, None);
        check(3, 13, None);
        check(4, 0, Some(20));
        check(4, 2, Some(20));
        check(4, 3, None);
        check(5, 0, None);
    }
}

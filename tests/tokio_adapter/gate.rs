//! Transports that can be held up, broken, interrupted or listened to.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What becomes of writes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) enum Writes {
    #[default]
    Pass,
    /// Are taken, and never flushed.
    Keep,
    Stall,
    /// The next one passes, and behind it [`FlushAlone`](Self::FlushAlone).
    StallAfterOne,
    /// What passed is flushed, and nothing more passes.
    FlushAlone,
    Fail,
}

/// What becomes of what is done to a transport.
pub(crate) trait Manner: Unpin {
    /// How much of it goes on to the transport now.
    fn write(&mut self, _: &mut Context<'_>, src: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(src.len()))
    }

    /// Whether a flush goes on to it; where it does not, that is all that comes of it.
    fn flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<bool>> {
        Poll::Ready(Ok(true))
    }

    /// When a shutdown goes on to it.
    fn shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.flush(cx).map_ok(|_| ())
    }

    /// When a read goes on to it.
    fn read(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// It took these.
    fn took(&mut self, _: &[u8]) {}
}

/// Sets what becomes of writes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Switch(Arc<Mutex<(Writes, Option<Waker>, usize)>>);

impl Switch {
    pub(crate) fn set(&self, writes: Writes) {
        let mut state = self.0.lock().unwrap();
        state.0 = writes;
        state.1.take().into_iter().for_each(Waker::wake);
    }

    /// How often a flush was looked at.
    pub(crate) fn flushes(&self) -> usize {
        self.0.lock().unwrap().2
    }

    fn poll(&self, cx: &Context<'_>, flush: bool) -> Poll<io::Result<()>> {
        let mut state = self.0.lock().unwrap();
        state.2 += usize::from(flush);
        match state.0 {
            Writes::Pass => Poll::Ready(Ok(())),
            Writes::Keep if !flush => Poll::Ready(Ok(())),
            Writes::StallAfterOne | Writes::FlushAlone if flush => Poll::Ready(Ok(())),
            Writes::StallAfterOne => {
                state.0 = Writes::FlushAlone;
                Poll::Ready(Ok(()))
            }
            Writes::Fail => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Writes::Keep | Writes::Stall | Writes::FlushAlone => {
                state.1 = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Manner for Switch {
    fn write(&mut self, cx: &mut Context<'_>, src: &[u8]) -> Poll<io::Result<usize>> {
        self.poll(cx, false).map_ok(|()| src.len())
    }

    fn flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        self.poll(cx, true).map_ok(|()| true)
    }
}

/// A transport with a [`Manner`].
pub(crate) struct Gated<T, M = Switch>(pub(crate) T, pub(crate) M);

impl<T: AsyncRead + Unpin, M: Manner> AsyncRead for Gated<T, M> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.1.read(cx))?;
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin, M: Manner> AsyncWrite for Gated<T, M> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, src: &[u8]) -> Poll<io::Result<usize>> {
        let passing = ready!(self.1.write(cx, src))?;
        let written = ready!(Pin::new(&mut self.0).poll_write(cx, &src[..passing]))?;
        self.1.took(&src[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(self.1.flush(cx))? {
            true => Pin::new(&mut self.0).poll_flush(cx),
            false => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.1.shutdown(cx))?;
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

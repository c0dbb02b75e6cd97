//! A transport whose writing half can be held up or broken.

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
    /// The next one passes, and those behind it stall.
    StallAfterOne,
    Fail,
}

/// Sets what becomes of writes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Switch(Arc<Mutex<(Writes, Option<Waker>)>>);

impl Switch {
    pub(crate) fn set(&self, writes: Writes) {
        let mut state = self.0.lock().unwrap();
        state.0 = writes;
        state.1.take().into_iter().for_each(Waker::wake);
    }

    fn poll(&self, cx: &Context<'_>, flush: bool) -> Poll<io::Result<()>> {
        let mut state = self.0.lock().unwrap();
        match state.0 {
            Writes::Pass => Poll::Ready(Ok(())),
            Writes::Keep if !flush => Poll::Ready(Ok(())),
            Writes::StallAfterOne if !flush => {
                state.0 = Writes::Stall;
                Poll::Ready(Ok(()))
            }
            Writes::Fail => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Writes::Keep | Writes::Stall | Writes::StallAfterOne => {
                state.1 = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// A transport behind a [`Switch`].
pub(crate) struct Gated<T>(pub(crate) T, pub(crate) Switch);

impl<T: AsyncRead + Unpin> AsyncRead for Gated<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Gated<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, src: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.1.poll(cx, false))?;
        Pin::new(&mut self.0).poll_write(cx, src)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.1.poll(cx, true))?;
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.1.poll(cx, true))?;
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

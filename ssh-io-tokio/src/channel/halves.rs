//! The parts of a channel that can be handed out apart, and what reads and writes them.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use ssh_proto::adapter::{AdapterRole, Error};
use ssh_proto::{Client, Server, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{ChannelOf, poll_in_turn};

/// A channel's other stream. Cancel-safe as the [channel](ChannelOf); a server's `shutdown` only flushes.
pub struct StderrOf<R: AdapterRole> {
    pub(super) channel: ChannelOf<R>,
}

/// A client's handle on the other stream.
pub type Stderr = StderrOf<Client>;

/// The reading half of a channel. Cancel-safe as the [channel](ChannelOf).
pub struct ReadHalfOf<R: AdapterRole> {
    pub(super) channel: ChannelOf<R>,
}

/// The writing half of a channel. Dropping it ends the input. Cancel-safe as the [channel](ChannelOf).
pub struct WriteHalfOf<R: AdapterRole> {
    pub(super) channel: ChannelOf<R>,
}

macro_rules! halves {
    ($($type:ident)+) => {$(
        impl<R: AdapterRole> $type<R> {
            /// The channel, for requests and for waiting.
            pub fn channel(&self) -> &ChannelOf<R> {
                &self.channel
            }

            fn inner(&mut self) -> &mut ChannelOf<R> {
                &mut self.channel
            }
        }

        impl<R: AdapterRole> fmt::Debug for $type<R> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($type)).field(&self.channel.core.id).finish()
            }
        }
    )+};
}

halves! { StderrOf ReadHalfOf WriteHalfOf }

macro_rules! reader {
    ($type:ident, $stream:expr, $channel:ident) => {
        impl<R: AdapterRole> $type<R> {
            /// Reads what is there, at most `max` bytes of it, without copying it; `None` at the stream's end, where an
            /// ordinary read gives 0.
            ///
            /// The piece keeps the input buffer alive that it arrived in, which may have 256 KiB: whoever keeps pieces for
            /// long copies them.
            ///
            /// Cancel-safe: what was not given was not read.
            ///
            /// # Errors
            /// [`Error::Closed`] and [`Error::Io`] for a lost connection, behind what was received before.
            pub async fn read_chunk(&mut self, max: usize) -> Result<Option<Bytes>, Error> {
                let channel = self.$channel();
                poll_fn(|cx| poll_in_turn(cx, |cx| channel.poll_read_chunk(cx, $stream, max))).await
            }
        }

        impl<R: AdapterRole> AsyncRead for $type<R> {
            fn poll_read(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                poll_in_turn(cx, |cx| self.$channel().poll_read_stream(cx, $stream, buf))
            }
        }
    };
}

/// How a stream's writer shuts down: the data stream's says that no more follows.
macro_rules! writer {
    ([$($role:tt)*] $type:ty, $stream:expr, $channel:ident, $shutdown:ident) => {
        impl<$($role)*> AsyncWrite for $type {
            fn poll_write(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                src: &[u8],
            ) -> Poll<io::Result<usize>> {
                poll_in_turn(cx, |cx| self.$channel().poll_write_stream(cx, $stream, src))
            }

            fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.$channel().poll_flush_output(cx)
            }

            fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.$channel().$shutdown(cx)
            }
        }
    };
}

reader!(ChannelOf, Stream::Data, this);
reader!(ReadHalfOf, Stream::Data, inner);
reader!(StderrOf, Stream::Stderr, inner);
writer!([R: AdapterRole] ChannelOf<R>, Stream::Data, this, poll_end_input);
writer!([R: AdapterRole] WriteHalfOf<R>, Stream::Data, inner, poll_end_input);
// What a client sends on it has no meaning, and servers need not even make room for more.
writer!([] StderrOf<Server>, Stream::Stderr, inner, poll_flush_output);

impl<R: AdapterRole> Drop for WriteHalfOf<R> {
    fn drop(&mut self) {
        let _ = self.channel.finish_input();
    }
}

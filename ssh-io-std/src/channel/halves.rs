//! The parts of a channel that can be handed out apart, and what reads and writes them.

use std::fmt;
use std::io::{self, Read, Write};

use bytes::Bytes;
use ssh_proto::adapter::AdapterRole;
use ssh_proto::{Client, Server, Stream};

use super::ChannelOf;
use crate::error::Error;

/// A channel's other stream.
pub struct StderrOf<R: AdapterRole> {
    pub(super) channel: ChannelOf<R>,
}

/// A client's view of a program's error output.
pub type Stderr = StderrOf<Client>;

/// The reading half of a channel.
pub struct ReadHalfOf<R: AdapterRole> {
    pub(super) channel: ChannelOf<R>,
}

/// The writing half of a channel. Dropping it ends the input.
pub struct WriteHalfOf<R: AdapterRole> {
    pub(super) channel: ChannelOf<R>,
}

macro_rules! halves {
    ($($type:ident)+) => {$(
        impl<R: AdapterRole> $type<R> {
            /// The channel, for requests and timeouts.
            pub fn channel(&self) -> &ChannelOf<R> {
                &self.channel
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

/// Reads a stream, by value and by reference.
macro_rules! reader {
    ($type:ident, $stream:expr, $channel:ident) => {
        impl<R: AdapterRole> $type<R> {
            /// Reads what is there, at most `max` bytes of it, without copying it; `None` at the stream's end, where an
            /// ordinary read gives 0.
            ///
            /// The piece keeps the input buffer alive that it arrived in, which may have 256 KiB: whoever keeps pieces for
            /// long copies them.
            ///
            /// # Errors
            /// [`Error::TimedOut`], and [`Error::Closed`] and [`Error::Io`] for a lost connection, behind what was received
            /// before.
            pub fn read_chunk(&self, max: usize) -> Result<Option<Bytes>, Error> {
                self.$channel().read_piece($stream, max)
            }
        }

        impl<R: AdapterRole> Read for $type<R> {
            fn read(&mut self, dst: &mut [u8]) -> io::Result<usize> {
                (&*self).read(dst)
            }
        }

        impl<R: AdapterRole> Read for &$type<R> {
            fn read(&mut self, dst: &mut [u8]) -> io::Result<usize> {
                Ok(self.$channel().read_stream($stream, dst)?)
            }
        }
    };
}

/// Writes a stream, by value and by reference. What was accepted leaves by itself, and soon; a flush waits for it.
macro_rules! writer {
    ([$($role:tt)*] $type:ty, $stream:expr, $channel:ident) => {
        impl<$($role)*> Write for $type {
            fn write(&mut self, src: &[u8]) -> io::Result<usize> {
                (&*self).write(src)
            }

            fn flush(&mut self) -> io::Result<()> {
                (&*self).flush()
            }
        }

        impl<$($role)*> Write for &$type {
            fn write(&mut self, src: &[u8]) -> io::Result<usize> {
                Ok(self.$channel().write_stream($stream, src)?)
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(self.$channel().flush_output()?)
            }
        }
    };
}

reader!(ChannelOf, Stream::Data, this);
reader!(ReadHalfOf, Stream::Data, channel);
reader!(StderrOf, Stream::Stderr, channel);
writer!([R: AdapterRole] ChannelOf<R>, Stream::Data, this);
writer!([R: AdapterRole] WriteHalfOf<R>, Stream::Data, channel);
// What a client sends on it has no meaning, and servers need not even make room for more.
writer!([] StderrOf<Server>, Stream::Stderr, channel);

impl<R: AdapterRole> Drop for WriteHalfOf<R> {
    fn drop(&mut self) {
        let _ = self.channel.finish_input();
    }
}

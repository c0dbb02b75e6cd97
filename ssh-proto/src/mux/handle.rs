//! The embedder's handle on one channel.

use bytes::Bytes;

use super::Mux;
use super::channel::{ChannelState, Once, StderrMode};
use crate::error::{ReadError, RequestError, UnknownChannel, WriteError};
use crate::event::{ChannelId, EventQueue, Flag, Stream};
use crate::machine::Core;
use crate::msg::Message;
use crate::msg::channel::{ChannelData, ChannelExtendedData, EXTENDED_DATA_STDERR};
use crate::msg::request::ChannelRequestKind;

/// What CHANNEL_DATA has before its data.
const DATA_HEAD: usize = 9;
/// What CHANNEL_EXTENDED_DATA has before its data.
const EXTENDED_DATA_HEAD: usize = 13;

/// A channel of a connection, borrowed for a few calls.
///
/// Reading is what gives the peer its window back; a channel nobody reads stalls only itself.
#[derive(Debug)]
pub struct Channel<'a> {
    core: &'a mut Core,
    id: ChannelId,
}

impl<'a> Channel<'a> {
    pub(crate) fn new(core: &'a mut Core, id: ChannelId) -> Result<Self, UnknownChannel> {
        match core.mux.as_mut().and_then(|mux| mux.get(id)) {
            Some(_) => Ok(Self { core, id }),
            None => Err(UnknownChannel),
        }
    }

    /// The channel's id.
    pub fn id(&self) -> ChannelId {
        self.id
    }

    fn state(&self) -> Option<&ChannelState> {
        let entry = self.core.mux.as_ref()?.slots.get(self.id.slot as usize)?;
        entry.channel.as_ref().filter(|channel| channel.id == self.id)
    }

    fn parts(&mut self) -> Option<(&mut Mux, super::MuxContext<'_>)> {
        self.core.mux_parts()
    }

    /// Takes up to `max` bytes of received data, without copying.
    ///
    /// The slice keeps the input buffer alive that the data arrived in, up to 256 KiB of an
    /// [`InputPool`](crate::InputPool), however short it is, and from now on no bound of the connection counts
    /// it. Let go of it soon. What is to be kept for long is better copied, with
    /// [`read_into`](Self::read_into) or from [`peek`](Self::peek).
    ///
    /// # Errors
    /// [`ReadError::Blocked`] when nothing has arrived; then a `Readable` event follows. After the data:
    /// [`ReadError::Eof`], [`ReadError::Reset`] for a close without EOF, [`ReadError::Lost`] when the connection
    /// is over. To a channel that we [closed](Self::close) first, a close without EOF is an end as any other.
    pub fn read(&mut self, stream: Stream, max: usize) -> Result<Bytes, ReadError> {
        self.take(stream, |mux, id| {
            let (channel, borrow) = mux.reader(id)?;
            let bytes = channel.parked_mut(stream).read(max, borrow);
            Some((bytes.len(), bytes))
        })
    }

    /// Copies received data into `dst`, as much as fits, and says how many bytes. It keeps no input buffer alive.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_into(&mut self, stream: Stream, dst: &mut [u8]) -> Result<usize, ReadError> {
        self.take(stream, |mux, id| {
            let (channel, borrow) = mux.reader(id)?;
            let n = channel.parked_mut(stream).read_into(dst, borrow);
            Some((n, n))
        })
    }

    /// The first contiguous piece of received data; empty when there is none.
    pub fn peek(&self, stream: Stream) -> &[u8] {
        self.state().map(|channel| channel.parked(stream).peek()).unwrap_or_default()
    }

    /// Drops up to `n` bytes of received data, giving their window back: for relays, once they are forwarded.
    pub fn consume(&mut self, stream: Stream, n: usize) {
        let _ = self.take(stream, |mux, id| {
            let (channel, borrow) = mux.reader(id)?;
            Some((channel.parked_mut(stream).consume(n, borrow), ()))
        });
    }

    fn take<T>(
        &mut self,
        stream: Stream,
        take: impl FnOnce(&mut Mux, ChannelId) -> Option<(usize, T)>,
    ) -> Result<T, ReadError> {
        let id = self.id;
        let lost = ReadError::Lost;
        let (mux, _) = self.parts().ok_or(lost)?;
        let channel = mux.find(id).ok_or(lost)?;
        if channel.parked(stream).is_empty() {
            return Err(match channel {
                channel if channel.is_cut(stream) => ReadError::Reset,
                channel if channel.has_ended() => ReadError::Eof,
                channel if channel.close_in => ReadError::Reset,
                _ if mux.lost => lost,
                _ => ReadError::Blocked,
            });
        }
        let (n, taken) = take(mux, id).ok_or(lost)?;
        mux.credit(id, n);
        self.core.pump();
        Ok(taken)
    }

    /// Sets how stderr is delivered from now on, and what becomes of stderr that arrived and was not read yet:
    /// [`StderrMode::Combined`] moves it behind the data that was not read yet, and a `Readable` event of the data
    /// follows if there was none; [`StderrMode::Discard`] drops it, giving its window back. [`StderrMode::Separate`] moves
    /// nothing back: it holds for what arrives later.
    pub fn set_stderr(&mut self, how: StderrMode) {
        let id = self.id;
        let Some((mux, cx)) = self.parts() else { return };
        let lost = mux.lost;
        let Some(channel) = mux.find(id) else { return };
        channel.stderr = how;
        let [data, stderr] = &mut channel.parked;
        match how {
            StderrMode::Separate => {}
            // Where it is, nobody would read it any more, and its window would be lost to the data.
            StderrMode::Combined => {
                // Behind the end of the connection nothing is told.
                let due = !lost && data.is_empty() && !stderr.is_empty();
                data.append(stderr);
                if due {
                    mux.raise(id, Flag::readable(Stream::Data), cx.events);
                }
            }
            StderrMode::Discard => self.consume(Stream::Stderr, usize::MAX),
        }
    }

    /// Sends data: as much of `src` as window and output take now, and says how many bytes that was.
    ///
    /// When that was not all, or nothing, a `Writable` event follows: once more can be taken, or at once when the
    /// stream is ended here before. There is no need to try again first, and no harm in it: whoever was taken less
    /// of than there was is told once, also if another write was taken whole since.
    ///
    /// # Errors
    /// [`WriteError::Blocked`] when nothing was taken of a `src` that is not empty.
    /// [`WriteError::Closed`] after [`eof`](Self::eof), [`close`](Self::close), the peer's close, or the end.
    pub fn write(&mut self, stream: Stream, src: &[u8]) -> Result<usize, WriteError> {
        let id = self.id;
        let (mux, mut cx) = self.parts().ok_or(WriteError::Closed)?;
        let lost = mux.lost;
        let channel = mux.find(id).ok_or(WriteError::Closed)?;
        if lost || channel.eof_out != Once::No || channel.closing() || channel.close_in {
            return Err(WriteError::Closed);
        }
        let mut sent = 0;
        while let Some(rest) = src.get(sent..).filter(|rest| !rest.is_empty() && channel.may_write()) {
            let Some(mut sender) = cx.data_sender() else { break };
            let Some(super::RemoteId(recipient)) = channel.remote else { break };
            let n = rest.len().min(channel.max_packet).min(channel.send.available());
            let (Some(data), Ok(())) = (rest.get(..n), channel.send.spend(n)) else { break };
            sender.send_with(n.saturating_add(EXTENDED_DATA_HEAD), |out| match stream {
                Stream::Data => ChannelData { recipient, data }.encode(out),
                Stream::Stderr => {
                    ChannelExtendedData { recipient, code: EXTENDED_DATA_STDERR, data }.encode(out);
                }
            });
            sent = sent.saturating_add(n);
        }
        if sent < src.len() {
            channel.blocked = true;
            // The window's opener puts it on the ring; without room it waits there from now on.
            if channel.may_write() {
                mux.wait_for_room(id);
            }
        }
        mux.active |= sent > 0;
        if sent > 0 {
            self.core.pump();
        }
        if sent == 0 && !src.is_empty() { Err(WriteError::Blocked) } else { Ok(sent) }
    }

    /// How many bytes a write would take now. Both streams share window and room.
    pub fn capacity(&self, stream: Stream) -> usize {
        let Some(channel) = self.state().filter(|channel| channel.may_write()) else { return 0 };
        // As `write` does it: packets of the largest size, as long as there is any room and no new key due.
        let head = if stream == Stream::Data { DATA_HEAD } else { EXTENDED_DATA_HEAD };
        let (out, payload) = (&self.core.out, channel.max_packet.saturating_add(head));
        let rekey = &self.core.config.common().rekey;
        let packets = self.core.output_room().div_ceil(out.packet_len(payload));
        let packets = packets.min(rekey.packets_left(out.volume(), out.counted_len(payload)));
        channel.send.available().min(packets.saturating_mul(channel.max_packet))
    }

    /// Whether everything accepted so far has become output of the connection: data always has; the confirmation,
    /// requests, answers, EOF and close wait for the end of a key exchange and for room. For who wants to know that
    /// all of it has left. An answer behind a question that is not answered yet waits for that alone, and does not
    /// count.
    pub fn is_drained(&self) -> bool {
        self.state().is_none_or(|channel| {
            let once = [channel.confirm, channel.eof_out, channel.close_out];
            channel.outboxed == 0 && !channel.owed.is_ready() && !once.contains(&Once::Wanted)
        })
    }

    /// Makes a request. Before the channel is confirmed it waits, and leaves behind the confirmation.
    ///
    /// Any request may be made on any channel; it is the peer that refuses what does not fit.
    ///
    /// With `want_reply`, `Reply` events answer such requests in their order.
    ///
    /// # Errors
    /// [`RequestError::Full`] when too many wait; then a `Ready` event follows. All channels that are not confirmed
    /// yet have a quarter of the room together.
    pub fn request(&mut self, kind: &ChannelRequestKind, want_reply: bool) -> Result<(), RequestError> {
        let id = self.id;
        let (mux, mut cx) = self.parts().ok_or(RequestError::Closed)?;
        let result = mux.request(&mut cx, id, kind, want_reply);
        self.core.pump();
        result
    }

    /// Says that no more data follows. It leaves behind everything accepted before.
    ///
    /// # Errors
    /// [`WriteError::Closed`].
    pub fn eof(&mut self) -> Result<(), WriteError> {
        let id = self.id;
        let (mux, cx) = self.parts().ok_or(WriteError::Closed)?;
        let lost = mux.lost;
        let channel = mux.find(id).ok_or(WriteError::Closed)?;
        if lost || channel.eof_out != Once::No || channel.closing() {
            return Err(WriteError::Closed);
        }
        channel.eof_out = Once::Wanted;
        mux.turn_writer_away(id, cx.events);
        mux.touch(id);
        self.core.pump();
        Ok(())
    }

    /// Closes the channel: EOF, then CLOSE, behind everything accepted before. What arrived can still be read, and
    /// ends with [`ReadError::Eof`] once the peer's EOF or CLOSE is there; data that arrives from now on is
    /// dropped.
    pub fn close(&mut self) {
        let id = self.id;
        let Some((mux, cx)) = self.parts() else { return };
        let Some(channel) = mux.find(id) else { return };
        if channel.closing() {
            return;
        }
        if channel.eof_out == Once::No {
            channel.eof_out = Once::Wanted;
        }
        channel.close_out = Once::Wanted;
        channel.done = true;
        mux.turn_writer_away(id, cx.events);
        mux.touch(id);
        self.core.pump();
    }

    /// Closes the channel at once. Requests that did not leave yet and data not read yet are dropped; returns
    /// how many bytes that were. Such requests are answered with no, behind those that did leave. Reads of a stream
    /// that lost data give [`ReadError::Reset`] from now on, others once the peer's CLOSE is there, unless they had
    /// come to their end before.
    pub fn abort(&mut self) -> usize {
        let id = self.id;
        let Some((mux, mut cx)) = self.parts() else { return 0 };
        let mut dropped = mux.outbox.forget(id);
        if let Some(channel) = mux.find(id) {
            for (cut, parked) in channel.cut.iter_mut().zip(&channel.parked) {
                *cut |= !parked.is_empty();
            }
            channel.outboxed = 0;
            channel.awaited.drop_unsent();
            // An end that is there may have been read.
            channel.done &= channel.has_ended();
            if !channel.closing() {
                channel.close_out = Once::Wanted;
            }
        }
        dropped = dropped.saturating_add(mux.drop_parked(id));
        mux.answer_dropped(&mut cx, id);
        mux.turn_writer_away(id, cx.events);
        mux.touch(id);
        self.core.pump();
        dropped
    }

    /// Done with the channel. If it is open, it is aborted; late data is dropped and credited; no event
    /// follows. Its number is used again only after both sides closed it.
    pub fn release(self) {
        let Self { core, id } = self;
        if let Some((mux, cx)) = core.mux_parts() {
            mux.abandon(id);
            mux.release(id);
            cx.events.forget(id);
            core.pump();
        }
    }
}

impl Mux {
    fn reader(&mut self, id: ChannelId) -> Option<(&mut ChannelState, &mut super::BorrowBudget)> {
        let Self { slots, borrow, .. } = self;
        super::slot(slots, id).map(|channel| (channel, borrow))
    }

    /// Our side ended the stream: no window and no room will let a blocked write go on, so its writer is told now,
    /// and finds it closed.
    fn turn_writer_away(&mut self, id: ChannelId, events: &mut EventQueue) {
        // Behind the end of the connection or of the channel nothing is told, and those were.
        let turned_away =
            |channel: &mut ChannelState| !channel.close_in && core::mem::take(&mut channel.blocked);
        if !self.lost && self.find(id).is_some_and(turned_away) {
            self.raise(id, Flag::Writable, events);
        }
    }

    /// Data was consumed: its window may be granted again.
    fn credit(&mut self, id: ChannelId, bytes: usize) {
        let Self { slots, ledger, .. } = self;
        let Some(channel) = super::slot(slots, id) else { return };
        channel.recv.consume(ledger, bytes);
        if channel.recv.wants_adjust() && !channel.eof_in && !channel.close_in && !channel.closing() {
            self.touch(id);
        }
    }
}

//! Those who wait, and how they are woken.
//!
//! Whoever finds nothing to take leaves a waker under the same lock, so that no wake-up is lost. Wakers are
//! other people's code, which may well come back here: they are woken, and dropped, when the lock is open.

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Waker};

use ssh_proto::ChannelId;
use ssh_proto::adapter::AdapterRole;

use crate::shared::Shared;

/// Those who wait for the same thing: any number of handles and calls, each with one waker.
#[derive(Debug, Default)]
pub(crate) struct Waiters(Vec<(u64, Waker)>);

impl Waiters {
    /// Leaves the waker of `who`. What it had left before is given back, to be dropped when the lock is open.
    #[must_use = "to be dropped when the lock is open"]
    pub(crate) fn add<R: AdapterRole>(&mut self, who: &Waiter<R>, cx: &Context<'_>) -> Option<Waker> {
        match self.0.iter_mut().find(|(id, _)| *id == who.id) {
            Some((_, waker)) if waker.will_wake(cx.waker()) => None,
            Some((_, waker)) => Some(mem::replace(waker, cx.waker().clone())),
            None => {
                self.0.push((who.id, cx.waker().clone()));
                None
            }
        }
    }

    fn remove(&mut self, id: u64) -> Option<Waker> {
        let at = self.0.iter().position(|(other, _)| *other == id)?;
        Some(self.0.swap_remove(at).1)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Moves all of them to those to be woken when the lock is open.
    pub(crate) fn wake(&mut self, woken: &mut Wakers) {
        woken.0.extend(self.0.drain(..).map(|(_, waker)| waker));
    }
}

/// Those who are to be woken when the lock is open, and are when this is dropped, be it by a panic: nothing else
/// knows of them any more. Where there is a guard too, this is declared before it.
#[derive(Debug, Default)]
pub(crate) struct Wakers(Vec<Waker>);

impl Wakers {
    /// Wakes them now, and says whether there were any. The memory is kept.
    ///
    /// One that panics is its owner's affair: nobody else is kept from being woken, and the connection goes on. It is
    /// told by the panic hook alone.
    pub(crate) fn wake(&mut self) -> bool {
        let any = !self.0.is_empty();
        for waker in self.0.drain(..) {
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| waker.wake())) {
                // Dropping it may be a panic again.
                mem::forget(payload);
            }
        }
        any
    }
}

impl Drop for Wakers {
    fn drop(&mut self) {
        self.wake();
    }
}

/// The lists of a channel.
#[derive(Debug, Default)]
pub(crate) struct ChannelWaiters {
    /// For data, and for stderr.
    pub(crate) readers: [Waiters; 2],
    pub(crate) writers: Waiters,
    /// For anything else.
    pub(crate) others: Waiters,
}

impl ChannelWaiters {
    fn lists(&mut self) -> [&mut Waiters; 4] {
        let [data, stderr] = &mut self.readers;
        [data, stderr, &mut self.writers, &mut self.others]
    }

    pub(crate) fn wake(&mut self, woken: &mut Wakers) {
        self.lists().into_iter().for_each(|list| list.wake(woken));
    }
}

/// A place among those who wait, of one handle or one call. What it leaves in the lists goes with it.
pub(crate) struct Waiter<R: AdapterRole> {
    shared: Arc<Shared<R>>,
    channel: Option<ChannelId>,
    id: u64,
}

impl<R: AdapterRole> Waiter<R> {
    /// A place in the lists of a channel, or in that of the connection.
    pub(crate) fn new(shared: &Arc<Shared<R>>, channel: Option<ChannelId>) -> Self {
        Self { shared: Arc::clone(shared), channel, id: shared.number() }
    }
}

impl<R: AdapterRole> Drop for Waiter<R> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        let others = [state.flushers.remove(self.id), state.enders.remove(self.id)];
        let left = match self.channel {
            None => [state.waiters.remove(self.id), None, None, None],
            Some(channel) => match state.channels.get_mut(channel) {
                Some(news) => news.waiters.lists().map(|list| list.remove(self.id)),
                None => Default::default(),
            },
        };
        drop(state);
        drop((left, others));
    }
}

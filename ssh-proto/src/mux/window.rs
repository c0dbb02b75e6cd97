//! Flow control: the peer's window for what we send, and the ledger of what we grant.

use crate::error::PeerMisbehaved;
use crate::transport::MAX_DATA;

/// The peer's window is smaller than what was to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WindowShort;

/// What the peer lets us send, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    available: u32,
    /// Sent, and not given back by an adjust yet.
    outstanding: u32,
}

impl Window {
    pub(crate) fn new(bytes: u32) -> Self {
        Self { available: bytes, outstanding: 0 }
    }

    pub(crate) fn available(self) -> usize {
        self.available as usize
    }

    pub(crate) fn outstanding(self) -> u32 {
        self.outstanding
    }

    /// Takes so many bytes, or none when there are fewer.
    pub(crate) fn spend(&mut self, bytes: usize) -> Result<(), WindowShort> {
        let bytes = u32::try_from(bytes).map_err(|_| WindowShort)?;
        self.available = self.available.checked_sub(bytes).ok_or(WindowShort)?;
        self.outstanding = self.outstanding.saturating_add(bytes);
        Ok(())
    }

    /// WINDOW_ADJUST. CVE-2025-54804: the sum must not exceed 2^32 - 1, and is not clipped to it either.
    pub(crate) fn grow(&mut self, bytes: u32) -> Result<(), PeerMisbehaved> {
        self.available = self.available.checked_add(bytes).ok_or(PeerMisbehaved::WindowOverflow)?;
        self.outstanding = self.outstanding.saturating_sub(bytes);
        Ok(())
    }
}

/// How the receive budget is split over channels: every channel has a floor reserved for it, and takes
/// turns at a shared rest.
#[derive(Debug)]
pub(crate) struct Ledger {
    floor: usize,
    free: usize,
}

impl Ledger {
    /// `budget` is at least `channels × floor`; the configuration made sure of it.
    pub(crate) fn new(budget: usize, channels: usize, floor: usize) -> Self {
        Self { floor, free: budget.saturating_sub(channels.saturating_mul(floor)) }
    }

    /// What a channel holding `extra` of the rest may hold of it: an eighth of what would be free without it.
    fn share(&self, extra: usize) -> usize {
        self.free.saturating_add(extra) / 8
    }
}

/// What we grant the peer on one channel. `credit + held ≤ target ≤ floor + extra`.
#[derive(Debug)]
pub(crate) struct RecvWindow {
    /// The window aimed at.
    target: usize,
    /// The part of it that comes from the ledger's rest.
    extra: usize,
    /// Never more than this.
    max: usize,
    /// Granted, not received yet.
    credit: usize,
    /// Received, not consumed yet.
    held: usize,
    /// How far a lenient connection lets a peer go beyond its window.
    overdraft: usize,
    lenient: bool,
}

impl RecvWindow {
    /// Takes a first window from the ledger.
    pub(crate) fn open(ledger: &mut Ledger, max: usize, lenient: bool) -> Self {
        let max = max.clamp(1, u32::MAX as usize);
        let extra = max.saturating_sub(ledger.floor).min(ledger.share(0));
        ledger.free = ledger.free.saturating_sub(extra);
        let target = max.min(ledger.floor.saturating_add(extra));
        let mut window = Self { target, extra, max, credit: target, held: 0, overdraft: 0, lenient };
        window.overdraft = window.allowance();
        window
    }

    /// The window as it is announced with the open.
    pub(crate) fn initial(&self) -> u32 {
        u32::try_from(self.credit).unwrap_or(u32::MAX)
    }

    /// Bytes of window granted and bytes held: what the channel may cost.
    pub(crate) fn granted(&self) -> usize {
        self.credit.saturating_add(self.held)
    }

    /// Data arrived.
    pub(crate) fn receive(&mut self, bytes: usize) -> Result<(), PeerMisbehaved> {
        match self.credit.checked_sub(bytes) {
            Some(rest) => self.credit = rest,
            None => {
                let beyond = bytes.saturating_sub(self.credit);
                self.overdraft = self.overdraft.checked_sub(beyond).ok_or(PeerMisbehaved::WindowExceeded)?;
                self.credit = 0;
            }
        }
        self.held = self.held.saturating_add(bytes);
        Ok(())
    }

    /// Data was read or discarded: its room may be granted again, and the target follows the appetite.
    pub(crate) fn consume(&mut self, ledger: &mut Ledger, bytes: usize) {
        self.held = self.held.saturating_sub(bytes);
        let share = ledger.share(self.extra);
        let wanted = self.max.saturating_sub(ledger.floor).min(share);
        if self.extra < wanted {
            let more = bytes.min(wanted.saturating_sub(self.extra)).min(ledger.free);
            ledger.free = ledger.free.saturating_sub(more);
            self.extra = self.extra.saturating_add(more);
        } else if self.extra > share {
            let less = bytes.min(self.extra.saturating_sub(share));
            ledger.free = ledger.free.saturating_add(less);
            self.extra = self.extra.saturating_sub(less);
        }
        self.target = self.max.min(ledger.floor.saturating_add(self.extra));
    }

    /// The bytes to announce now, if it is worth a message: after three packets or an eighth of the window,
    /// at half of a small one, and always when the peer has nothing left.
    pub(crate) fn adjust(&mut self) -> Option<u32> {
        let due = self.due()?;
        self.credit = self.credit.saturating_add(due);
        self.overdraft = self.allowance();
        u32::try_from(due).ok()
    }

    /// Whether [`adjust`](Self::adjust) would announce anything.
    pub(crate) fn wants_adjust(&self) -> bool {
        self.due().is_some()
    }

    fn due(&self) -> Option<usize> {
        let due = self.target.saturating_sub(self.granted());
        let enough = (3 * MAX_DATA).max(self.target / 8).min(self.target / 2);
        (due > 0 && (due >= enough || self.credit == 0)).then_some(due)
    }

    fn allowance(&self) -> usize {
        if self.lenient { self.target / 10 } else { 0 }
    }

    /// The channel is done with: its part goes back.
    pub(crate) fn close(&mut self, ledger: &mut Ledger) {
        ledger.free = ledger.free.saturating_add(core::mem::take(&mut self.extra));
        (self.credit, self.held, self.target) = (0, 0, 0);
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ch_01_a_window_beyond_32_bits_is_an_error_not_a_limit() {
        let mut window = Window::new(u32::MAX - 1);
        assert_eq!(window.grow(1), Ok(()));
        assert_eq!(window.grow(1), Err(PeerMisbehaved::WindowOverflow));
    }

    #[test]
    fn ch_03_no_more_is_spent_than_there_is() {
        let mut window = Window::new(u32::MAX);
        assert_eq!(window.spend(1 << 40), Err(WindowShort));
        assert_eq!(window.spend(u32::MAX as usize - 1), Ok(()));
        assert_eq!(window.spend(2), Err(WindowShort));
        assert_eq!((window.available(), window.outstanding()), (1, u32::MAX - 1));
        assert_eq!(window.spend(1), Ok(()));
        assert_eq!((window.available(), window.outstanding()), (0, u32::MAX));
    }

    #[test]
    fn a_small_window_is_renewed_at_its_half_and_an_empty_one_at_once() {
        let mut ledger = Ledger::new(1 << 20, 1, 1024);
        let mut recv = RecvWindow::open(&mut ledger, 1000, false);
        assert_eq!(recv.initial(), 1000);
        recv.receive(600).unwrap();
        recv.consume(&mut ledger, 499);
        assert_eq!(recv.adjust(), None);
        recv.consume(&mut ledger, 1);
        assert_eq!(recv.adjust(), Some(500));
        recv.receive(900).unwrap();
        recv.consume(&mut ledger, 1);
        assert_eq!(recv.adjust(), Some(1));
    }

    #[test]
    fn ch_02_a_byte_beyond_the_window_is_an_error_unless_leniency_covers_it() {
        let mut ledger = Ledger::new(1 << 20, 1, 1024);
        let mut strict = RecvWindow::open(&mut ledger, 1000, false);
        assert_eq!(strict.receive(1001), Err(PeerMisbehaved::WindowExceeded));
        let mut lenient = RecvWindow::open(&mut ledger, 1000, true);
        assert_eq!(lenient.receive(1100), Ok(()));
        assert_eq!(lenient.receive(1), Err(PeerMisbehaved::WindowExceeded));
    }

    proptest! {
        /// What went beyond the window is taken off what is granted later, and a lenient window is exceeded by
        /// no more than its tenth at any time.
        #[test]
        fn ch_02_no_peer_gets_more_in_sum_than_its_window_and_what_was_consumed(
            lenient: bool,
            ops in prop::collection::vec((0..4u8, 0..1000usize), 0..100),
        ) {
            const WINDOW: usize = 1000;
            let tenth = if lenient { WINDOW / 10 } else { 0 };
            let mut ledger = Ledger::new(1 << 20, 1, WINDOW);
            let mut recv = RecvWindow::open(&mut ledger, WINDOW, lenient);
            let (mut granted, mut received, mut beyond, mut consumed) = (recv.credit, 0, 0, 0);
            // How far this window was exceeded.
            let mut exceeded = 0;
            for (op, amount) in ops {
                match op {
                    0 | 1 => {
                        // Somewhere in the window, or about at its end.
                        let amount = if op == 0 { amount } else { recv.credit + amount % (tenth + 2) };
                        let over = amount.saturating_sub(recv.credit);
                        match recv.receive(amount) {
                            Ok(()) => prop_assert!(exceeded + over <= tenth),
                            Err(rule) => {
                                prop_assert_eq!(rule, PeerMisbehaved::WindowExceeded);
                                prop_assert!(exceeded + over > tenth);
                                // The connection is over.
                                return Ok(());
                            }
                        }
                        received += amount;
                        exceeded += over;
                        beyond += over;
                    }
                    2 => {
                        let amount = amount.min(recv.held);
                        recv.consume(&mut ledger, amount);
                        consumed += amount;
                    }
                    _ => {
                        if let Some(bytes) = recv.adjust() {
                            granted += bytes as usize;
                            exceeded = 0;
                            prop_assert!(granted + beyond <= WINDOW + consumed);
                        }
                    }
                }
                prop_assert!(received <= WINDOW + consumed + tenth);
                prop_assert!(lenient || received <= granted);
                prop_assert!(recv.granted() <= WINDOW + tenth);
            }
        }

        #[test]
        fn the_ledger_never_grants_more_than_the_budget(ops: Vec<(u8, u16)>) {
            const BUDGET: usize = 200_000;
            let mut ledger = Ledger::new(BUDGET, 8, 4096);
            let mut open: Vec<RecvWindow> = Vec::new();
            for (op, amount) in ops {
                let amount = usize::from(amount);
                match op % 4 {
                    0 if open.len() < 8 => open.push(RecvWindow::open(&mut ledger, amount * 4, false)),
                    1 if !open.is_empty() => {
                        let at = amount % open.len();
                        open.swap_remove(at).close(&mut ledger);
                    }
                    _ if open.is_empty() => {}
                    op => {
                        let at = usize::from(op) % open.len();
                        let n = amount.min(open[at].credit);
                        open[at].receive(n).unwrap();
                        if op == 2 {
                            open[at].consume(&mut ledger, n);
                        } else {
                            let held = open[at].held;
                            open[at].consume(&mut ledger, held);
                        }
                        open[at].adjust();
                        prop_assert!(open[at].credit > 0 || open[at].held > 0, "a drained channel has window");
                    }
                }
                prop_assert!(open.iter().map(RecvWindow::granted).sum::<usize>() <= BUDGET);
                let extra: usize = open.iter().map(|recv| recv.extra).sum();
                prop_assert_eq!(ledger.free + extra, BUDGET - 8 * 4096);
            }
        }
    }
}

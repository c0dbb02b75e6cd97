//! How many clients may be connected without having logged in.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use core::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};

/// Bounds the connections that are not authenticated yet, in total and per address.
///
/// A server asks for a [`Startup`] when it accepts a client, and drops it when the client is authenticated or
/// gone. The idea is that of OpenSSH's `MaxStartups` and `PerSourceMaxStartups`: whoever knocks often keeps only
/// itself from being served. Clones count together.
///
/// IPv6 addresses count by their /64, which is what one customer usually has; IPv4 addresses in IPv6 clothes
/// count as IPv4.
#[derive(Debug, Clone)]
pub struct Startups {
    max: usize,
    max_per_address: usize,
    counts: Arc<Mutex<Counts>>,
}

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    // Never more entries than `total`.
    by_address: BTreeMap<IpAddr, usize>,
}

/// The place of one client that has not logged in. Dropped, it is free again.
#[derive(Debug)]
#[must_use = "dropped, it does not count"]
pub struct Startup {
    from: Option<IpAddr>,
    counts: Arc<Mutex<Counts>>,
}

impl Startups {
    /// How many unauthenticated connections there may be by default.
    pub const MAX: usize = 64;
    /// How many of them from one address by default.
    pub const MAX_PER_ADDRESS: usize = 8;

    /// Allows `max` in all, and `max_per_address` from one address.
    pub fn new(max: usize, max_per_address: usize) -> Self {
        Self { max, max_per_address, counts: Arc::default() }
    }

    /// A place for a client. `from` is `None` where there are no addresses, as on a Unix socket: such clients
    /// only count in total.
    ///
    /// # Errors
    /// [`StartupRefused`].
    pub fn begin(&self, from: Option<IpAddr>) -> Result<Startup, StartupRefused> {
        let from = from.map(source);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.total >= self.max {
            return Err(StartupRefused::Total);
        }
        if let Some(source) = from {
            let count = counts.by_address.get(&source).copied().unwrap_or(0);
            if count >= self.max_per_address {
                return Err(StartupRefused::Address);
            }
            counts.by_address.insert(source, count.saturating_add(1));
        }
        counts.total = counts.total.saturating_add(1);
        Ok(Startup { from, counts: Arc::clone(&self.counts) })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).total
    }
}

impl Drop for Startup {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.total = counts.total.saturating_sub(1);
        if let Some(source) = self.from
            && let Some(count) = counts.by_address.get_mut(&source)
        {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.by_address.remove(&source);
            }
        }
    }
}

impl Default for Startups {
    fn default() -> Self {
        Self::new(Self::MAX, Self::MAX_PER_ADDRESS)
    }
}

/// Which bound of [`Startups`] is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartupRefused {
    /// The one on all.
    Total,
    /// The one on this address.
    Address,
}

/// What counts as one address.
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> Option<IpAddr> {
        Some(address.parse().unwrap())
    }

    #[test]
    fn one_address_cannot_take_the_places_of_others() {
        let startups = Startups::new(4, 2);
        let first = startups.begin(at("192.0.2.1")).unwrap();
        let _second = startups.begin(at("192.0.2.1")).unwrap();
        assert_eq!(startups.begin(at("192.0.2.1")).unwrap_err(), StartupRefused::Address);
        assert_eq!(startups.begin(at("::ffff:192.0.2.1")).unwrap_err(), StartupRefused::Address);
        let _other = startups.begin(at("192.0.2.2")).unwrap();
        let _unix = startups.begin(None).unwrap();
        assert_eq!(startups.begin(at("192.0.2.3")).unwrap_err(), StartupRefused::Total);
        assert_eq!(startups.begin(None).unwrap_err(), StartupRefused::Total);
        drop(first);
        let _again = startups.begin(at("192.0.2.1")).unwrap();
        assert_eq!(startups.clone().count(), 4);
    }

    #[test]
    fn an_ipv6_network_counts_as_one() {
        let startups = Startups::new(4, 1);
        let _first = startups.begin(at("2001:db8::1")).unwrap();
        assert_eq!(startups.begin(at("2001:db8::2:1")).unwrap_err(), StartupRefused::Address);
        let _other = startups.begin(at("2001:db8:0:1::1")).unwrap();
    }

    #[test]
    fn nothing_is_kept_of_those_who_left_or_were_refused() {
        let startups = Startups::new(8, 1);
        for last in 0..=255u8 {
            let place = startups.begin(Some(IpAddr::from([192, 0, 2, last]))).unwrap();
            assert!(startups.begin(Some(IpAddr::from([192, 0, 2, last]))).is_err());
            drop(place);
        }
        assert!(startups.counts.lock().unwrap().by_address.is_empty());
        assert_eq!(startups.count(), 0);
        let closed = Startups::new(1, 0);
        assert_eq!(closed.begin(at("192.0.2.1")).unwrap_err(), StartupRefused::Address);
        assert!(closed.counts.lock().unwrap().by_address.is_empty());
    }
}

//! How many clients may be connected without having logged in.

use alloc::collections::BTreeMap;
use core::net::{IpAddr, Ipv6Addr};

/// Bounds the connections that are not authenticated yet, in total and per address.
///
/// A server counts a client in with [`begin`](Self::begin) when it accepts it, and out with
/// [`end`](Self::end) when it is authenticated or gone. The idea is that of OpenSSH's `MaxStartups` and
/// `PerSourceMaxStartups`: whoever knocks often keeps only itself from being served.
///
/// IPv6 addresses count by their /64, which is what one customer usually has; IPv4 addresses in IPv6 clothes
/// count as IPv4.
#[derive(Debug, Clone)]
pub struct Startups {
    max: usize,
    max_per_address: usize,
    total: usize,
    // Never more entries than `total`.
    by_address: BTreeMap<IpAddr, usize>,
}

impl Startups {
    /// How many unauthenticated connections there may be by default.
    pub const MAX: usize = 64;
    /// How many of them from one address by default.
    pub const MAX_PER_ADDRESS: usize = 8;

    /// Allows `max` in all, and `max_per_address` from one address.
    pub fn new(max: usize, max_per_address: usize) -> Self {
        Self { max, max_per_address, total: 0, by_address: BTreeMap::new() }
    }

    /// Counts a client in. `from` is `None` where there are no addresses, as on a Unix socket: such clients
    /// only count in total.
    ///
    /// # Errors
    /// [`StartupRefused`]; the client is then not counted.
    pub fn begin(&mut self, from: Option<IpAddr>) -> Result<(), StartupRefused> {
        if self.total >= self.max {
            return Err(StartupRefused::Total);
        }
        if let Some(source) = from.map(source) {
            let count = self.by_address.entry(source).or_insert(0);
            if *count >= self.max_per_address {
                if *count == 0 {
                    self.by_address.remove(&source);
                }
                return Err(StartupRefused::Address);
            }
            *count += 1;
        }
        self.total += 1;
        Ok(())
    }

    /// Counts a client out that was counted in with the same address.
    pub fn end(&mut self, from: Option<IpAddr>) {
        self.total = self.total.saturating_sub(1);
        if let Some(source) = from.map(source)
            && let Some(count) = self.by_address.get_mut(&source)
        {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&source);
            }
        }
    }

    /// How many are counted in.
    pub fn count(&self) -> usize {
        self.total
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
        let mut startups = Startups::new(4, 2);
        assert_eq!(startups.begin(at("192.0.2.1")), Ok(()));
        assert_eq!(startups.begin(at("192.0.2.1")), Ok(()));
        assert_eq!(startups.begin(at("192.0.2.1")), Err(StartupRefused::Address));
        assert_eq!(startups.begin(at("::ffff:192.0.2.1")), Err(StartupRefused::Address));
        assert_eq!(startups.begin(at("192.0.2.2")), Ok(()));
        assert_eq!(startups.begin(None), Ok(()));
        assert_eq!(startups.begin(at("192.0.2.3")), Err(StartupRefused::Total));
        assert_eq!(startups.begin(None), Err(StartupRefused::Total));
        startups.end(at("192.0.2.1"));
        assert_eq!(startups.begin(at("192.0.2.1")), Ok(()));
        assert_eq!(startups.count(), 4);
    }

    #[test]
    fn an_ipv6_network_counts_as_one() {
        let mut startups = Startups::new(4, 1);
        assert_eq!(startups.begin(at("2001:db8::1")), Ok(()));
        assert_eq!(startups.begin(at("2001:db8::2:1")), Err(StartupRefused::Address));
        assert_eq!(startups.begin(at("2001:db8:0:1::1")), Ok(()));
    }

    #[test]
    fn nothing_is_kept_of_those_who_left() {
        let mut startups = Startups::new(8, 8);
        for last in 0..=255u8 {
            let from = Some(IpAddr::from([192, 0, 2, last]));
            startups.begin(from).unwrap();
            startups.end(from);
        }
        assert!(startups.by_address.is_empty());
        assert_eq!(startups.count(), 0);
        // A limit of none refuses, and keeps nothing of it.
        let mut closed = Startups::new(1, 0);
        assert_eq!(closed.begin(at("192.0.2.1")), Err(StartupRefused::Address));
        assert!(closed.by_address.is_empty());
    }

    #[test]
    fn leaving_without_having_come_counts_nothing() {
        let mut startups = Startups::new(1, 1);
        startups.end(at("192.0.2.1"));
        startups.end(None);
        assert_eq!(startups.begin(at("192.0.2.1")), Ok(()));
        assert_eq!(startups.begin(at("192.0.2.1")), Err(StartupRefused::Total));
    }
}

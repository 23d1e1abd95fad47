//! One bucket for every client address, in bounded memory.

use core::net::{IpAddr, Ipv6Addr};
use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::{Bucket, Exceeded, Limited, Rate};

/// Addresses that are remembered at once: about 5 MiB. More clients than this at the same moment are a flood that only
/// the network can stop, or more than one collector's connections.
const MOST: usize = 65_536;

/// Which part of the addresses makes room when all of them are in use.
const MAKE_ROOM: usize = 8;

/// Whom an address belongs to: an IPv4 address itself, of an IPv6 address the /64 that one subscriber has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Origin(IpAddr);

impl From<IpAddr> for Origin {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => IpAddr::V4(address),
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        })
    }
}

/// The buckets of all clients.
#[derive(Debug)]
pub(crate) struct Clients {
    most: usize,
    buckets: HashMap<Origin, Bucket>,
}

impl Default for Clients {
    fn default() -> Self {
        Self::new(MOST)
    }
}

impl Clients {
    /// At most `most` addresses are remembered.
    #[must_use]
    pub(crate) fn new(most: usize) -> Self {
        Self { most: most.max(1), buckets: HashMap::new() }
    }

    /// Takes one request of `client`.
    ///
    /// # Errors
    /// If its limit is reached.
    pub(crate) fn take(&mut self, client: Origin, rate: Rate, now: Instant) -> Result<(), Exceeded> {
        if self.buckets.len() >= self.most && !self.buckets.contains_key(&client) {
            self.make_room(now);
        }
        let bucket = self.buckets.entry(client).or_default();
        let taken = bucket.take(rate, 1, now);
        taken.map_err(|wait| Exceeded { limited: Limited::Client, per_second: rate.per_second(), wait })
    }

    /// Forgets the full buckets, which are the same as none. If there are hardly any, those that have been used least:
    /// whoever is being held back stays so.
    fn make_room(&mut self, now: Instant) {
        self.buckets.retain(|_, bucket| !bucket.until_full(now).is_zero());
        let keep = self.most - self.most.div_ceil(MAKE_ROOM);
        if self.buckets.len() <= keep {
            return;
        }
        let mut used: Vec<(Duration, Origin)> =
            self.buckets.iter().map(|(client, bucket)| (bucket.until_full(now), *client)).collect();
        let forget = used.len() - keep;
        used.select_nth_unstable(forget - 1);
        for (_, client) in &used[..forget] {
            self.buckets.remove(client);
        }
    }

    /// How many are remembered.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.buckets.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(number: u32) -> Origin {
        Origin::from(IpAddr::V4(number.into()))
    }

    #[test]
    fn clients_do_not_cost_each_other_anything() {
        let (mut clients, rate, now) = (Clients::default(), Rate::new(1, 2), Instant::now());
        (0..2).for_each(|_| clients.take(v4(1), rate, now).unwrap());
        assert_eq!(clients.take(v4(1), rate, now).unwrap_err().retry_after(), 1);
        assert!(clients.take(v4(2), rate, now).is_ok());
    }

    #[test]
    fn addresses_of_one_subscriber_are_one_client() {
        let origin = |text: &str| Origin::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(origin("2001:db8:1:2::1"), origin("2001:db8:1:2:ffff::"));
        assert_ne!(origin("2001:db8:1:2::1"), origin("2001:db8:1:3::1"));
        assert_eq!(origin("::ffff:10.1.2.3"), origin("10.1.2.3"));
        assert_ne!(origin("10.1.2.3"), origin("10.1.2.4"));
    }

    #[test]
    fn memory_is_bounded_and_a_client_that_is_held_back_stays_so() {
        let (mut clients, rate, now) = (Clients::new(100), Rate::new(1, 5), Instant::now());
        let busy = v4(7);
        while clients.take(busy, rate, now).is_ok() {}
        for number in 1000..10_000 {
            clients.take(v4(number), rate, now).unwrap();
            assert!(clients.len() <= 100);
        }
        assert!(clients.take(busy, rate, now).is_err(), "a flood of others does not set it free");
    }

    #[test]
    fn clients_that_have_gone_are_forgotten_first() {
        let (mut clients, rate, now) = (Clients::new(10), Rate::new(1, 1), Instant::now());
        (0..10).for_each(|number| clients.take(v4(number), rate, now).unwrap());
        clients.take(v4(99), rate, now + Duration::from_secs(5)).unwrap();
        assert_eq!(clients.len(), 1);
    }
}

//! Buckets of client addresses, in bounded memory.

use core::net::{IpAddr, Ipv6Addr};
use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::{LimitKind, RateLimitExceeded, TokenBucket, TokenRate};

/// Addresses that are tracked at once, about 5 MiB. More clients at the same moment are a flood that only the network
/// can stop, or exceed the connections of one collector.
const MAX_CLIENTS: usize = 65_536;

/// Divisor of [`MAX_CLIENTS`]: the part that is evicted when every tracked address is in use.
const EVICT_FRACTION: usize = 8;

/// Key of a client: an IPv4 address, or the /64 of an IPv6 address, which one subscriber has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ClientKey(IpAddr);

impl From<IpAddr> for ClientKey {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => IpAddr::V4(address),
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        })
    }
}

/// Buckets of all clients.
#[derive(Debug)]
pub(crate) struct ClientBuckets {
    max_clients: usize,
    buckets: HashMap<ClientKey, TokenBucket>,
}

impl Default for ClientBuckets {
    fn default() -> Self {
        Self::new(MAX_CLIENTS)
    }
}

impl ClientBuckets {
    /// Creates a table of at most `max_clients` addresses.
    #[must_use]
    pub(crate) fn new(max_clients: usize) -> Self {
        Self { max_clients: max_clients.max(1), buckets: HashMap::new() }
    }

    /// Takes the token of one request of `client`.
    ///
    /// # Errors
    /// If its limit is exceeded.
    pub(crate) fn take(&mut self, client: ClientKey, rate: TokenRate, now: Instant) -> Result<(), RateLimitExceeded> {
        if self.buckets.len() >= self.max_clients && !self.buckets.contains_key(&client) {
            self.evict(now);
        }
        let bucket = self.buckets.entry(client).or_default();
        let taken = bucket.take(rate, 1, now);
        taken.map_err(|wait| RateLimitExceeded { limit: LimitKind::Client, per_second: rate.per_second(), wait })
    }

    /// Removes the full buckets, which need no entry. If that frees too little, also removes those that are used least,
    /// so that a client that is held back stays so.
    fn evict(&mut self, now: Instant) {
        self.buckets.retain(|_, bucket| !bucket.until_full(now).is_zero());
        let keep = self.max_clients - self.max_clients.div_ceil(EVICT_FRACTION);
        if self.buckets.len() <= keep {
            return;
        }
        let mut used: Vec<(Duration, ClientKey)> =
            self.buckets.iter().map(|(client, bucket)| (bucket.until_full(now), *client)).collect();
        let evicted = used.len() - keep;
        used.select_nth_unstable(evicted - 1);
        for (_, client) in &used[..evicted] {
            self.buckets.remove(client);
        }
    }

    /// Returns the number of tracked addresses.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.buckets.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(number: u32) -> ClientKey {
        ClientKey::from(IpAddr::V4(number.into()))
    }

    #[test]
    fn clients_do_not_cost_each_other_anything() {
        let (mut clients, rate, now) = (ClientBuckets::default(), TokenRate::new(1, 2), Instant::now());
        (0..2).for_each(|_| clients.take(v4(1), rate, now).unwrap());
        assert_eq!(clients.take(v4(1), rate, now).unwrap_err().retry_after(), 1);
        assert!(clients.take(v4(2), rate, now).is_ok());
    }

    #[test]
    fn addresses_of_one_subscriber_are_one_client() {
        let origin = |text: &str| ClientKey::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(origin("2001:db8:1:2::1"), origin("2001:db8:1:2:ffff::"));
        assert_ne!(origin("2001:db8:1:2::1"), origin("2001:db8:1:3::1"));
        assert_eq!(origin("::ffff:10.1.2.3"), origin("10.1.2.3"));
        assert_ne!(origin("10.1.2.3"), origin("10.1.2.4"));
    }

    #[test]
    fn memory_is_bounded_and_a_client_that_is_held_back_stays_so() {
        let (mut clients, rate, now) = (ClientBuckets::new(100), TokenRate::new(1, 5), Instant::now());
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
        let (mut clients, rate, now) = (ClientBuckets::new(10), TokenRate::new(1, 1), Instant::now());
        (0..10).for_each(|number| clients.take(v4(number), rate, now).unwrap());
        clients.take(v4(99), rate, now + Duration::from_secs(5)).unwrap();
        assert_eq!(clients.len(), 1);
    }
}

//! `trusted_proxies`: networks whose `X-Forwarded-For` is trusted.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// A network in CIDR notation; an address alone is a network of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(IpNet);

impl FromStr for Network {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "must be networks such as \"127.0.0.1/32\", \"10.0.0.0/8\" or \"fd00::/8\"";
        let network: IpNet = if text.contains('/') {
            text.parse().map_err(|_| FORM)?
        } else {
            text.parse::<IpAddr>().map_err(|_| FORM)?.into()
        };
        if network.addr() != network.network() {
            return Err("has bits set beyond the length of its network");
        }
        Ok(Self(network))
    }
}

impl Network {
    /// Returns whether `address` is in it. An IPv4 address that is written as IPv6 counts as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_contains_its_addresses_only() {
        for (network, address, inside) in [
            ("127.0.0.1/32", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.0.0.0/8", "::ffff:10.1.1.1", true),
            ("0.0.0.0/0", "255.1.2.3", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "::1", true),
            ("fd00::/8", "fdff::1", true),
            ("fd00::/8", "fe00::1", false),
            ("::1", "::1", true),
            ("::1/128", "::2", false),
        ] {
            assert_eq!(network.parse::<Network>().unwrap().contains(address.parse().unwrap()), inside, "{network}");
        }
    }

    #[test]
    fn other_forms_are_refused() {
        for text in ["", "localhost", "10.0.0.0/33", "10.0.0.1/8", "10.0.0.0/+8", "10.0.0.0/", "::/129", "1.2.3/8"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}

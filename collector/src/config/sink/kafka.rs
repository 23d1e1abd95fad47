//! `[[sink]] kind = "kafka"`.

use serde::Deserialize;

use super::super::text::Text;
use super::{Delivery, Settings};

/// A Kafka cluster.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kafka {
    url: Text,
}

impl Kafka {
    /// The brokers to begin with, `HOST:PORT`, separated by commas.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Kafka batches by itself; the wait is short because others wait behind it.
    pub(super) fn delivery() -> Delivery {
        Delivery::of(10_000, 16 * 1024 * 1024, 100)
    }
}

impl Settings for Kafka {
    fn check(&mut self) -> Result<(), (&'static str, String)> {
        let broker = |broker: &str| {
            broker.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        };
        if self.url.split(',').all(|text| broker(text.trim())) {
            Ok(())
        } else {
            Err(("url", "must be brokers as HOST:PORT, separated by commas".into()))
        }
    }
}

//! Native binding of the Subway SDK: for Kotlin, Swift and Python through uniffi, and for Rust hosts directly.
//!
//! ```text
//! host's threads --track()--> queue --> driver thread: Client + SqliteStore --> upload thread --> collector
//!                 (never waits)          (one transaction per round)             (may take its time)
//! ```
//!
//! All decisions are the core's (`subway-sdk-core`); this crate gives it a disk ([`store`]), a network ([`transport`]),
//! clocks ([`clock`]) and a thread.
//!
//! ```no_run
//! use std::time::Duration;
//! use subway_mobile::{Config, Subway, Theme, TrackEvent};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let subway = Subway::open(Config {
//!     data_dir: Some("/var/lib/kiosk/subway".into()),
//!     device: subway_mobile::desktop_device(),
//!     ..Config::new("https://collect.example", "demo")
//! })?;
//! subway.track(TrackEvent::new(Theme::View, "page_view"))?;
//! subway.close(Duration::from_secs(2));
//! # Ok(())
//! # }
//! ```

pub mod clock;
mod command_queue;
mod device;
mod driver;
mod error;
pub mod store;
mod subway;
pub mod transport;
mod types;
mod uploader;

pub use device::desktop_device;
pub use error::{OpenError, TrackError};
pub use subway::Subway;
pub use subway_sdk_core as core;
pub use types::{
    Config, Consent, DeviceInfo, HostInfo, LastUpload, Ledger, Page, Settings, Theme, TrackEvent, default_config,
};

uniffi::setup_scaffolding!();

//! The mini-program face of the Subway SDK.
mod crc32;
pub mod gzip;
pub mod store;

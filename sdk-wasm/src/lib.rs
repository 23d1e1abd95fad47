//! The mini-program face of the Subway SDK: wasm-bindgen exports for `js/src/sdk.js`, and the store on a host's storage.
//!
//! # Architecture invariants
//! The exports are few and take texts and numbers only: every further one costs glue in each package, and other types
//! cost more. No serde_json, no formatting machinery, no floating-point parsing: the whole JD package has 20 KB.

#[cfg(target_arch = "wasm32")]
mod alloc;
mod crc32;
pub mod exports;
mod fields;
pub mod gzip;
mod host;
mod instance;
pub mod store;

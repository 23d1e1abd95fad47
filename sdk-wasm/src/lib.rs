//! Mini-program binding of the Subway SDK: wasm-bindgen exports for `js/src/sdk.js`, and a store on the host's storage.
//!
//! # Architecture invariants
//! The exports are few and take only texts and numbers, because each further one costs glue in every package, and other
//! types cost more. No serde_json, no formatting machinery, no floating-point parsing: the whole JD package has 20 KB.

#[cfg(target_arch = "wasm32")]
mod alloc;
mod crc32;
pub mod exports;
mod fields;
pub mod gzip;
mod host;
mod instance;
mod opcodes;
pub mod store;

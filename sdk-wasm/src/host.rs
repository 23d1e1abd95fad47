//! Storage of the host, as implemented in JavaScript by `js/src/host.js`.

// wasm-bindgen's imports contain unsafe code.
#![allow(unsafe_code)]

use subway_sdk_core::StoreError;
use wasm_bindgen::prelude::wasm_bindgen;

use crate::store::HostStorage;

/// Returned in place of a text if the host failed; `js/src/host.js` has the same constant. An empty text or one of
/// zeros is a value that the host has damaged.
const FAILED: &str = "\0failed";

#[wasm_bindgen(raw_module = "./host.js")]
extern "C" {
    /// Returns the text under `key`; [`FAILED`] if the host failed.
    fn storage_get(host: u32, key: &str) -> Option<String>;
    /// Returns 0: written; 1: failed; 2: failed because the storage is full.
    fn storage_set(host: u32, key: &str, value: &str) -> u32;
    /// Returns 0: removed.
    fn storage_remove(host: u32, key: &str) -> u32;
    /// Returns the keys, one per line; none if the host failed.
    fn storage_keys(host: u32) -> Option<String>;
}

/// Storage of the host that JavaScript registered under this number.
pub(crate) struct JsStorage(pub(crate) u32);

impl HostStorage for JsStorage {
    fn get(&mut self, key: &str) -> Result<Option<String>, StoreError> {
        match storage_get(self.0, key) {
            Some(text) if text == FAILED => Err(StoreError::failed("get")),
            text => Ok(text),
        }
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), StoreError> {
        match storage_set(self.0, key, value) {
            0 => Ok(()),
            2 => Err(StoreError::full("set")),
            _ => Err(StoreError::failed("set")),
        }
    }

    fn remove(&mut self, key: &str) -> Result<(), StoreError> {
        if storage_remove(self.0, key) == 0 { Ok(()) } else { Err(StoreError::failed("remove")) }
    }

    fn keys(&mut self) -> Result<Vec<String>, StoreError> {
        let keys = storage_keys(self.0).ok_or_else(|| StoreError::failed("keys"))?;
        Ok(keys.lines().map(str::to_owned).collect())
    }
}

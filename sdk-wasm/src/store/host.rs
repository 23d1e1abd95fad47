//! Interface to the host's storage: texts under keys, as every mini-program and browser has.

use subway_sdk_core::StoreError;

/// Synchronous key/value storage of a host. One `set` is atomic; a sequence of them is not.
pub trait HostStorage {
    /// Returns the text under `key`, or `None` if there is none.
    ///
    /// # Errors
    /// If the host could not read.
    fn get(&mut self, key: &str) -> Result<Option<String>, StoreError>;

    /// Stores `value` under `key`. After `Ok` the value survives the death of the process.
    ///
    /// # Errors
    /// If the host could not write. Then the key holds its old value, or a damaged one.
    fn set(&mut self, key: &str, value: &str) -> Result<(), StoreError>;

    /// Removes `key`; a missing key is not an error.
    ///
    /// # Errors
    /// If the host could not write.
    fn remove(&mut self, key: &str) -> Result<(), StoreError>;

    /// Returns all keys, in any order, including keys of other owners.
    ///
    /// # Errors
    /// If the host could not read.
    fn keys(&mut self) -> Result<Vec<String>, StoreError>;
}

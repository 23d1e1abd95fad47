//! What the store needs of its host: texts under keys, as every mini-program and browser has.

use subway_sdk_core::StoreError;

/// A host's synchronous key/value storage. One `set` is atomic; a sequence of them is not.
pub trait HostStorage {
    /// The text under `key`, or `None` if there is none.
    ///
    /// # Errors
    /// If the host could not read.
    fn get(&mut self, key: &str) -> Result<Option<String>, StoreError>;

    /// Puts `value` under `key`. When it returns `Ok` the value survives the death of the process.
    ///
    /// # Errors
    /// If the host could not write; then the key holds its old value, or a damaged one.
    fn set(&mut self, key: &str, value: &str) -> Result<(), StoreError>;

    /// Removes `key`; it is no error if it is not there.
    ///
    /// # Errors
    /// If the host could not write.
    fn remove(&mut self, key: &str) -> Result<(), StoreError>;

    /// Every key there is, in any order; keys that are not ours may be among them.
    ///
    /// # Errors
    /// If the host could not read.
    fn keys(&mut self) -> Result<Vec<String>, StoreError>;
}

//! Clients of this module, by number. One module can hold many: tests, log replay, several keys in one app.

use std::cell::RefCell;

use subway_sdk_core::Client;

use crate::host::JsStorage;
use crate::store::SegmentStore;

/// One client and its current upload.
pub(crate) struct Instance {
    pub(crate) client: Client<SegmentStore<JsStorage>>,
    /// Body of the last upload; empty after it was fetched.
    pub(crate) body: String,
}

thread_local! {
    static INSTANCES: RefCell<Vec<Option<Box<Instance>>>> = const { RefCell::new(Vec::new()) };
}

/// Adds an instance and returns its number.
pub(crate) fn add(instance: Instance) -> u32 {
    INSTANCES.with_borrow_mut(|all| {
        all.push(Some(Box::new(instance)));
        all.len() as u32 - 1
    })
}

/// Removes an instance.
pub(crate) fn remove(number: u32) {
    drop(take(number));
}

fn take(number: u32) -> Option<Box<Instance>> {
    INSTANCES.with_borrow_mut(|all| all.get_mut(number as usize).and_then(Option::take))
}

/// Runs `work` on an instance, or returns that there is none. The instance is out of the list meanwhile. If it traps in
/// the middle of a change, it is never used again, and the others are not affected.
pub(crate) fn with(number: u32, work: impl FnOnce(&mut Instance) -> String) -> String {
    let Some(mut instance) = take(number) else { return String::from("!closed") };
    let result = work(&mut instance);
    INSTANCES.with_borrow_mut(|all| {
        if let Some(slot) = all.get_mut(number as usize) {
            *slot = Some(instance);
        }
    });
    result
}

//! The clients of this module, by number. One module can hold many: tests, log replay, several keys in one app.

use std::cell::RefCell;

use subway_sdk_core::Client;

use crate::host::JsStorage;
use crate::store::SegmentStore;

/// One client and what it wants sent.
pub(crate) struct Instance {
    pub(crate) client: Client<SegmentStore<JsStorage>>,
    /// The body of the upload that was handed out last; empty once it was fetched.
    pub(crate) body: String,
}

thread_local! {
    static INSTANCES: RefCell<Vec<Option<Box<Instance>>>> = const { RefCell::new(Vec::new()) };
}

/// Keeps an instance; gives its number.
pub(crate) fn add(instance: Instance) -> u32 {
    INSTANCES.with_borrow_mut(|all| {
        all.push(Some(Box::new(instance)));
        all.len() as u32 - 1
    })
}

/// Ends an instance.
pub(crate) fn remove(number: u32) {
    drop(take(number));
}

fn take(number: u32) -> Option<Box<Instance>> {
    INSTANCES.with_borrow_mut(|all| all.get_mut(number as usize).and_then(Option::take))
}

/// Works on an instance, or answers that there is none. It is out of the list meanwhile: if it traps, in the
/// middle of a change, it is never used again, and the others are not harmed.
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

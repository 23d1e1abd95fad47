//! The second thread: it only sends. A slow network therefore never delays storing.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use subway_sdk_core::UploadRequest;

use crate::inbox::{Inbox, Message};
use crate::store::StoreControl;
use crate::transport::{Reply, Transport};

/// Starts the thread. It ends when the returned sender is dropped and the upload in flight, if any, is over; nobody waits
/// for it, because a batch that is not reported on is simply sent again in the next life.
pub(crate) fn start(
    transport: Arc<dyn Transport>,
    store: StoreControl,
    inbox: Arc<Inbox>,
) -> std::io::Result<Sender<UploadRequest>> {
    let (sender, receiver) = channel();
    thread::Builder::new().name("subway-upload".into()).spawn(move || run(&*transport, &store, &inbox, &receiver))?;
    Ok(sender)
}

fn run(transport: &dyn Transport, store: &StoreControl, inbox: &Inbox, receiver: &Receiver<UploadRequest>) {
    let mut told = false;
    for upload in receiver {
        // A batch is durable before it is sent; see the store's documentation. A medium that cannot do that does not keep
        // events from being sent: only the loss of power just now could make a difference.
        match store.make_durable() {
            Ok(()) => told = false,
            Err(error) if !told => {
                told = true;
                inbox.notice(format!("storage failed: a batch could not be made durable before it was sent: {error}"));
            }
            Err(_) => {}
        }
        // A transport is the host's code; should it panic, the next batch still needs this thread.
        let reply = catch_unwind(AssertUnwindSafe(|| transport.send(&upload)))
            .unwrap_or_else(|_| Reply::Failed(String::from("the transport panicked")));
        if inbox.push(Message::Uploaded(upload.batch_id, reply)).is_err() {
            return;
        }
    }
}

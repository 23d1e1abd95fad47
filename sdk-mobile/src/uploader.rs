//! The second thread: it only sends. A slow network therefore never delays storing.

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
    for upload in receiver {
        // A batch is durable before it is sent; see the store's documentation.
        let reply = match store.make_durable() {
            Ok(()) => transport.send(&upload),
            Err(error) => Reply::Failed(format!("the batch could not be made durable: {error}")),
        };
        if inbox.push(Message::Uploaded(upload.batch_id, reply)).is_err() {
            return;
        }
    }
}

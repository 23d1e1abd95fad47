//! The upload thread. Only sends, so that a slow network never delays storing.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use subway_sdk_core::UploadRequest;

use crate::command_queue::{Command, CommandQueue};
use crate::store::StoreHandle;
use crate::transport::{Reply, Transport};

/// Starts the thread. It ends when the returned sender is dropped and the upload in flight is done. Waiting for it is
/// not necessary, because a batch without a result is sent again in the next run.
pub(crate) fn start(
    transport: Arc<dyn Transport>,
    store: StoreHandle,
    queue: Arc<CommandQueue>,
) -> std::io::Result<Sender<UploadRequest>> {
    let (sender, receiver) = channel();
    thread::Builder::new().name("subway-upload".into()).spawn(move || run(&*transport, &store, &queue, &receiver))?;
    Ok(sender)
}

fn run(transport: &dyn Transport, store: &StoreHandle, queue: &CommandQueue, receiver: &Receiver<UploadRequest>) {
    let mut told = false;
    for upload in receiver {
        // A batch is made durable before it is sent; see the store's documentation. A failure does not keep it from
        // being sent, because it matters only if the power is lost now.
        match store.make_durable() {
            Ok(()) => told = false,
            Err(error) if !told => {
                told = true;
                queue.diagnostic(format!(
                    "storage failed: a batch could not be made durable before it was sent: {error}"
                ));
            }
            Err(_) => {}
        }
        // A transport is the host's code. If it panics, the thread must survive for the next batch.
        let reply = catch_unwind(AssertUnwindSafe(|| transport.send(&upload)))
            .unwrap_or_else(|_| Reply::Failed(String::from("the transport panicked")));
        if queue.push(Command::Uploaded(upload.batch_id, reply)).is_err() {
            return;
        }
    }
}

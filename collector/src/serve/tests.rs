use std::future::pending;

use super::*;
use crate::spool::{SpoolError, SpoolTask, Tx};

fn config(dir: &tempfile::TempDir) -> Config {
    Config { data_dir: dir.path().join("data"), ..Config::embedded() }
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_runs_inside_of_a_process_and_leaves_the_directory_free() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        run(config(&dir), listener().await, async {}).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_told_once_everything_is_open() {
    let dir = tempfile::tempdir().unwrap();
    let listener = listener().await;
    let expected = format!("http://{}", listener.local_addr().unwrap());
    let (told, address) = tokio::sync::oneshot::channel();
    let collector = Collector::start(config(&dir)).await.unwrap();
    let shutdown = async move { assert_eq!(address.await, Ok(expected)) };
    collector.serve(listener, shutdown, |address| told.send(address.to_owned()).unwrap()).await.unwrap();
}

/// A defect.
struct Bomb;

impl SpoolTask for Bomb {
    fn apply(&mut self, _: &mut Tx<'_>) -> Result<(), SpoolError> {
        panic!("a planned defect")
    }
    fn done(self: Box<Self>, _: Result<(), &SpoolError>) {}
    fn bytes(&self) -> u64 {
        0
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_whose_writer_has_died_ends_with_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(config(&dir)).await.unwrap();
    let state = Arc::clone(&collector.state);
    assert_eq!(state.ready(), Ok(()));
    collector.spool.submit(Box::new(Bomb)).map_err(|_| ()).unwrap();
    let ended = collector.serve(listener().await, pending(), |_| {}).await;
    assert!(matches!(ended, Err(StartError::WriterEnded)));
    assert!(state.ready().is_err());
}

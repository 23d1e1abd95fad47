//! The serial limit: inflate, parse, commit; nothing else.

use std::io::Read;
use std::path::Path;
use std::time::Instant;

use rusqlite::Connection;
use subway_protocol::Limits;
use subway_protocol::codec::server::{WireEvent, decode};

use crate::load::cpu_seconds;

/// Events that share a commit.
const GROUP: usize = 5_000;

/// What the loop took.
pub(crate) struct Took {
    /// CPU seconds.
    pub(crate) cpu: f64,
    /// Seconds.
    pub(crate) wall: f64,
}

/// Runs the loop over all bodies.
pub(crate) fn run(bodies: &[Vec<u8>], folder: &Path) -> Took {
    let mut db = Connection::open(folder.join("serial.db")).unwrap();
    db.pragma_update(None, "journal_mode", "wal").unwrap();
    db.pragma_update(None, "synchronous", "full").unwrap();
    db.execute_batch(
        "create table seen (id blob primary key) without rowid; create table spool (position integer primary key, body blob);",
    )
    .unwrap();
    let begin = Instant::now();
    let cpu = || cpu_seconds(&std::fs::read_to_string("/proc/thread-self/stat").unwrap());
    let before = cpu();
    for group in bodies.chunks(GROUP / crate::load::EVENTS) {
        let transaction = db.transaction().unwrap();
        for body in group {
            commit(&transaction, body);
        }
        transaction.commit().unwrap();
    }
    Took { cpu: cpu() - before, wall: begin.elapsed().as_secs_f64() }
}

fn commit(db: &Connection, body: &[u8]) {
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(body).read_to_end(&mut text).unwrap();
    let batch = decode(&text, &Limits::default()).unwrap();
    let mut seen = db.prepare_cached("insert or ignore into seen values (?)").unwrap();
    for raw in &batch.events {
        let event = WireEvent::decode(raw).unwrap();
        assert_eq!(seen.execute([event.id.as_bytes()]).unwrap(), 1, "every event is new");
    }
    db.prepare_cached("insert into spool (body) values (?)").unwrap().execute([&text]).unwrap();
}

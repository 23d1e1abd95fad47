//! Event IDs, and noting them as seen.

use std::sync::mpsc::{Sender, channel};

use subway_collector::spool::{Spool, SpoolError, SpoolTask, Tx};
use subway_protocol::Id;

/// IDs of one commit.
pub(crate) const GROUP: u64 = 5_000;

/// Looks IDs up and notes them.
struct See {
    app: i64,
    ids: Vec<Id>,
    new: usize,
    told: Sender<usize>,
}

impl SpoolTask for See {
    fn apply(&mut self, tx: &mut Tx<'_>) -> Result<(), SpoolError> {
        let new = &mut self.new;
        tx.insert_new_ids(self.app, self.ids.iter().copied(), |_, fresh| *new += usize::from(fresh))
    }

    fn done(self: Box<Self>, result: Result<(), &SpoolError>) {
        result.unwrap();
        self.told.send(self.new).unwrap();
    }

    fn bytes(&self) -> u64 {
        0
    }
}

fn mixed(number: u64) -> u64 {
    let mut x = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// A UUIDv7 as it comes in at 20,000 events a second from many installs: most some seconds old, one in ten some
/// minutes, one in a hundred up to a day.
pub(crate) fn ordered(number: u64) -> Id {
    let random = mixed(number);
    let late = match random % 100 {
        0 => random % 86_400_000,
        1..10 => random % 600_000,
        _ => random % 5_000,
    };
    let mut bits = [7; 10];
    bits[2..].copy_from_slice(&random.to_be_bytes());
    Id::v7(1_790_000_000_000 + (number / 20) as i64 - late as i64, bits)
}

/// A UUIDv4 or v5.
pub(crate) fn random(number: u64) -> Id {
    let wide = u128::from(mixed(number)) << 64 | u128::from(mixed(!number));
    Id::from_bytes(wide.to_be_bytes())
}

/// Notes IDs as seen in one commit, and waits for it. Gives how many were new.
pub(crate) fn see(spool: &Spool, app: i64, ids: Vec<Id>) -> u64 {
    let (told, answer) = channel();
    spool.submit(Box::new(See { app, ids, new: 0, told })).map_err(|_| ()).unwrap();
    answer.recv().unwrap() as u64
}

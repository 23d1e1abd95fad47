//! Gzip (RFC 1952) with a cap on the output.

use std::io::{Cursor, ErrorKind, Read};

use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;
use subway_protocol::codec::server::{Problem, ProblemCode};

use super::BudgetReservation;

/// Largest first piece of output, bytes. Later the output doubles. The memory budget grows in the same steps.
const CHUNK_BYTES: usize = 64 * 1024;

/// Returns whether the body begins with gzip's magic bytes, which no JSON does.
pub(super) fn is_gzip(body: &[u8]) -> bool {
    body.starts_with(&[0x1f, 0x8b])
}

/// Refuses a body whose JSON has more than `limit` bytes.
pub(super) fn check_size(bytes: u64, limit: u64) -> Result<(), Problem> {
    if bytes <= limit {
        return Ok(());
    }
    let detail = format!("the body has more than {limit} bytes after decompression");
    let mut problem = Problem::new(ProblemCode::DecompressedTooLarge, detail);
    problem.limit = Some(limit);
    Err(problem)
}

/// Decompression of a gzip body that can be paused and resumed.
pub(crate) struct Inflation {
    decoder: MultiGzDecoder<Cursor<Bytes>>,
    /// Size that the last member claims.
    claimed_bytes: usize,
    out: Vec<u8>,
    filled: usize,
}

impl Inflation {
    /// Starts at the beginning of `body`.
    pub(crate) fn new(body: Bytes) -> Self {
        let claimed_bytes = claimed_bytes(&body);
        Self { decoder: MultiGzDecoder::new(Cursor::new(body)), claimed_bytes, out: Vec::new(), filled: 0 }
    }

    /// Inflates all members. Returns `false` if it paused because the output exceeds `pause_bytes`.
    ///
    /// The output is at most twice `limit`, or one chunk more than it.
    ///
    /// # Errors
    /// `malformed_gzip` if it is not gzip, damaged, cut short or followed by something else; `decompressed_too_large`.
    pub(crate) fn run(
        &mut self,
        pause_bytes: usize,
        limit: u64,
        reservation: &mut BudgetReservation,
    ) -> Result<bool, Problem> {
        let Self { decoder, claimed_bytes, out, filled } = self;
        let max_bytes = usize::try_from(limit).unwrap_or(usize::MAX);
        while *filled <= pause_bytes {
            if *filled == out.len() {
                let more = out
                    .len()
                    .max((*claimed_bytes).min(max_bytes).saturating_add(1))
                    .clamp(1, CHUNK_BYTES.max(out.len()));
                reservation.grow(more as u64)?;
                out.resize(*filled + more, 0);
            }
            match decoder.read(&mut out[*filled..]) {
                Ok(0) => return Ok(true),
                Ok(read) => *filled += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(Problem::new(ProblemCode::MalformedGzip, format!("the body is not gzip: {error}")));
                }
            }
            check_size(*filled as u64, limit)?;
        }
        Ok(false)
    }

    /// Returns the output.
    pub(crate) fn into_bytes(mut self) -> Vec<u8> {
        self.out.truncate(self.filled);
        self.out
    }
}

/// Returns the size that the last member claims. For a single honest member below 4 GiB that is the whole output.
fn claimed_bytes(body: &[u8]) -> usize {
    body.last_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes) as usize)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::super::SharedBudget;
    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn run(body: &[u8], limit: u64) -> Result<Vec<u8>, ProblemCode> {
        inflate(body, limit, &mut BudgetReservation::unbounded()).map_err(|problem| problem.code)
    }

    fn inflate(body: &[u8], limit: u64, reservation: &mut BudgetReservation) -> Result<Vec<u8>, Problem> {
        let mut inflation = Inflation::new(Bytes::copy_from_slice(body));
        assert!(inflation.run(usize::MAX, limit, reservation)?);
        Ok(inflation.into_bytes())
    }

    #[test]
    fn it_goes_on_where_it_stopped() {
        let plain: Vec<u8> = (0..1_000_000).map(|at| (at % 251) as u8).collect();
        let (mut inflation, mut reservation) = (Inflation::new(gzip(&plain).into()), BudgetReservation::unbounded());
        let mut stops = 0;
        while !inflation.run(stops * CHUNK_BYTES, u64::MAX, &mut reservation).unwrap() {
            assert!(
                inflation.filled > stops * CHUNK_BYTES && inflation.filled <= (2 * stops).max(1) * CHUNK_BYTES,
                "{stops}"
            );
            stops += 1;
        }
        assert!(stops > 2);
        assert!(inflation.into_bytes() == plain);
    }

    #[test]
    fn what_was_compressed_comes_out_up_to_the_limit() {
        for size in [0, 1, 1000, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 300_000] {
            let plain: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            let body = gzip(&plain);
            assert_eq!(run(&body, size as u64).as_deref(), Ok(&plain[..]), "{size}");
            if size > 0 {
                assert_eq!(run(&body, size as u64 - 1), Err(ProblemCode::DecompressedTooLarge), "{size}");
            }
        }
    }

    #[test]
    fn several_members_are_one_body() {
        let body = [gzip(b"{\"a\":"), gzip(b""), gzip(b"1}")].concat();
        assert_eq!(run(&body, 100).unwrap(), b"{\"a\":1}");
        assert_eq!(run(&body, 6), Err(ProblemCode::DecompressedTooLarge));
    }

    #[test]
    fn damage_is_noticed_wherever_it_is() {
        let body = gzip(&[b'x'; 100]);
        for cut in 0..body.len() {
            if cut > 0 {
                assert_eq!(run(&body[..cut], 1000), Err(ProblemCode::MalformedGzip), "cut {cut}");
            }
        }
        let last = body.len() - 6;
        let mut damaged = body.clone();
        damaged[last] ^= 1;
        assert_eq!(run(&damaged, 1000), Err(ProblemCode::MalformedGzip));
        assert_eq!(run(&[&body[..], b"junk"].concat(), 1000), Err(ProblemCode::MalformedGzip));
        assert_eq!(run(b"plain", 1000), Err(ProblemCode::MalformedGzip));
    }

    #[test]
    fn a_bomb_costs_no_more_than_the_limit() {
        let bomb = gzip(&vec![0; 64 * 1024 * 1024]);
        let budget = SharedBudget::new("bytes", 3 * 1024 * 1024);
        let mut reservation = budget.reservation_for(&std::sync::Arc::default());
        let problem = inflate(&bomb, 1024 * 1024, &mut reservation).unwrap_err();
        assert_eq!(problem.code, ProblemCode::DecompressedTooLarge);
        assert!(budget.reserved() <= 2 * 1024 * 1024 + 2 * CHUNK_BYTES as u64);
        assert_eq!(
            inflate(&bomb, u64::MAX, &mut budget.reservation_for(&std::sync::Arc::default())).unwrap_err().code,
            ProblemCode::Unavailable
        );
    }
}

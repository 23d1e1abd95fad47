//! A plain bulk loader: bodies that were made before the clock starts, one after the other on one connection.

use std::time::Instant;

/// Posts every body with `post`, which panics if it is not taken. Events per second from the end of the first body on, as
/// the collector's rate is taken.
pub(crate) fn rate<T>(bodies: &[(T, u64)], mut post: impl FnMut(&T)) -> f64 {
    let (mut since, mut events) = (None, 0);
    for (body, count) in bodies {
        post(body);
        match since {
            None => since = Some(Instant::now()),
            Some(_) => events += count,
        }
    }
    events as f64 / since.unwrap().elapsed().as_secs_f64()
}

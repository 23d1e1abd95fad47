//! Writes stored events, one JSON object a line.

use std::io::Write;
use std::path::Path;

/// Writes the stored events of `app` (or all) with `from <= event_time < to` to `out`.
///
/// # Errors
/// If the arguments are wrong, or the store cannot be read.
pub fn run(data_dir: &Path, app: Option<&str>, from: Option<&str>, to: Option<&str>, out: &mut impl Write) -> Result<(), String> {
    let _ = (data_dir, app, from, to, out);
    Err("export is not built yet".into())
}

//! Log on stderr, one line for each event.

use std::io::{self, Write};

use tracing_subscriber::EnvFilter;

use crate::config::{LogConfig, LogFormat};

/// Starts the log. Panics are logged too, each as one line.
pub(super) fn start(log: &LogConfig) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(&log.level));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false);
    match log.format {
        LogFormat::Text => lines.with_writer(|| OneLine(io::stderr())).init(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).with_writer(io::stderr).init(),
    }
    std::panic::set_hook(Box::new(|panic| {
        let at = panic.location().map(ToString::to_string).unwrap_or_default();
        let what = panic.payload_as_str().unwrap_or("no message");
        tracing::error!(at, what, "a defect: something panicked");
    }));
}

/// Writer that keeps each event of the text format on one line. It relies on one write for each event. JSON does not
/// need it, because it contains no raw line breaks.
struct OneLine<W>(W);

impl<W: Write> Write for OneLine<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let inner = event.strip_suffix(b"\n").unwrap_or(event);
        if inner.contains(&b'\n') {
            let flat: Vec<u8> =
                inner.iter().map(|byte| if *byte == b'\n' { b' ' } else { *byte }).chain(*b"\n").collect();
            self.0.write_all(&flat)?;
        } else {
            self.0.write_all(event)?;
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let mut out = OneLine(Vec::new());
        out.write_all(b"a\nb\n").unwrap();
        out.write_all(b"c\n").unwrap();
        assert_eq!(out.0, b"a b\nc\n");
    }
}

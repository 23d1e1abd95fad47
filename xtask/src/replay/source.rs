//! A log, line by line: plain or gzip, with a cap on the length of a line.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result};
use flate2::bufread::MultiGzDecoder;

/// The longest line that is read, bytes. Servers refuse requests beyond 8 KiB or so; a longer line is no line.
pub(crate) const LINE_BYTES: usize = 64 * 1024;

/// The lines of one log.
pub(crate) struct Lines {
    reader: Box<dyn BufRead>,
    number: u64,
}

/// What stands in the next line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// A line, without its ending, in the buffer.
    Line,
    /// One that exceeds [`LINE_BYTES`]; its beginning is in the buffer.
    TooLong,
    End,
}

impl Lines {
    /// Opens a log; gzip is recognised by its first two bytes, not by the name.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let mut plain = BufReader::with_capacity(256 * 1024, file);
        let gzip =
            plain.fill_buf().with_context(|| format!("cannot read {}", path.display()))?.starts_with(&[0x1f, 0x8b]);
        let mut reader: Box<dyn BufRead> = if gzip {
            // Rotated logs are often several gzip files in one.
            Box::new(BufReader::with_capacity(256 * 1024, MultiGzDecoder::new(plain)))
        } else {
            Box::new(plain)
        };
        if reader.fill_buf()?.starts_with(b"\xef\xbb\xbf") {
            reader.consume(3);
        }
        Ok(Self { reader, number: 0 })
    }

    /// Reads the next line into `line`.
    pub(crate) fn next(&mut self, line: &mut Vec<u8>) -> Result<Next> {
        line.clear();
        let max_bytes = LINE_BYTES as u64 + 2;
        let read = self.reader.by_ref().take(max_bytes).read_until(b'\n', line).context("cannot read the log")?;
        if read == 0 {
            return Ok(Next::End);
        }
        self.number += 1;
        let ended = line.pop_if(|c| *c == b'\n').is_some();
        line.pop_if(|c| *c == b'\r');
        if line.len() <= LINE_BYTES {
            return Ok(Next::Line);
        }
        if !ended {
            self.reader.skip_until(b'\n').context("cannot read the log")?;
        }
        Ok(Next::TooLong)
    }

    /// The number of the line read last, from 1.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use tempfile::NamedTempFile;

    use super::*;

    fn lines(bytes: &[u8]) -> Vec<(u64, Next, String)> {
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        let mut lines = Lines::open(file.path()).unwrap();
        let (mut line, mut all) = (Vec::new(), Vec::new());
        loop {
            match lines.next(&mut line).unwrap() {
                Next::End => return all,
                next => all.push((lines.number(), next, String::from_utf8(line.clone()).unwrap())),
            }
        }
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn lines_end_in_any_way() {
        let expected = ["a", "", "b", "c"].map(str::to_owned);
        for text in ["a\n\nb\nc", "a\r\n\r\nb\r\nc\r\n", "\u{feff}a\n\nb\nc\n"] {
            let got: Vec<String> = lines(text.as_bytes()).into_iter().map(|(.., line)| line).collect();
            assert_eq!(got, expected);
        }
        assert_eq!(lines(b""), []);
    }

    #[test]
    fn gzip_in_several_members_is_read_through() {
        let bytes = [gzip(b"a\nb"), gzip(b"c\nd\n")].concat();
        let got: Vec<String> = lines(&bytes).into_iter().map(|(.., line)| line).collect();
        assert_eq!(got, ["a", "bc", "d"]);
    }

    #[test]
    fn a_line_that_is_too_long_costs_only_itself() {
        for over in [1, 2, 3, 100_000] {
            let text = format!("a\n{}\nb\n{}\n", "x".repeat(LINE_BYTES + over), "y".repeat(LINE_BYTES));
            let got = lines(text.as_bytes());
            let kinds: Vec<(u64, &Next)> = got.iter().map(|(number, next, _)| (*number, next)).collect();
            assert_eq!(kinds, [(1, &Next::Line), (2, &Next::TooLong), (3, &Next::Line), (4, &Next::Line)]);
            assert_eq!((got[2].2.as_str(), got[3].2.len()), ("b", LINE_BYTES));
        }
    }
}

//! A batch as one block of ClickHouse's format Native: column by column, words as a dictionary and indexes. The server
//! takes it in without looking at single rows, which costs it half of what RowBinary does.
//!
//! Format: <https://clickhouse.com/docs/interfaces/formats/Native>; of LowCardinality:
//! `src/DataTypes/Serializations/SerializationLowCardinality.cpp` of ClickHouse.

use std::collections::HashMap;
use std::io::{self, Write};
use std::iter::repeat_n;

use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
use subway_protocol::limits::MAX_TIME_MS;

use super::columns::{self, Kind, OF_EVENT, OF_RECORD, uuid};
use crate::config::BlockCompression as Compression;
use crate::record::{Event, Record};
use crate::sinks::days::is_near;
use crate::sinks::{SinkBatch, SinkError};

/// What stands for properties that were not given.
const NO_PROPERTIES: &str = "{}";
/// Bytes of an event besides its texts, roughly: sizes the buffer of the answer.
const FIXED_BYTES: usize = 120;

/// The version of the serialisation of LowCardinality: each block has its dictionary with it.
const DICTIONARY_VERSION: u64 = 1;
/// The block brings keys of its own, and they replace what was there.
const DICTIONARY_FLAGS: u64 = 1 << 9 | 1 << 10;

/// Words that a column remembers in one block: a sender may make every word another one, and looking each up costs more memory
/// than the words themselves. One more is written again wherever it comes; the server finds it in its own dictionary.
/// Few in tests, so that they are reached.
const WORDS: usize = if cfg!(test) { 1000 } else { 65_536 };

/// One column being filled.
enum Column {
    /// Texts, each after its length.
    Texts(Vec<u8>),
    Words(Words),
    /// Values of a fixed size, one after the other.
    Fixed(Vec<u8>),
    /// For each whether it is unknown, and the values.
    Maybe(Vec<u8>, Vec<u8>),
}

/// Few different texts.
struct Words {
    known: HashMap<Box<str>, u32>,
    /// Every key in the order of its number, each after its length.
    keys: Vec<u8>,
    count: u32,
    numbers: Vec<u32>,
    /// How many keys found no room among the known ones.
    overflow: u64,
}

impl Words {
    fn new() -> Self {
        let (known, keys, numbers) = (HashMap::new(), Vec::new(), Vec::new());
        let mut words = Self { known, keys, count: 0, numbers, overflow: 0 };
        words.number("");
        words
    }

    fn number(&mut self, word: &str) -> u32 {
        if let Some(number) = self.known.get(word) {
            return *number;
        }
        let number = self.count;
        self.count += 1;
        push_text(&mut self.keys, word);
        if self.known.len() < WORDS {
            self.known.insert(word.into(), number);
        } else {
            self.overflow += 1;
        }
        number
    }

    fn push(&mut self, word: &str, times: usize) {
        let number = self.number(word);
        self.numbers.extend(repeat_n(number, times));
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let keys = u64::from(self.count);
        let width = match keys {
            0..=0x100 => 0,
            0x101..=0x1_0000 => 1,
            _ => 2,
        };
        for header in [DICTIONARY_VERSION, DICTIONARY_FLAGS | width, keys] {
            out.write_all(&header.to_le_bytes())?;
        }
        out.write_all(&self.keys)?;
        out.write_all(&(self.numbers.len() as u64).to_le_bytes())?;
        let bytes: Vec<u8> = match width {
            0 => self.numbers.iter().map(|number| *number as u8).collect(),
            1 => self.numbers.iter().flat_map(|number| (*number as u16).to_le_bytes()).collect(),
            _ => self.numbers.iter().flat_map(|number| number.to_le_bytes()).collect(),
        };
        out.write_all(&bytes)
    }
}

fn push_length(out: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    push_length(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

impl Column {
    fn new(kind: Kind) -> Self {
        match kind {
            Kind::Text => Column::Texts(Vec::new()),
            Kind::Word => Column::Words(Words::new()),
            Kind::Uuid | Kind::Time | Kind::Number => Column::Fixed(Vec::new()),
            Kind::MaybeTime | Kind::MaybeNumber => Column::Maybe(Vec::new(), Vec::new()),
        }
    }

    /// The text `times` times.
    fn text(&mut self, text: &str, times: usize) {
        match self {
            Column::Texts(data) => {
                let start = data.len();
                push_text(data, text);
                let end = data.len();
                for _ in 1..times {
                    data.extend_from_within(start..end);
                }
            }
            Column::Words(words) => words.push(text, times),
            Column::Fixed(_) | Column::Maybe(..) => {}
        }
    }

    fn fixed(&mut self, bytes: &[u8]) {
        if let Column::Fixed(data) = self {
            data.extend_from_slice(bytes);
        }
    }

    fn maybe(&mut self, value: Option<u64>) {
        if let Column::Maybe(unknown, data) = self {
            unknown.push(u8::from(value.is_none()));
            data.extend_from_slice(&value.unwrap_or_default().to_le_bytes());
        }
    }

    fn overflow(&self) -> u64 {
        match self {
            Column::Words(words) => words.overflow,
            _ => 0,
        }
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        match self {
            Column::Texts(data) | Column::Fixed(data) => out.write_all(data),
            Column::Words(words) => words.write(out),
            Column::Maybe(unknown, data) => {
                out.write_all(unknown)?;
                out.write_all(data)
            }
        }
    }
}

/// A time that the table can hold.
fn time(name: &str, position: u64, millis: i64) -> Result<[u8; 8], SinkError> {
    if (0..=MAX_TIME_MS).contains(&millis) {
        return Ok(millis.to_le_bytes());
    }
    Err(SinkError::refused(format!("position {position}: {name} must be 0 to {MAX_TIME_MS}, here {millis}")))
}

/// A block being filled.
struct Block {
    of_record: [Column; OF_RECORD.len()],
    of_event: [Column; OF_EVENT.len()],
    rows: usize,
}

impl Block {
    fn new() -> Self {
        let column = |(_, kind)| Column::new(kind);
        Self { of_record: OF_RECORD.map(column), of_event: OF_EVENT.map(column), rows: 0 }
    }

    fn push(&mut self, record: &Record<'_>, first: u64, events: &[Event<'_>]) -> Result<(), SinkError> {
        let times = events.len();
        let [app_key, install_id, batch_id, received_at, common, context @ ..] = &mut self.of_record;
        app_key.text(&record.app_key, times);
        install_id.text(&record.install_id, times);
        batch_id.text(&record.batch_id, times);
        received_at.fixed(&time("received_at", first, record.received_at)?.repeat(times));
        common.text(record.common.map_or(NO_PROPERTIES, |common| common.get()), times);
        for (column, (_, text)) in context.iter_mut().zip(record.context.fields()) {
            column.text(text, times);
        }
        for (position, event) in (first..).zip(events) {
            self.push_event(position, event)?;
        }
        self.rows += times;
        Ok(())
    }

    #[rustfmt::skip]
    fn push_event(&mut self, position: u64, event: &Event<'_>) -> Result<(), SinkError> {
        let [event_id, event_time, place, seq, theme, code, user_id, ts, mono, boot, session_id, session_index, session_event,
            page_path, page_title, page_referrer, page_enter_ts, props] = &mut self.of_event;
        let id = uuid(&event.event_id).ok_or_else(|| {
            let found = &event.event_id;
            SinkError::refused(format!("position {position}: event_id must be a UUID in lower case, here {found:?}"))
        })?;
        // Two halves, the higher first, each with its lowest byte first.
        event_id.fixed(&((id >> 64) as u64).to_le_bytes());
        event_id.fixed(&(id as u64).to_le_bytes());
        event_time.fixed(&time("event_time", position, event.event_time)?);
        place.fixed(&position.to_le_bytes());
        seq.fixed(&event.seq.to_le_bytes());
        theme.text(&event.theme, 1);
        code.text(&event.code, 1);
        user_id.text(&event.user_id, 1);
        ts.fixed(&time("ts", position, event.ts)?);
        mono.maybe(event.mono);
        boot.text(&event.boot, 1);
        session_id.text(&event.session_id, 1);
        session_index.maybe(event.session_index);
        session_event.maybe(event.session_event);
        page_path.text(&event.page_path, 1);
        page_title.text(&event.page_title, 1);
        page_referrer.text(&event.page_referrer, 1);
        let enter = event.page_enter_ts.map(|enter| time("page_enter_ts", position, enter)).transpose()?;
        page_enter_ts.maybe(enter.map(u64::from_le_bytes));
        props.text(event.props.map_or(NO_PROPERTIES, |props| props.get()), 1);
        Ok(())
    }

    fn overflow(&self) -> u64 {
        self.of_record.iter().chain(&self.of_event).map(Column::overflow).sum()
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let columns = self.of_record.iter().chain(&self.of_event);
        let mut head = Vec::with_capacity(64);
        push_length(&mut head, OF_RECORD.len() + OF_EVENT.len());
        push_length(&mut head, self.rows);
        for (column, (name, kind)) in columns.zip(columns::all()) {
            push_text(&mut head, name);
            push_text(&mut head, kind.type_name());
            out.write_all(&head)?;
            head.clear();
            column.write(out)?;
        }
        Ok(())
    }
}

/// A batch as it travels.
#[derive(Debug, Default)]
pub(super) struct Encoded {
    /// The body of the insert, compressed. Empty if the batch has no events.
    pub(super) body: Vec<u8>,
    /// Events that are kept by the year.
    pub(super) far: u64,
    /// Words that found a dictionary full.
    pub(super) overflow: u64,
}

/// The insert of a batch.
///
/// # Errors
/// [`SinkError::Refused`] if an event cannot be stored as it is, or a record cannot be read.
pub(super) fn encode(batch: &SinkBatch, compression: Compression) -> Result<Encoded, SinkError> {
    let (mut block, mut far) = (Block::new(), 0);
    batch.for_each_record(|record, first, events| {
        far += events.iter().filter(|event| !is_near(event.event_time, record.received_at)).count() as u64;
        block.push(record, first, events)
    })?;
    if block.rows == 0 {
        return Ok(Encoded::default());
    }
    let failed = |error: &dyn std::fmt::Display| SinkError::retryable(format!("encoding: {error}"));
    let json: usize = batch.records.iter().map(|record| record.json.len()).sum();
    let mut out = Vec::new();
    match compression {
        Compression::None => {
            out.reserve(json + block.rows * FIXED_BYTES);
            block.write(&mut out).map_err(|error| failed(&error))?;
        }
        Compression::Lz4 => {
            out.reserve(json / 2);
            // Blocks that do not lean on each other need no window to be kept.
            let frame = FrameInfo::new().block_size(BlockSize::Max1MB).block_mode(BlockMode::Independent);
            let mut encoder = FrameEncoder::with_frame_info(frame, &mut out);
            block.write(&mut encoder).map_err(|error| failed(&error))?;
            encoder.finish().map_err(|error| failed(&error))?;
        }
    }
    Ok(Encoded { body: out, far, overflow: block.overflow() })
}

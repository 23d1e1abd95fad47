//! Encodes a batch as one block of ClickHouse's format Native: column by column, texts of low cardinality as a
//! dictionary with indexes. The server reads it without parsing single rows, which costs it half as much as RowBinary.
//!
//! Format: <https://clickhouse.com/docs/interfaces/formats/Native>; of LowCardinality:
//! `src/DataTypes/Serializations/SerializationLowCardinality.cpp` of ClickHouse.

use std::collections::HashMap;
use std::io::{self, Write};
use std::iter::repeat_n;

use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
use subway_protocol::limits::MAX_TIME_MS;

use super::columns::{self, parse_uuid, type_name};
use crate::config::BlockCompression as Compression;
use crate::record::{self, ColumnKind, Context, Event, NO_PROPERTIES, Record, Value};
use crate::sinks::days::is_near;
use crate::sinks::{SinkBatch, SinkError};

/// Approximate bytes of an event besides its texts; sizes the buffer.
const EVENT_FIXED_BYTES: usize = 120;

/// Version of the LowCardinality serialisation in which each block carries its dictionary.
const DICTIONARY_VERSION: u64 = 1;
/// Flags: the block has keys of its own, and they replace earlier ones.
const DICTIONARY_FLAGS: u64 = 1 << 9 | 1 << 10;

/// Maximum texts that a column looks up in one block. A sender can make every text different, and looking each up costs
/// more memory than the texts themselves.
///
/// A text beyond it is written again at each use; the server finds it in its own dictionary. Small in tests, so that
/// they reach it.
const MAX_DICTIONARY_ENTRIES: usize = if cfg!(test) { 1000 } else { 65_536 };

/// Buffer of one column.
enum Column {
    /// Texts, each with its length before it.
    Strings(Vec<u8>),
    LowCardinality(LowCardinalityColumn),
    /// Values of a fixed size.
    Fixed(Vec<u8>),
    /// Null map and values.
    Nullable(Vec<u8>, Vec<u8>),
}

/// Buffer of a LowCardinality column.
struct LowCardinalityColumn {
    index_of: HashMap<Box<str>, u32>,
    /// Dictionary entries in the order of their indexes, each with its length before it.
    entries: Vec<u8>,
    count: u32,
    indexes: Vec<u32>,
    /// Number of entries that did not fit into `index_of`.
    overflow: u64,
}

impl LowCardinalityColumn {
    fn new() -> Self {
        let (index_of, entries, indexes) = (HashMap::new(), Vec::new(), Vec::new());
        let mut words = Self { index_of, entries, count: 0, indexes, overflow: 0 };
        words.intern("");
        words
    }

    fn intern(&mut self, text: &str) -> u32 {
        if let Some(number) = self.index_of.get(text) {
            return *number;
        }
        let number = self.count;
        self.count += 1;
        push_string(&mut self.entries, text);
        if self.index_of.len() < MAX_DICTIONARY_ENTRIES {
            self.index_of.insert(text.into(), number);
        } else {
            self.overflow += 1;
        }
        number
    }

    fn push(&mut self, text: &str, times: usize) {
        let number = self.intern(text);
        self.indexes.extend(repeat_n(number, times));
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let entries = u64::from(self.count);
        let width = match entries {
            0..=0x100 => 0,
            0x101..=0x1_0000 => 1,
            _ => 2,
        };
        for header in [DICTIONARY_VERSION, DICTIONARY_FLAGS | width, entries] {
            out.write_all(&header.to_le_bytes())?;
        }
        out.write_all(&self.entries)?;
        out.write_all(&(self.indexes.len() as u64).to_le_bytes())?;
        let bytes: Vec<u8> = match width {
            0 => self.indexes.iter().map(|number| *number as u8).collect(),
            1 => self.indexes.iter().flat_map(|number| (*number as u16).to_le_bytes()).collect(),
            _ => self.indexes.iter().flat_map(|number| number.to_le_bytes()).collect(),
        };
        out.write_all(&bytes)
    }
}

fn push_varint(out: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

fn push_string(out: &mut Vec<u8>, text: &str) {
    push_varint(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

impl Column {
    fn new(kind: ColumnKind) -> Self {
        match kind {
            ColumnKind::Text | ColumnKind::Object => Column::Strings(Vec::new()),
            ColumnKind::Keyword => Column::LowCardinality(LowCardinalityColumn::new()),
            ColumnKind::Uuid | ColumnKind::Time | ColumnKind::Number | ColumnKind::Flag => Column::Fixed(Vec::new()),
            ColumnKind::NullableTime | ColumnKind::NullableNumber => Column::Nullable(Vec::new(), Vec::new()),
        }
    }

    /// Appends the text `times` times.
    fn push_text(&mut self, text: &str, times: usize) {
        match self {
            Column::Strings(data) => {
                let start = data.len();
                push_string(data, text);
                let end = data.len();
                for _ in 1..times {
                    data.extend_from_within(start..end);
                }
            }
            Column::LowCardinality(words) => words.push(text, times),
            Column::Fixed(_) | Column::Nullable(..) => {}
        }
    }

    /// Appends the bytes of a value `times` times.
    fn push_fixed(&mut self, bytes: &[u8], times: usize) {
        if let Column::Fixed(data) = self {
            for _ in 0..times {
                data.extend_from_slice(bytes);
            }
        }
    }

    fn push_nullable(&mut self, value: Option<u64>, times: usize) {
        if let Column::Nullable(nulls, data) = self {
            nulls.extend(repeat_n(u8::from(value.is_none()), times));
            for _ in 0..times {
                data.extend_from_slice(&value.unwrap_or_default().to_le_bytes());
            }
        }
    }

    /// Appends a number in the encoding of this column.
    fn push_number(&mut self, value: Option<u64>, times: usize) {
        match self {
            Column::Nullable(..) => self.push_nullable(value, times),
            _ => self.push_fixed(&value.unwrap_or_default().to_le_bytes(), times),
        }
    }

    /// Appends the value `times` times.
    ///
    /// # Errors
    /// [`SinkError::Permanent`] if the table cannot hold it.
    fn push(
        &mut self,
        column: &record::Column,
        position: u64,
        value: Value<'_>,
        times: usize,
    ) -> Result<(), SinkError> {
        match value {
            Value::Text(text) if column.kind == ColumnKind::Uuid => {
                let id = parse_uuid(text).ok_or_else(|| {
                    let name = column.name;
                    SinkError::permanent(format!(
                        "position {position}: {name} must be a UUID in lower case, here {text:?}"
                    ))
                })?;
                // ClickHouse stores a UUID as two little-endian halves, the higher first.
                let halves = [(id >> 64) as u64, id as u64].map(u64::to_le_bytes);
                self.push_fixed(&halves.concat(), times);
            }
            Value::Text(text) => self.push_text(text, times),
            Value::Object(object) => self.push_text(object.map_or(NO_PROPERTIES, |object| object.get()), times),
            Value::Number(number) => self.push_number(number, times),
            Value::Flag(flag) => self.push_fixed(&[u8::from(flag)], times),
            Value::Time(time) => {
                let millis = time.map(|millis| check_time(column.name, position, millis)).transpose()?;
                self.push_number(millis, times);
            }
        }
        Ok(())
    }

    fn overflow(&self) -> u64 {
        match self {
            Column::LowCardinality(words) => words.overflow,
            _ => 0,
        }
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        match self {
            Column::Strings(data) | Column::Fixed(data) => out.write_all(data),
            Column::LowCardinality(words) => words.write(out),
            Column::Nullable(nulls, data) => {
                out.write_all(nulls)?;
                out.write_all(data)
            }
        }
    }
}

/// Checks that the table can hold the time.
fn check_time(name: &str, position: u64, millis: i64) -> Result<u64, SinkError> {
    if (0..=MAX_TIME_MS).contains(&millis) {
        return Ok(millis.unsigned_abs());
    }
    Err(SinkError::permanent(format!("position {position}: {name} must be 0 to {MAX_TIME_MS}, here {millis}")))
}

/// Block under construction.
struct Block {
    position: Column,
    event_columns: Vec<Column>,
    batch_columns: Vec<Column>,
    context_columns: Vec<Column>,
    rows: usize,
}

/// Appends one value to each column, `times` times.
fn push_values<'v>(
    columns_of_block: &mut [Column],
    columns: &[record::Column],
    values: impl IntoIterator<Item = Value<'v>>,
    (position, times): (u64, usize),
) -> Result<(), SinkError> {
    for ((data, column), value) in columns_of_block.iter_mut().zip(columns).zip(values) {
        data.push(column, position, value, times)?;
    }
    Ok(())
}

impl Block {
    fn new() -> Self {
        let empty = |columns: &[record::Column]| columns.iter().map(|column| Column::new(column.kind)).collect();
        Self {
            position: Column::new(columns::POSITION.kind),
            event_columns: empty(Event::COLUMNS),
            batch_columns: empty(Record::COLUMNS),
            context_columns: empty(Context::COLUMNS),
            rows: 0,
        }
    }

    fn push(&mut self, record: &Record<'_>, first: u64, events: &[Event<'_>]) -> Result<(), SinkError> {
        let all = (first, events.len());
        push_values(&mut self.batch_columns, Record::COLUMNS, record.values(), all)?;
        push_values(&mut self.context_columns, Context::COLUMNS, record.context.values(), all)?;
        for (position, event) in (first..).zip(events) {
            self.position.push_number(Some(position), 1);
            push_values(&mut self.event_columns, Event::COLUMNS, event.values(), (position, 1))?;
        }
        self.rows += events.len();
        Ok(())
    }

    fn overflow(&self) -> u64 {
        self.event_columns.iter().chain(&self.batch_columns).chain(&self.context_columns).map(Column::overflow).sum()
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let columns_of_block = std::iter::once(&self.position)
            .chain(&self.event_columns)
            .chain(&self.batch_columns)
            .chain(&self.context_columns);
        let mut head = Vec::with_capacity(64);
        push_varint(&mut head, columns::all().count());
        push_varint(&mut head, self.rows);
        for (data, column) in columns_of_block.zip(columns::all()) {
            push_string(&mut head, column.name);
            push_string(&mut head, type_name(column.kind));
            out.write_all(&head)?;
            head.clear();
            data.write(out)?;
        }
        Ok(())
    }
}

/// Encoded batch.
#[derive(Debug, Default)]
pub(super) struct Encoded {
    /// Body of the insert, compressed. Empty if the batch has no events.
    pub(super) body: Vec<u8>,
    /// Number of events that are partitioned by year.
    pub(super) far_events: u64,
    /// Number of texts that did not fit into a dictionary.
    pub(super) dictionary_overflow: u64,
}

/// Encodes the body of a batch's insert.
///
/// # Errors
/// [`SinkError::Permanent`] if the table cannot hold an event; [`SinkError::CorruptRecord`].
pub(super) fn encode(batch: &SinkBatch, compression: Compression) -> Result<Encoded, SinkError> {
    let (mut block, mut far_events) = (Block::new(), 0);
    batch.for_each_record(|record, first, events| {
        far_events += events.iter().filter(|event| !is_near(event.event_time, record.received_at)).count() as u64;
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
            out.reserve(json + block.rows * EVENT_FIXED_BYTES);
            block.write(&mut out).map_err(|error| failed(&error))?;
        }
        Compression::Lz4 => {
            out.reserve(json / 2);
            // Independent blocks need no window in memory.
            let frame = FrameInfo::new().block_size(BlockSize::Max1MB).block_mode(BlockMode::Independent);
            let mut encoder = FrameEncoder::with_frame_info(frame, &mut out);
            block.write(&mut encoder).map_err(|error| failed(&error))?;
            encoder.finish().map_err(|error| failed(&error))?;
        }
    }
    Ok(Encoded { body: out, far_events, dictionary_overflow: block.overflow() })
}

//! Kafka's protocol as far as a proxy needs it. A frame is a length of four bytes and its payload; a request begins
//! with the number and the version of its kind.

use std::io::{self, Read};

use super::message::Message;

/// Largest frame; a broker's own limit is 100 MiB.
const MAX_FRAME_BYTES: usize = 100 * 1024 * 1024;

/// Reads a request; its head is the name of its kind, such as `Produce v11`. `None` if the connection ends before it.
pub(super) fn request(from: &mut impl Read) -> io::Result<Option<Message>> {
    let Some(bytes) = frame(from)? else { return Ok(None) };
    let number = |at: usize| bytes.get(at..at + 2).map_or(0, |two| u16::from_be_bytes([two[0], two[1]]));
    let name = match number(4) {
        0 => "Produce".to_owned(),
        1 => "Fetch".to_owned(),
        3 => "Metadata".to_owned(),
        18 => "ApiVersions".to_owned(),
        other => format!("Api{other}"),
    };
    let head = format!("{name} v{}", number(6));
    Ok(Some(Message { head, body_at: 4, bytes, last: false }))
}

/// Reads a response.
pub(super) fn answer(from: &mut impl Read) -> io::Result<Message> {
    let bytes = frame(from)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(Message { head: String::new(), body_at: 4, bytes, last: false })
}

fn frame(from: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    match from.take(4).read_to_end(&mut bytes)? {
        0 => return Ok(None),
        4 => {}
        _ => return Err(io::ErrorKind::UnexpectedEof.into()),
    }
    let length = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
    if length > MAX_FRAME_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "no frame of Kafka's protocol"));
    }
    let read = from.take(length as u64).read_to_end(&mut bytes)?;
    if read == length { Ok(Some(bytes)) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

//! The members of a JSON object, in their order.

use subway_protocol::json::{JsonError, ObjectWriter, Reader};

/// Parses an object into names and values; the values stay JSON.
pub(super) fn parse_object(reader: &mut Reader<'_>) -> Result<Vec<(String, String)>, JsonError> {
    let mut members = Vec::new();
    reader.object(|name, reader| {
        let value = reader.raw()?.to_owned();
        members.push((name.to_owned(), value));
        Ok(())
    })?;
    Ok(members)
}

/// Writes an object; the inverse of [`parse_object`].
pub(super) fn write_object(out: &mut String, members: &[(String, String)]) {
    let mut object = ObjectWriter::new(out);
    for (name, value) in members {
        object.raw(name, value);
    }
    object.end();
}

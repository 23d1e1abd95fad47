//! The members of a JSON object, in their order.

use subway_protocol::json::{JsonError, ObjectWriter, Reader};

/// The members of an object: names with their values as JSON.
pub(super) fn members(reader: &mut Reader<'_>) -> Result<Vec<(String, String)>, JsonError> {
    let mut members = Vec::new();
    reader.object(|name, reader| {
        let value = reader.raw()?.to_owned();
        members.push((name.to_owned(), value));
        Ok(())
    })?;
    Ok(members)
}

/// The reverse of [`members`].
pub(super) fn write_members(out: &mut String, members: &[(String, String)]) {
    let mut object = ObjectWriter::new(out);
    for (name, value) in members {
        object.raw(name, value);
    }
    object.end();
}

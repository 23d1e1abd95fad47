//! What a failed read says of a file.

use std::io;

/// "Too many open files", in the system and in the process: they have no kind of their own.
const NO_FILE_LEFT: [i32; 2] = [23, 24];

/// Whether an error says nothing of the file: the system has no room to read it now, or does not let this user. A part is
/// lost only for what is wrong with itself.
pub(super) fn may_pass(error: &io::Error) -> bool {
    let no_file_left = error.raw_os_error().is_some_and(|code| NO_FILE_LEFT.contains(&code));
    let kinds = [io::ErrorKind::PermissionDenied, io::ErrorKind::OutOfMemory, io::ErrorKind::Interrupted];
    no_file_left || kinds.contains(&error.kind())
}

/// The error of a file that is not what was written.
pub(super) fn damaged(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_wrong_with_the_file_is_held_against_it() {
        let passing = [23, 24].map(io::Error::from_raw_os_error);
        assert!(passing.iter().all(may_pass));
        assert!(may_pass(&io::ErrorKind::PermissionDenied.into()));
        for lasting in [io::ErrorKind::NotFound, io::ErrorKind::UnexpectedEof] {
            assert!(!may_pass(&lasting.into()), "{lasting}");
        }
        assert!(!may_pass(&damaged("its size is wrong")) && !may_pass(&io::Error::from_raw_os_error(5)));
    }
}

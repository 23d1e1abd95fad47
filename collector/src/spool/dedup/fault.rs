//! Classification of read errors: transient, or damage of the file.

use std::io;

/// `ENFILE` and `EMFILE`, "too many open files" in the system and in the process. `std` has no kind for them.
const FILE_LIMIT_ERRNOS: [i32; 2] = [23, 24];

/// Returns whether the error is independent of the file's content: the system is out of resources, or denies access.
///
/// A part is given up only for damage of its own file.
pub(super) fn is_transient(error: &io::Error) -> bool {
    let no_file_left = error.raw_os_error().is_some_and(|code| FILE_LIMIT_ERRNOS.contains(&code));
    let kinds = [io::ErrorKind::PermissionDenied, io::ErrorKind::OutOfMemory, io::ErrorKind::Interrupted];
    no_file_left || kinds.contains(&error.kind())
}

/// Creates the error for a file whose content differs from what was written.
pub(super) fn corrupt(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_wrong_with_the_file_is_held_against_it() {
        let passing = [23, 24].map(io::Error::from_raw_os_error);
        assert!(passing.iter().all(is_transient));
        assert!(is_transient(&io::ErrorKind::PermissionDenied.into()));
        for lasting in [io::ErrorKind::NotFound, io::ErrorKind::UnexpectedEof] {
            assert!(!is_transient(&lasting.into()), "{lasting}");
        }
        assert!(!is_transient(&corrupt("its size is wrong")) && !is_transient(&io::Error::from_raw_os_error(5)));
    }
}

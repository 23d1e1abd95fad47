//! Opcodes of [`call`](crate::exports::call): one letter each. `js/src/sdk.js` sends the same letters.

pub(crate) const OPEN: u8 = b'O';
pub(crate) const CLOSE: u8 = b'X';
pub(crate) const TRACK: u8 = b'T';
/// Tracks an event with the duration of a timer.
pub(crate) const TIMER_END: u8 = b'e';
pub(crate) const TIMER_START: u8 = b't';
pub(crate) const IDENTIFY: u8 = b'i';
pub(crate) const LOGOUT: u8 = b'o';
pub(crate) const REGISTER: u8 = b'r';
pub(crate) const UNREGISTER: u8 = b'u';
pub(crate) const CLEAR_REGISTERED: u8 = b'x';
pub(crate) const SET_CONTEXT: u8 = b'c';
pub(crate) const SET_PAGE: u8 = b'p';
pub(crate) const FOREGROUND: u8 = b'f';
pub(crate) const BACKGROUND: u8 = b'b';
pub(crate) const GRANT_CONSENT: u8 = b'y';
pub(crate) const DENY_CONSENT: u8 = b'n';
/// Counts an event that the JavaScript side rejected.
pub(crate) const COUNT_INVALID: u8 = b'v';
pub(crate) const COMMIT: u8 = b'w';
/// Flushes and returns the last sequence number.
pub(crate) const FLUSH: u8 = b's';
pub(crate) const IS_SETTLED: u8 = b'E';
pub(crate) const TAKE_DIAGNOSTICS: u8 = b'N';
pub(crate) const INSTALL_ID: u8 = b'd';
pub(crate) const STATUS: u8 = b'l';
pub(crate) const POLL: u8 = b'P';
pub(crate) const TAKE_BODY: u8 = b'B';
pub(crate) const UPLOAD_RESULT: u8 = b'R';

//! The reading API.

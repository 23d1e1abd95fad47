//! Delivers the spool to every sink, each at its own pace.

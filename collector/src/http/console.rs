//! The console page.

//! Writes stored events, one JSON object a line.

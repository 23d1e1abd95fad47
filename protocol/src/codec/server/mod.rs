//! The collector's half: a batch from bytes, a receipt and a refusal to bytes.

mod answer;
mod batch;
mod text;

pub use answer::{Problem, ProblemCode, Receipt, Rejection};
pub use batch::{Batch, Event, Page, Session, decode};
pub use text::Text;

//! The manual: what is worth knowing beside the reference.

#[doc = include_str!("command_line.md")]
pub mod command_line {}

#[doc = include_str!("format.md")]
pub mod format {}

#[doc = include_str!("kinesis.md")]
pub mod kinesis {}

#[doc = include_str!("testing.md")]
pub mod testing {}

#[doc = include_str!("workers.md")]
pub mod workers {}

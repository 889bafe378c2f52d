//! The manual, beside the reference.
//!
//! To begin: the [tour]. At work: [recipes](howto), the [command line](command_line), the
//! [defaults] and their reasons, [tuning]. To decide: the [guarantees], the differences from
//! [AWS Kinesis](kinesis) and from the [KCL](workers). To look inside: the [architecture], the
//! [format](mod@format) on disk, and how it is [tested](testing).

#[doc = include_str!("tour.md")]
pub mod tour {}

#[doc = include_str!("howto.md")]
pub mod howto {}

#[doc = include_str!("guarantees.md")]
pub mod guarantees {}

#[doc = include_str!("defaults.md")]
pub mod defaults {}

#[doc = include_str!("tuning.md")]
pub mod tuning {}

#[doc = include_str!("command_line.md")]
pub mod command_line {}

#[doc = include_str!("kinesis.md")]
pub mod kinesis {}

#[doc = include_str!("workers.md")]
pub mod workers {}

#[doc = include_str!("architecture.md")]
pub mod architecture {}

#[doc = include_str!("format.md")]
pub mod format {}

#[doc = include_str!("testing.md")]
pub mod testing {}

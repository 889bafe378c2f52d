//! What the files and directories of a stream are called.

/// Says what a stream is.
pub(crate) const MANIFEST: &str = "MANIFEST";
/// Says who has the stream, or an application, open; for people only.
pub(crate) const OWNER: &str = "OWNER";
/// The directory with a directory for each shard.
pub(crate) const SHARDS: &str = "shards";
/// The directory with a directory for each application.
pub(crate) const APPLICATIONS: &str = "applications";
/// The directory of an application with a file for each pool that runs.
pub(crate) const MEMBERS: &str = "members";
/// The directory of an application with the records that it could not process: a stream.
pub(crate) const DEAD_LETTERS: &str = "dead-letters";
/// The directory of a queue with what has happened to its records: a stream.
pub(crate) const QUEUE: &str = "queue";
/// The directory to which a repair moves what was damaged.
pub(crate) const QUARANTINE: &str = "quarantine";

/// What follows the name of a control row: its shard.
pub(crate) const ROW: &str = ".row";
/// The file of an application that says why its checkpoints were moved; for people only.
pub(crate) const SEEKS: &str = "SEEKS";
/// What follows the name of a member that takes no more shards.
pub(crate) const LEAVING: &str = ".leaving";
/// What follows the name of a file that is being made.
pub(crate) const NEW: &str = ".new";

/// The longest name of an application, in bytes.
pub(crate) const MAX_APPLICATION_NAME_LEN: usize = 128;

/// Whether an application can have this name, which is a directory's.
pub(crate) fn is_application_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let fits = (1..=MAX_APPLICATION_NAME_LEN).contains(&name.len());
    fits && name.bytes().all(allowed) && !name.starts_with('.')
}

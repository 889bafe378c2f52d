//! Bugs that are seeded in the library's own code, to see whether the tests find them. No crate
//! that is built as usual has any: there the question is a constant.

/// Whether the library is to have this bug. In models, and where `cfg(millstream_bugs)` says so,
/// `MILLSTREAM_BUG` names the one there is in this process.
#[cfg(any(loom, shuttle, millstream_bugs))]
#[inline]
pub(crate) fn bug(name: &str) -> bool {
    use std::sync::LazyLock;

    static CHOSEN: LazyLock<String> =
        LazyLock::new(|| std::env::var("MILLSTREAM_BUG").unwrap_or_default());
    *CHOSEN == name
}

#[cfg(not(any(loom, shuttle, millstream_bugs)))]
#[inline(always)]
pub(crate) const fn bug(_: &str) -> bool {
    false
}

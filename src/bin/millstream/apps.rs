//! `millstream apps`: who consumes a stream.

/// The name of an application, as the library has it.
pub(crate) fn parse_name(name: &str) -> Result<String, String> {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    let is_name =
        (1..=128).contains(&name.len()) && name.bytes().all(is_plain) && !name.starts_with('.');
    is_name.then(|| name.to_owned()).ok_or_else(|| {
        "an application's name is 1 to 128 of a-z A-Z 0-9 _ . - without a dot in front".to_owned()
    })
}

//! Tags: texts by key, that stay.

mod common;

use common::{Fixture, S0};
use millstream::{Error, Stream};

#[test]
fn tags_stay_when_the_stream_is_resharded_and_opened_again() {
    let fixture = Fixture::new(1);
    let odd = "a b=c%\n\u{65e5}";
    fixture.stream.set_tag("team", "billing").unwrap();
    fixture.stream.set_tag(odd, odd).unwrap();
    fixture.stream.set_tag("empty", "").unwrap();
    fixture.stream.split_mid(S0).unwrap();
    fixture.stream.set_tag("team", "orders").unwrap();
    let Fixture { stream, directory } = &fixture.reopened();
    let reader = Stream::open_read_only(directory.path()).unwrap();
    for stream in [stream, &reader] {
        let tags: Vec<_> = stream.tags().into_iter().collect();
        let expected = [(odd, odd), ("empty", ""), ("team", "orders")];
        assert_eq!(tags, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
    }
    assert!(stream.remove_tag("team").unwrap());
    assert!(!stream.remove_tag("team").unwrap());
    assert_eq!(reader.tags().len(), 2, "a reader sees what has changed");
    assert!(matches!(reader.set_tag("k", "v"), Err(Error::ReadOnly)));
}

#[test]
fn tags_have_the_limits_that_they_have_in_kinesis() {
    let Fixture { stream, .. } = &Fixture::new(1);
    let long = |count| "\u{e9}".repeat(count);
    for (key, value) in [("", ""), (&long(129), ""), ("k", &long(257))] {
        assert!(matches!(stream.set_tag(key, value), Err(Error::InvalidArgument(_))));
    }
    stream.set_tag(&long(128), &long(256)).unwrap();
    for n in 1..50 {
        stream.set_tag(&n.to_string(), "").unwrap();
    }
    assert!(matches!(stream.set_tag("one more", ""), Err(Error::InvalidArgument(_))));
    stream.set_tag("1", "replaced").unwrap();
    assert_eq!(stream.tags().len(), 50);
}

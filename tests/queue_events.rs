//! What a queue tells those who listen.

use std::fmt::{Debug, Write};
use std::sync::Mutex;
use std::time::Duration;

use millstream::{Queue, Stream};
use tracing::field::{Field, Visit};
use tracing::{Event, Metadata, Subscriber, span};

static HEARD: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Listener;

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() != "queue" {
            write!(self.0, "{}={value:?} ", field.name()).unwrap();
        }
    }
}

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("millstream")
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        HEARD.lock().unwrap().push(text.0);
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        panic!("there are only events");
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

#[test]
fn a_message_that_holds_the_disk_is_told_once() {
    tracing::subscriber::set_global_default(Listener).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let stream = Stream::builder(directory.path()).open().unwrap();
    let queue = Queue::open("q", &stream).unwrap();
    let data = vec![7; 1_000_000];
    let first = stream.put("a", &data).unwrap();
    let stuck = queue.receive(1, Duration::ZERO).unwrap();
    for n in 0..80 {
        assert!(n > 60 || HEARD.lock().unwrap().is_empty(), "after {n} more");
        stream.put("b", &data).unwrap();
        queue.receive(1, Duration::ZERO).unwrap().remove(0).ack().unwrap();
    }
    let heard = HEARD.lock().unwrap();
    assert_eq!(heard.len(), 1);
    let number = format!("sequence_number={} ", first.sequence_number);
    assert!(heard[0].contains(&number) && heard[0].contains("held_bytes=6"), "{heard:?}");
    drop(stuck);
}

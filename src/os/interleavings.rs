//! Sleep and wake-up in every interleaving. A wake-up that is lost is a deadlock here.

use std::sync::Arc;
use std::time::Duration;

use crate::os::explore::{explore, explore_some};
use crate::os::signal::{Bell, Event};
use crate::os::sync::atomic::{AtomicU32, Ordering};
use crate::os::sync_model::engine::thread::spawn;

/// What a sleeper waits for: one of the news from each ringer.
#[derive(Default)]
struct News {
    bell: Bell,
    made: AtomicU32,
}

impl News {
    fn sleep_until(&self, made: u32) {
        let event = Arc::new(Event::default());
        loop {
            self.bell.listen(&event, || ());
            if self.made.load(Ordering::Acquire) == made {
                return self.bell.forget(&event);
            }
            event.wait_for(Duration::MAX);
        }
    }
}

/// A sleeper, and so many others who make news and ring.
fn sleep_beside(ringers: u32, make_and_ring: fn(&News)) {
    let news = Arc::new(News::default());
    for _ in 0..ringers {
        let news = Arc::clone(&news);
        spawn(move || make_and_ring(&news));
    }
    news.sleep_until(ringers);
}

fn ring(news: &News) {
    news.made.fetch_add(1, Ordering::Release);
    news.bell.ring(|| ());
}

#[test]
fn no_wake_up_is_lost() {
    explore("a sleeper and one who rings", || sleep_beside(1, ring));
    explore_some("a sleeper and two who ring", || sleep_beside(2, ring));
}

#[test]
#[ignore = "it takes minutes"]
fn no_wake_up_is_lost_in_every_interleaving() {
    explore("a sleeper and two who ring", || sleep_beside(2, ring));
}

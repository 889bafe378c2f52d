//! The end of the demo: what the workers counted, held against a count of the text alone.

use std::cmp::Reverse;

use indicatif::HumanCount;
use serde_json::{Value, json};

use super::count::{ByClient, Counted};

/// What is to be the same, and is or is not.
pub(super) struct Proof {
    lines: u64,
    clients: u64,
    in_stream: u64,
    counted: u64,
    /// Clients with more or fewer requests than in the text, or that are not in it.
    wrong_count: u64,
    /// Clients with as many requests as in the text, but other ones or in another order.
    wrong_order: u64,
    came_again: u64,
    busiest: Vec<(String, u64, u64)>,
}

impl Proof {
    /// Compares the text's count with the workers'; the stream says it has `in_stream` records.
    pub(super) fn new(text: &ByClient, workers: &Counted, in_stream: u64) -> Self {
        let mut proof = Self {
            lines: text.values().map(|requests| requests.count).sum(),
            clients: text.len() as u64,
            in_stream,
            counted: workers.clients.values().map(|requests| requests.count).sum(),
            wrong_count: 0,
            wrong_order: 0,
            came_again: workers.came_again,
            busiest: Vec::new(),
        };
        for (client, expected) in text {
            let found = workers.clients.get(client).copied().unwrap_or_default();
            proof.busiest.push((client.clone(), expected.count, found.count));
            if found.count != expected.count {
                proof.wrong_count += 1;
            } else if found != *expected {
                proof.wrong_order += 1;
            }
        }
        let strangers = workers.clients.keys().filter(|client| !text.contains_key(*client));
        proof.wrong_count += strangers.count() as u64;
        proof.busiest.sort_by_key(|(client, expected, _)| (Reverse(*expected), client.clone()));
        proof.busiest.truncate(3);
        proof
    }

    pub(super) fn holds(&self) -> bool {
        let Self { lines, in_stream, counted, wrong_count, wrong_order, .. } = *self;
        lines == in_stream && lines == counted && wrong_count == 0 && wrong_order == 0
    }

    pub(super) fn text(&self) -> String {
        let count = |number: u64| HumanCount(number).to_string();
        let mut text = format!(
            "\nThe proof, against a count of the text that knows nothing of the stream\n\
             {:>10} lines in the text\n\
             {:>10} records in the stream\n\
             {:>10} records counted by the workers, {} lost\n\
             {:>10} clients, {} with another count than in the text\n\
             {:>10} clients with their requests in another order than in the text\n\
             {:>10} records came twice, after the panic or the stop, and count once\n",
            count(self.lines),
            count(self.in_stream),
            count(self.counted),
            count(self.lines.saturating_sub(self.counted)),
            count(self.clients),
            count(self.wrong_count),
            count(self.wrong_order),
            count(self.came_again),
        );
        for (client, expected, found) in &self.busiest {
            text += &format!(
                "           {client:<15}  {:>7} requests in the text  {:>7} counted\n",
                count(*expected),
                count(*found)
            );
        }
        text + if self.holds() { "The proof holds.\n" } else { "THE PROOF DOES NOT HOLD.\n" }
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "lines": self.lines,
            "clients": self.clients,
            "records_in_stream": self.in_stream,
            "records_counted": self.counted,
            "clients_with_wrong_count": self.wrong_count,
            "clients_with_wrong_order": self.wrong_order,
            "records_that_came_again": self.came_again,
            "proof_holds": self.holds(),
        })
    }
}

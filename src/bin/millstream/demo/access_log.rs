//! A web access log that was never served: always the same for the same number of lines.

use std::fmt::Write;
use std::net::Ipv4Addr;

const CLIENTS: usize = 5_000;
const PAGES: usize = 800;
const FIRST_SECOND: u64 = 6 * 3600;
const AGENTS: [&str; 5] = [
    "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/126.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) Version/17.5 Mobile Safari/604.1",
    "curl/8.5.0",
    "Googlebot/2.1 (+http://www.google.com/bot.html)",
];
const SECTIONS: [&str; 6] = ["product", "category", "cart", "search", "static/img", "api/v1/items"];

/// The lines of the log, each of a client, and numbered from 1 in its last field.
pub(super) struct AccessLog {
    text: String,
    /// Where each line begins, and where the last one ends.
    bounds: Vec<usize>,
}

impl AccessLog {
    pub(super) fn generate(lines: u64) -> Self {
        let mut log = Self { text: String::new(), bounds: vec![0] };
        let mut random = Random(0x6d69_6c6c_7374_7265);
        let clients = Zipf::new(CLIENTS);
        let pages = Zipf::new(PAGES);
        for number in 1..=lines {
            let client = clients.pick(&mut random);
            let page = pages.pick(&mut random);
            log.push_line(number, client, page, &mut random);
        }
        log
    }

    /// In the "combined" format of web servers, with the number of the request behind it.
    fn push_line(&mut self, number: u64, client: usize, page: usize, random: &mut Random) {
        let second = FIRST_SECOND + number / 12;
        let (hour, minute, second) = (second / 3600 % 24, second / 60 % 60, second % 60);
        let (method, status) = match random.below(100) {
            0..3 => ("GET", 404),
            3 => ("GET", 500),
            4..12 => ("POST", 201),
            12..20 => ("GET", 304),
            _ => ("GET", 200),
        };
        let section = SECTIONS[page % SECTIONS.len()];
        let bytes = 200 + random.below(30_000);
        let agent = AGENTS[client % AGENTS.len()];
        let written = writeln!(
            self.text,
            "{} - - [12/Mar/2025:{hour:02}:{minute:02}:{second:02} +0000] \
             \"{method} /{section}/{page} HTTP/1.1\" {status} {bytes} \"-\" \"{agent}\" {number}",
            address(client),
        );
        debug_assert!(written.is_ok(), "a string takes everything");
        self.bounds.push(self.text.len());
    }

    /// The text itself, as it would be in a file.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn len(&self) -> usize {
        self.bounds.len() - 1
    }

    /// The line at this index, without its line end.
    pub(super) fn line(&self, index: usize) -> &str {
        &self.text[self.bounds[index]..self.bounds[index + 1] - 1]
    }
}

/// The client of a line: its first field.
pub(super) fn client_of(line: &str) -> &str {
    line.split(' ').next().unwrap_or_default()
}

/// The number of a line: its last field.
pub(super) fn number_of(line: &str) -> Option<u64> {
    line.rsplit(' ').next()?.parse().ok()
}

/// An address for each client; none twice, as the factor is odd.
fn address(client: usize) -> Ipv4Addr {
    let bits = (client as u32 + 1).wrapping_mul(0x9e37_79b1);
    Ipv4Addr::from(bits)
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Few are often there, many rarely: the one at rank r with a weight of about 1/r.
struct Zipf {
    /// Sums of the weights up to each rank.
    sums: Vec<u64>,
}

impl Zipf {
    fn new(ranks: usize) -> Self {
        let weights = (0..ranks as u64).map(|rank| 1_000_000_000 / (rank + 10));
        let sums = weights.scan(0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        });
        Self { sums: sums.collect() }
    }

    fn pick(&self, random: &mut Random) -> usize {
        let total = self.sums.last().copied().unwrap_or(1);
        let point = random.below(total);
        self.sums.partition_point(|sum| *sum <= point)
    }
}

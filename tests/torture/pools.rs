//! Processes of one application share a stream that one of them puts to and reshards, and are
//! killed, any of them at any time. All of them speak into one pipe: so what they say is in the
//! order in which it happened.

use std::io::{BufRead, BufReader, PipeWriter, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, unbounded};

use crate::Run;
use crate::common::event::Event;
use crate::common::files::scratch;
use crate::kill::Sum;
use crate::life::Life;
use crate::random::Random;
use crate::victim::Orders;

/// The first one puts, reshards and works, the others work.
const PROCESSES: usize = 4;
/// So many processes of a stream are killed; then a new one begins.
const KILLS_OF_A_LIFE: u64 = 15;

/// A stream, the processes that are there, and what they say.
struct Shared {
    life: Life,
    pipe: PipeWriter,
    lines: Receiver<String>,
    processes: Vec<Child>,
    /// How many processes there were.
    count: u32,
}

impl Shared {
    fn new(life: Life) -> Self {
        let (reader, pipe) = std::io::pipe().unwrap();
        let (sender, lines) = unbounded();
        std::thread::spawn(move || {
            BufReader::new(reader).lines().map_while(Result::ok).for_each(|line| {
                let _ = sender.send(line);
            });
        });
        Self { life, pipe, lines, processes: Vec::new(), count: 0 }
    }

    /// A new process; the one that has the first place puts.
    fn begin(&mut self, place: usize, random: &mut Random) -> Child {
        self.count += 1;
        let works = Orders { process: self.count, works: true, ..self.life.orders(random, 20) };
        let orders = match place {
            0 => Orders { reshards: true, ..works },
            _ => Orders { producers: 0, ..works },
        };
        Command::new(std::env::current_exe().unwrap())
            .arg("victim")
            .arg(&self.life.directory)
            .args(orders.arguments())
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null())
            .stdout(self.pipe.try_clone().unwrap())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// Notes what is said for so long.
    fn listen(&mut self, time: Duration) {
        let deadline = Instant::now() + time;
        // What has come already does not make anybody live longer.
        while Instant::now() < deadline {
            match self.lines.recv_deadline(deadline) {
                Ok(line) => self.life.note(&line),
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => unreachable!("this end is kept open"),
            }
        }
    }

    /// Notes everything up to here: the one that puts is gone.
    fn cut(&mut self) {
        let cut = Event::Cut { power: false }.line();
        self.pipe.write_all(format!("{cut}\n").as_bytes()).unwrap();
        loop {
            let line = self.lines.recv().unwrap();
            self.life.note(&line);
            if line == cut {
                return;
            }
        }
    }

    fn kill(&mut self, place: usize, random: &mut Random) {
        end(&mut self.processes[place]);
        if place == 0 {
            self.cut();
        }
        self.processes[place] = self.begin(place, random);
    }

    /// Kills all of them.
    fn end(mut self) -> Life {
        self.processes.iter_mut().for_each(end);
        self.cut();
        self.life
    }
}

fn end(process: &mut Child) {
    process.kill().unwrap();
    process.wait().unwrap();
}

/// Kills processes that share a stream.
pub(crate) fn run(run: &Run) -> bool {
    let (mut random, mut sum) = (run.random(), Sum::default());
    let kills = run.number("cycles", 30);
    while sum.cycles < kills && sum.broken == 0 {
        let directory = scratch();
        let mut shared = Shared::new(Life::new(&directory.path().join("stream")));
        for place in 0..PROCESSES {
            let process = shared.begin(place, &mut random);
            shared.processes.push(process);
        }
        for _ in 0..KILLS_OF_A_LIFE.min(kills - sum.cycles) {
            shared.listen(Duration::from_micros(5000 + random.below(60_000)));
            // The one that puts is killed as often as one of the others.
            let place = random.below(PROCESSES as u64) as usize;
            shared.kill(place, &mut random);
            sum.cycles += 1;
        }
        let (processes, mut life) = (shared.count, shared.end());
        life.check(false);
        life.finish();
        let is_sound = life.is_sound(&format!("{processes} processes, kill {}", sum.cycles));
        sum.add(&life, is_sound);
    }
    sum.say(run, "kill -9, shared by pools")
}

//! Kills and power cuts, cycle by cycle.

use std::time::Duration;

use crate::Run;
use crate::common::files::scratch;
use crate::disk::{self, Disk};
use crate::life::{Doom, Life};
use crate::random::Random;

/// So many processes share a stream, one after the other; then a new one begins.
const CYCLES_OF_A_LIFE: u64 = 8;

/// What was seen in all lives.
#[derive(Default)]
pub(crate) struct Sum {
    pub(crate) cycles: u64,
    acknowledged: u64,
    scanned: u64,
    delivered: u64,
    lives: u64,
    pub(crate) broken: u64,
}

impl Sum {
    pub(crate) fn add(&mut self, life: &Life, is_sound: bool) {
        self.lives += 1;
        self.acknowledged += life.history.acknowledged;
        self.scanned += life.history.records_scanned;
        self.delivered += life.history.delivered;
        self.broken += u64::from(!is_sound);
    }

    pub(crate) fn say(&self, run: &Run, what: &str) -> bool {
        let Self { cycles, acknowledged, scanned, delivered, lives, broken } = self;
        run.figure(
            what,
            &format!(
                "{cycles} cycles of {lives} streams, {acknowledged} acknowledged, {scanned} \
                 scanned, {delivered} delivered, {broken} streams with anomalies"
            ),
        );
        *broken == 0
    }
}

fn doom(random: &mut Random) -> Doom {
    match random.below(10) {
        // While it starts, and recovers what the last one left.
        0 => Doom::After(Duration::from_micros(random.below(3000))),
        // Right behind something: what has to be there by then?
        1 => Doom::At("reshaped", 1 + random.below(3)),
        2 => Doom::At("ack", 1 + random.below(200)),
        3 => Doom::At("checkpointed", 1 + random.below(5)),
        4 => Doom::At("ended", 1),
        _ => Doom::After(Duration::from_micros(3000 + random.below(25_000))),
    }
}

/// Kills processes.
pub(crate) fn kill(run: &Run) -> bool {
    let durability = run.option("durability", "sync").to_owned();
    let sync = if durability == "os" { 0 } else { 50 };
    let (mut random, mut sum) = (run.random(), Sum::default());
    let cycles = run.number("cycles", 20);
    while sum.cycles < cycles && sum.broken == 0 {
        let directory = scratch();
        let mut life = Life::new(&directory.path().join("stream"));
        for _ in 0..CYCLES_OF_A_LIFE.min(cycles - sum.cycles) {
            let orders = life.orders(&mut random, sync);
            life.live(&orders, &doom(&mut random));
            sum.cycles += 1;
            if !life.check(false) {
                break;
            }
        }
        life.finish();
        let is_sound = life.is_sound(&format!("cycle {}", sum.cycles));
        sum.add(&life, is_sound);
    }
    sum.say(run, &format!("kill -9, {durability}"))
}

/// Kills processes, and cuts the disk off from power.
pub(crate) fn power_cut(run: &Run) -> bool {
    let kind = run.option("disk", "ext4");
    if let Some(outcome) = disk::in_own_mounts(&format!("powercut {kind}")) {
        return outcome;
    }
    let options = run.option("options", "");
    let (mut random, mut sum) = (run.random(), Sum::default());
    let cycles = run.number("cycles", 20);
    while sum.cycles < cycles && sum.broken == 0 {
        let disk = match Disk::new(kind, options) {
            Ok(disk) => disk,
            Err(why) => return disk::skip(&format!("powercut {kind}"), &why),
        };
        let mut life = Life::new(&disk.path().join("stream"));
        for _ in 0..CYCLES_OF_A_LIFE.min(cycles - sum.cycles) {
            let orders = life.orders(&mut random, 30);
            life.live(&orders, &doom(&mut random));
            disk.cut_power();
            sum.cycles += 1;
            if !life.check(true) {
                break;
            }
        }
        life.finish();
        let is_sound = life.is_sound(&format!("cycle {}", sum.cycles));
        sum.add(&life, is_sound);
    }
    sum.say(run, &format!("power cut, {kind} {options}"))
}

//! Power cuts after which any of the last writes may have reached the disk, in any order, whole or
//! torn: everything up to the last flush is there, and of what came later what chance decides.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::Run;
use crate::common::files::scratch;
use crate::disk::{self, Disk};
use crate::life::{Doom, Life};
use crate::random::Random;
use crate::recorder::{self, Reached, Recorder, Recording};

/// So many processes share a stream, one after the other; then a new one begins.
const CYCLES_OF_A_LIFE: u64 = 4;
/// The power fails after no more operations on the disk than this, mostly.
const OPERATIONS: u64 = 300;
/// What a cut may have left. The next process goes on with the last one.
const IMAGES: [Reached; 12] = [
    Reached::None,
    Reached::All,
    Reached::Writes(10),
    Reached::Writes(50),
    Reached::Writes(50),
    Reached::Writes(90),
    Reached::Sectors(10),
    Reached::Sectors(50),
    Reached::Sectors(90),
    Reached::Sectors(97),
    Reached::Writes(75),
    Reached::Sectors(50),
];

/// What was seen in all images.
#[derive(Default)]
struct Sum {
    images: u64,
    cuts: u64,
    writes: u64,
    acknowledged: u64,
    broken: u64,
}

pub(crate) fn run(run: &Run) -> bool {
    let kind = run.option("disk", "ext4");
    let what = format!("blocks {kind}");
    if let Err(why) = recorder::is_possible() {
        return disk::skip(&what, &why);
    }
    if let Some(outcome) = disk::in_own_mounts(&what) {
        return outcome;
    }
    let images = run.number("images", 24);
    let (mut random, mut sum) = (run.random(), Sum::default());
    while sum.images < images && sum.broken == 0 {
        match one_life(kind, images, &mut random, &mut sum) {
            Err(why) if sum.cuts == 0 => return disk::skip(&what, &why),
            done => done.unwrap(),
        }
    }
    let Sum { images, cuts, writes, acknowledged, broken } = sum;
    run.figure(
        &format!("recorded blocks, {kind}"),
        &format!(
            "{images} images of {cuts} cuts, {writes} writes behind the last flush, \
             {acknowledged} acknowledged, {broken} images with anomalies"
        ),
    );
    broken == 0
}

/// A stream through a few cuts; an error if this machine cannot do it.
fn one_life(kind: &str, images: u64, random: &mut Random, sum: &mut Sum) -> Result<(), String> {
    let directory = scratch();
    let image = directory.path().join("image");
    disk::format(kind, &image)?;
    let mut life = Life::new(&image);
    for _ in 0..CYCLES_OF_A_LIFE {
        let recording = record(&mut life, &image, random)?;
        sum.cuts += 1;
        sum.writes += recording.writes() as u64;
        let before = life.clone();
        for (n, reached) in IMAGES.into_iter().enumerate() {
            life = before.clone();
            recording.build(&image, reached, random);
            let what = format!("cut {}, {reached:?}", sum.cuts);
            // Some are gone on with to the end: they are no good for more.
            let is_finished = n == (sum.cuts as usize) % (IMAGES.len() - 1);
            let is_sound = check(&mut life, &image, is_finished, &what);
            sum.images += 1;
            sum.broken += u64::from(!is_sound);
            if !is_sound || sum.images == images {
                sum.acknowledged += life.history.acknowledged;
                return Ok(());
            }
        }
    }
    sum.acknowledged += life.history.acknowledged;
    Ok(())
}

/// Has a process live on the disk with this content until its power fails.
fn record(life: &mut Life, content: &Path, random: &mut Random) -> Result<Recording, String> {
    let recorder = Recorder::new(content)?;
    let disk = Disk::of(&recorder.image(), "")?;
    life.directory = disk.path().join("stream");
    let most = if random.percent(10) { 30 } else { OPERATIONS };
    let doom = recorder::Doom {
        operations: random.below(most),
        writes: [0, 1, 2, 4, 8, 16][random.below(6) as usize],
    };
    let sync = [0, 3, 30][random.below(3) as usize];
    let orders = life.orders(random, sync);
    let written_back = (doom.writes > 1).then(|| disk.path());
    while_written_back(written_back, || {
        let patience = Doom::After(Duration::from_millis(400));
        life.live_from(&orders, &patience, |victim| recorder.doom(victim, doom));
    });
    recorder.cut();
    drop(disk);
    Ok(recorder.finish())
}

/// Does something while the system writes back what it holds for a disk, again and again: much at
/// once, where a sync writes little between two flushes.
fn while_written_back(disk: Option<PathBuf>, work: impl FnOnce()) {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        if let Some(disk) = disk {
            let (disk, is_over) = (File::open(disk).unwrap(), &is_over);
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    // A disk that was cut off may say what it likes.
                    let _ = rustix::fs::syncfs(&disk);
                    std::thread::sleep(Duration::from_millis(5));
                }
            });
        }
        work();
        is_over.store(true, Ordering::Relaxed);
    });
}

/// Looks what is on a disk that was cut off; false if something is wrong.
fn check(life: &mut Life, image: &Path, is_finished: bool, what: &str) -> bool {
    let disk = Disk::of(image, "");
    match &disk {
        Ok(disk) => {
            life.directory = disk.path().join("stream");
            life.check(true);
        }
        Err(why) => life.wrong(why),
    }
    if is_finished {
        life.finish();
    }
    life.is_sound(what)
}

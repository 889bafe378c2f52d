//! How many instructions a put takes, counted by valgrind: a figure that no noise disturbs.

use std::process::Command;

use crate::{Ours, is_wanted};

/// What the program is called with by itself, under valgrind: bytes of a record, and how many.
pub const PUT: &str = "--put";

pub fn put(size: &str, count: &str) {
    let data = vec![7; size.parse().unwrap()];
    puts(&Ours::new(), &data, count.parse().unwrap());
}

/// What valgrind counts: this thread, in here.
#[inline(never)]
fn puts(ours: &Ours, data: &[u8], count: usize) {
    for _ in 0..count {
        ours.stream.put("key-0001", data).unwrap();
    }
}

/// Prints the instructions that the producer's thread takes for a put.
pub fn instructions() {
    let name = "instructions of the producer for a put";
    if !is_wanted(name) {
        return;
    }
    println!("\n{name}");
    for size in [0, 100, 1 << 10, 64 << 10] {
        // Two counts, so that what is done once falls out.
        let counted = [1_000, 3_000].map(|count| counted(size, count));
        match counted {
            [Some(fewer), Some(more)] => {
                println!("  {size:>6} B {:>24.0}", (more - fewer) as f64 / 2_000.0);
            }
            _ => return println!("  SKIP: there is no valgrind"),
        }
    }
}

fn counted(size: usize, count: usize) -> Option<u64> {
    let program = std::env::current_exe().unwrap();
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*puts*"])
        .arg(program)
        .args([PUT, &size.to_string(), &count.to_string()])
        .output()
        .ok()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said.lines().find_map(|line| line.split_once("Collected :"))?;
    collected.1.trim().parse().ok()
}

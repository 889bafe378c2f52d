#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| millstream::fuzzing::queue_entry(input));

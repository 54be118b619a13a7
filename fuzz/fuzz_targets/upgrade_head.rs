#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wharf::fuzzing::upgrade_head(bytes));

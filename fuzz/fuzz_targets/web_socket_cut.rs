#![no_main]

use wharf::fuzzing::{Broken, Heard, Stream};

#[path = "../../crates/wharf/src/fuzzing/web_socket/stranger.rs"]
mod stranger;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wharf::fuzzing::web_socket_cut(bytes, stranger::hear));

//! What the fuzzer drives: the parts that know no socket, each compared with a plain model of itself.
//!
//! A target reads the fuzzer's bytes as steps, takes each step on the production type and on the model, and
//! panics where they differ. It is here because those types are private to the crate; `fuzz/` only passes the
//! bytes in. Inputs worth keeping are in `fuzz/corpus/`; the tests below replay all of them in a plain `cargo
//! test`.

mod buffer;
mod framing;
mod session;
mod timer;
#[cfg(feature = "websocket")]
mod web_socket;

use std::io::IoSlice;

pub use buffer::buffer;
pub use framing::framing;
pub use session::session;
pub use timer::timer;
#[cfg(feature = "websocket")]
pub use web_socket::{Broken, Heard, Stranger, Stream, upgrade_head, web_socket_cut};
#[cfg(all(feature = "websocket", fuzzing))]
pub use web_socket::{Cuts, answers, masks, reads};

/// The byte at a place of a stream: long runs of it lie nowhere else in the same stream, nor in
/// another's, so bytes that were lost, doubled or exchanged are seen.
fn byte_at(stream: u64, place: u64) -> u8 {
    let mixed = (stream << 40 ^ place).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 56) as u8
}

/// So many bytes of a stream.
fn bytes_from(stream: u64, place: u64, count: usize) -> Vec<u8> {
    (place..place + count as u64).map(|place| byte_at(stream, place)).collect()
}

/// What was gathered to be sent, in one piece.
fn joined(slices: &[IoSlice<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for slice in slices {
        bytes.extend_from_slice(slice);
    }
    bytes
}

// Under Miri they would take hours.
#[cfg(all(test, not(miri)))]
mod tests {
    use std::fs;
    use std::path::Path;

    /// Reads every file of a corpus to the target that it belongs to.
    fn replay(name: &str, target: impl Fn(&[u8])) {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
        let mut files: Vec<_> = fs::read_dir(&corpus)
            .unwrap_or_else(|error| panic!("{}: {error}", corpus.display()))
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        assert!(!files.is_empty(), "the corpus is empty");
        for file in files {
            println!("{}", file.display()); // Shown if it fails.
            target(&fs::read(&file).unwrap());
        }
    }

    #[test]
    fn the_corpus_of_framing_holds() {
        replay("framing", super::framing);
    }

    #[test]
    fn the_corpus_of_session_holds() {
        replay("session", super::session);
    }

    #[test]
    fn the_corpus_of_timer_holds() {
        replay("timer", super::timer);
    }

    #[test]
    fn the_corpus_of_buffer_holds() {
        replay("buffer", super::buffer);
    }

    #[cfg(feature = "websocket")]
    #[test]
    fn the_corpus_of_web_socket_cut_holds() {
        let stranger = super::web_socket::stranger::hear;
        replay("web_socket_cut", |bytes| super::web_socket_cut(bytes, stranger));
    }

    #[cfg(feature = "websocket")]
    #[test]
    fn the_corpus_of_upgrade_head_holds() {
        replay("upgrade_head", super::upgrade_head);
    }
}

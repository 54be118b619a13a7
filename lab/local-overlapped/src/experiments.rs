//! Unsafe and wrong on purpose.

use std::cell::UnsafeCell;
use std::hint::black_box;
use std::io::Write;
use std::mem::zeroed;
use std::net::{TcpListener, TcpStream};
use std::os::windows::io::AsRawSocket;
use std::process::Command;
use std::ptr::null_mut;

use windows_sys::Win32::Foundation::{ERROR_OPERATION_ABORTED, GetLastError, HANDLE};
use windows_sys::Win32::Networking::WinSock::{
    SOCKET, WSA_IO_PENDING, WSABUF, WSAGetLastError, WSARecv,
};
use windows_sys::Win32::System::IO::{
    CancelIoEx, CreateIoCompletionPort, GetQueuedCompletionStatus, OVERLAPPED,
};

const INVALID_HANDLE: HANDLE = -1isize as HANDLE;
const BOUND_MS: u32 = 5_000;
/// What the memory of the innocent is filled with.
const CANARY: u64 = 0xC0FF_EE00_C0FF_EE00;
const CANARIES: usize = 512;
/// The names of the modes in which this program starts itself.
const FOLLOW_LOCAL: &str = "follow-local";
const FOLLOW_PINNED: &str = "follow-pinned";

pub fn run() {
    match std::env::args().nth(1).as_deref() {
        Some(FOLLOW_LOCAL) => follow_pointers(post_with_a_local),
        Some(FOLLOW_PINNED) => follow_pointers(post_pinned),
        _ => {
            let experiments = [strangers_memory(), identity(), cancelling(), pointers()];
            println!();
            instruments::verdict(
                experiments.iter().all(|seen| seen.local_did_wrong && seen.pinned_did_right),
                "each experiment goes wrong with a local OVERLAPPED, and right with a pinned one",
            );
        }
    }
}

/// What one experiment showed.
#[derive(Debug, Default)]
struct Seen {
    local_did_wrong: bool,
    pinned_did_right: bool,
}

impl Seen {
    fn note(&mut self, name: &str, did_right: bool) {
        match name {
            "local" => self.local_did_wrong = !did_right,
            _ => self.pinned_did_right = did_right,
        }
    }
}

/// A connection, its server side at a completion port. Each has a peer.
struct Bench {
    port: HANDLE,
    sockets: Vec<TcpStream>,
    peers: Vec<TcpStream>,
}

impl Bench {
    fn new(connections: usize) -> Bench {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (mut sockets, mut peers) = (Vec::new(), Vec::new());
        let port = unsafe { CreateIoCompletionPort(INVALID_HANDLE, null_mut(), 0, 1) };
        assert!(!port.is_null());
        for key in 0..connections {
            peers.push(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
            let socket = listener.accept().unwrap().0;
            let handle = socket.as_raw_socket() as HANDLE;
            assert!(!unsafe { CreateIoCompletionPort(handle, port, key, 0) }.is_null());
            sockets.push(socket);
        }
        Bench { port, sockets, peers }
    }

    fn socket(&self, at: usize) -> SOCKET {
        self.sockets[at].as_raw_socket() as SOCKET
    }

    fn completion(&self) -> Option<Completion> {
        let (mut bytes, mut key, mut overlapped) = (0, 0, null_mut());
        let good = unsafe {
            GetQueuedCompletionStatus(self.port, &mut bytes, &mut key, &mut overlapped, BOUND_MS)
        };
        let error = if good == 0 { unsafe { GetLastError() } } else { 0 };
        (!overlapped.is_null()).then_some(Completion { key, bytes, error, overlapped })
    }
}

#[derive(Debug, Clone, Copy)]
struct Completion {
    /// Which socket: that is the port's own knowledge, and right in every experiment.
    key: usize,
    bytes: u32,
    error: u32,
    /// Which operation, says the port. All that it knows is the address.
    overlapped: *mut OVERLAPPED,
}

/// Where received bytes go: in every experiment a place that lives long enough.
fn buffer() -> &'static UnsafeCell<[u8; 64]> {
    Box::leak(Box::new(UnsafeCell::new([0; 64])))
}

fn post(socket: SOCKET, overlapped: *mut OVERLAPPED) {
    // A local array of WSABUFs is allowed: it is read before the call returns.
    let pieces = [WSABUF { len: 64, buf: buffer().get().cast() }];
    let mut flags = 0;
    let code =
        unsafe { WSARecv(socket, pieces.as_ptr(), 1, null_mut(), &mut flags, overlapped, None) };
    assert!(code == 0 || unsafe { WSAGetLastError() } == WSA_IO_PENDING);
}

/// Posts a receive, and says where its OVERLAPPED is.
type Post = fn(SOCKET) -> *mut OVERLAPPED;

/// The mistake. When this has returned, the OVERLAPPED is memory of whoever is called next.
#[inline(never)]
fn post_with_a_local(socket: SOCKET) -> *mut OVERLAPPED {
    let mut overlapped: OVERLAPPED = unsafe { zeroed() };
    let address = black_box(&raw mut overlapped);
    post(socket, address);
    address
}

/// Calls with some locals of its own between, as every real program has: so a local of what it calls
/// lies where the middle of `innocent`'s array will.
#[inline(never)]
fn from_below(post: Post, socket: SOCKET) -> *mut OVERLAPPED {
    let room = [0u64; CANARIES / 2];
    black_box(&room);
    let address = post(socket);
    black_box(&room);
    address
}

/// As it should be: an allocation of its own, which ends after the completion (here: never).
fn post_pinned(socket: SOCKET) -> *mut OVERLAPPED {
    let overlapped = Box::into_raw(Box::new(unsafe { zeroed() }));
    post(socket, overlapped);
    overlapped
}

// ---- 1. Whose memory the completion is written to ----------------------------------------------

/// Runs on the same stretch of stack as the posting function did. It has no pointer to anything of
/// the operation, and nothing in it writes to its array after the first line.
#[inline(never)]
fn innocent(bench: &mut Bench) -> (Option<Completion>, Vec<(usize, u64)>) {
    let mut memory = [CANARY; CANARIES];
    black_box(&mut memory);
    bench.peers[0].write_all(b"hello").unwrap();
    let completion = bench.completion();
    let changed = black_box(&memory).iter().copied().enumerate();
    (completion, changed.filter(|(_, word)| *word != CANARY).collect())
}

fn strangers_memory() -> Seen {
    println!("1. Whose memory is the completion written to?");
    let mut seen = Seen::default();
    for (name, post) in [("local", post_with_a_local as Post), ("pinned", post_pinned)] {
        let mut bench = Bench::new(1);
        from_below(post, bench.socket(0));
        let (completion, changed) = innocent(&mut bench);
        let bytes = completion.map_or(0, |completion| completion.bytes);
        println!(
            "   {name:6}: a completion of {bytes} bytes; {} words changed of {CANARIES} that \
            an innocent function had for itself",
            changed.len()
        );
        for (at, word) in &changed {
            println!("           word {at}: {CANARY:#x} became {word:#x}");
        }
        seen.note(name, changed.is_empty() && bytes == 5);
    }
    seen
}

// ---- 2. Which operation a completion belongs to ------------------------------------------------

fn identity() -> Seen {
    println!("2. Which operation does a completion belong to?");
    let mut seen = Seen::default();
    for (name, post) in [("local", post_with_a_local as Post), ("pinned", post_pinned)] {
        let mut bench = Bench::new(2);
        let posted: Vec<_> = (0..2).map(|at| post(bench.socket(at))).collect();
        let (mut right, mut told) = (0, Vec::new());
        for at in [1, 0] {
            bench.peers[at].write_all(b"hello").unwrap();
            let completion = bench.completion().expect("a completion");
            // What every program does: from the address to the operation.
            let found = posted.iter().position(|address| *address == completion.overlapped);
            let found_name = found.map_or("?".to_owned(), |found| found.to_string());
            told.push(format!("socket {} completes operation {found_name}", completion.key));
            right += usize::from(found == Some(completion.key));
        }
        let same = if posted[0] == posted[1] { "ONE address" } else { "two addresses" };
        println!("   {name:6}: two operations at {same}; {}: {right} of 2 right", told.join(", "));
        seen.note(name, right == 2);
    }
    seen
}

// ---- 3. What is cancelled -----------------------------------------------------------------------

fn cancelling() -> Seen {
    println!("3. What does a cancel by the OVERLAPPED's address end?");
    let mut seen = Seen::default();
    for (name, post) in [("local", post_with_a_local as Post), ("pinned", post_pinned)] {
        // Two receives of one socket; the first is to be cancelled.
        let bench = Bench::new(1);
        let posted: Vec<_> = (0..2).map(|_| post(bench.socket(0))).collect();
        let asked = unsafe { CancelIoEx(bench.socket(0) as HANDLE, posted[0]) };
        let mut ended = 0;
        while let Some(completion) = bench.completion() {
            ended += usize::from(completion.error == ERROR_OPERATION_ABORTED);
        }
        println!("   {name:6}: CancelIoEx says {asked}, and {ended} of 2 operations ended by it");
        seen.note(name, ended == 1);
    }
    seen
}

// ---- 4. What a program makes of it --------------------------------------------------------------

/// As `innocent`, but its array is one of pointers, and it follows them.
#[inline(never)]
fn follows_pointers(bench: &mut Bench) -> u64 {
    static ONE: u64 = 1;
    let mut pointers = [&raw const ONE; CANARIES];
    black_box(&mut pointers);
    bench.peers[0].write_all(b"hello").unwrap();
    bench.completion();
    black_box(&pointers).iter().map(|pointer| unsafe { **pointer }).sum()
}

fn follow_pointers(post: Post) {
    let mut bench = Bench::new(1);
    from_below(post, bench.socket(0));
    println!("sum {}", follows_pointers(&mut bench));
}

fn pointers() -> Seen {
    println!("4. And if the innocent function's array is one of pointers, which it follows?");
    let mut seen = Seen::default();
    for (name, mode) in [("local", FOLLOW_LOCAL), ("pinned", FOLLOW_PINNED)] {
        let output = Command::new(std::env::current_exe().unwrap()).arg(mode).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let code = output.status.code().map_or(0, |code| code as u32);
        println!("   {name:6}: the process ends with {code:#x} and says {:?}", said.trim());
        seen.note(name, code == 0 && said.trim() == format!("sum {CANARIES}"));
    }
    seen
}

//! The peer, and the bytes that it sends and expects.

use super::*;

#[track_caller]
pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let peer = TcpStream::connect_timeout(&address, BOUND).unwrap();
    peer.set_read_timeout(Some(BOUND)).unwrap();
    peer.set_write_timeout(Some(BOUND)).unwrap();
    peer.set_nodelay(true).unwrap();
    peer
}

/// Whether an error says that the other side reset the connection. Windows says "aborted" when the
/// reset meets something of ours that was under way.
pub(crate) fn is_reset(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionReset)
        || cfg!(windows) && error.kind() == ErrorKind::ConnectionAborted
}

/// Why a session may have ended whose peer has reset the connection. Wine 8 forgets a reset that
/// came while no receive was outstanding: the next receive sees an end of the stream.
pub(crate) fn is_end_by_reset(reason: CloseReason) -> bool {
    let ended = matches!(reason, CloseReason::PeerClosed | CloseReason::PeerClosedInFrame { .. });
    reason == CloseReason::Reset || ended && under_wine()
}

/// Whether this is not Windows itself. Whatever depends on it names what Wine does otherwise.
pub(crate) fn under_wine() -> bool {
    cfg!(windows) && std::env::var_os("WINEPREFIX").is_some()
}

/// Whether an error says that nothing came, or nothing left, in the time that there was for it.
pub(crate) fn is_time_out(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Ends with a reset instead of an end of stream.
pub(crate) fn reset(peer: TcpStream) {
    SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
    drop(peer);
}

/// The next so many bytes.
#[track_caller]
pub(crate) fn read(mut peer: &TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    peer.read_exact(&mut bytes).unwrap();
    bytes
}

/// All there is until the end of the stream, which must come in order.
#[track_caller]
pub(crate) fn read_to_end(mut peer: &TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    peer.read_to_end(&mut bytes).unwrap();
    bytes
}

#[track_caller]
pub(crate) fn write(mut peer: &TcpStream, bytes: &[u8]) {
    peer.write_all(bytes).unwrap();
}

/// Every peer speaks, and again after each rest, until `act` has returned.
pub(crate) fn while_all_speak<R>(
    peers: &[TcpStream],
    word: &[u8],
    rest: Duration,
    act: impl FnOnce() -> R,
) -> R {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let speaker = scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                peers.iter().for_each(|peer| write(peer, word));
                std::thread::sleep(rest);
            }
        });
        let over = SetOnDrop(&is_over);
        let result = act();
        drop(over);
        speaker.join().unwrap();
        result
    })
}

/// Writes until all is taken, or nothing more has been for so long: how many bytes were. Without
/// blocking, since a blocked write whose time is over does not say on Windows what it has written.
#[track_caller]
pub(crate) fn write_while_it_is_taken(
    mut peer: &TcpStream,
    bytes: &[u8],
    patience: Duration,
) -> usize {
    peer.set_nonblocking(true).unwrap();
    let mut written = 0;
    let mut moved_at = Instant::now();
    while written < bytes.len() && moved_at.elapsed() < patience {
        match peer.write(&bytes[written..]) {
            Ok(count) => {
                written += count;
                moved_at = Instant::now();
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => panic!("after {written} bytes: {error}"),
        }
    }
    peer.set_nonblocking(false).unwrap();
    written
}

/// Waits for the end of the stream, in order or by a reset, whatever comes before it.
#[track_caller]
pub(crate) fn wait_ended(mut peer: &TcpStream) {
    let mut bytes = vec![0; 64 * 1024];
    loop {
        match peer.read(&mut bytes) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if is_reset(&error) => return,
            Err(error) => panic!("the stream does not end: {error}"),
        }
    }
}

/// Says something, and gets it back.
#[track_caller]
pub(crate) fn round_trip(peer: &TcpStream, wire: &[u8]) {
    write(peer, wire);
    assert_same(&read(peer, wire.len()), wire);
}

/// Equal, without printing megabytes when not.
#[track_caller]
pub(crate) fn assert_same(found: &[u8], expected: &[u8]) {
    if found == expected {
        return;
    }
    let at = found.iter().zip(expected).take_while(|(a, b)| a == b).count();
    panic!("{} bytes and {} bytes differ from byte {at} on", found.len(), expected.len());
}

#[track_caller]
pub(crate) fn assert_in<T: PartialEq + Debug>(found: T, allowed: &[T]) {
    assert!(allowed.contains(&found), "{found:?} is none of {allowed:?}");
}

/// Numbers that look random and are the same in every run.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// 0 to `end` - 1.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() >> 32) as usize % end
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 7);
        while bytes.len() < count {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(count);
        bytes
    }
}

/// A frame as it goes over the wire: the tests' own idea of it, not the library's.
pub(crate) fn wire(prefix: LengthPrefix, frame: &[u8]) -> Vec<u8> {
    let width = prefix.width.bytes();
    let length = (frame.len() + if prefix.counts_itself { width } else { 0 }) as u64;
    let header = match prefix.endianness {
        Endianness::Big => length.to_be_bytes()[8 - width..].to_vec(),
        Endianness::Little => length.to_le_bytes()[..width].to_vec(),
    };
    [&header, frame].concat()
}

/// With the default prefix: four bytes, big endian.
pub(crate) fn wire_default(frame: &[u8]) -> Vec<u8> {
    wire(LengthPrefix::default(), frame)
}

pub(crate) fn length_framing() -> Framing {
    Framing::length_prefixed(LengthPrefix::default())
}

/// The next frame with the default prefix.
#[track_caller]
pub(crate) fn read_frame(peer: &TcpStream) -> Vec<u8> {
    let header = read(peer, 4);
    let length = u32::from_be_bytes([header[0], header[1], header[2], header[3]]);
    read(peer, length as usize)
}

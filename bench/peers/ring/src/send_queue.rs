//! What waits to be sent to one session: pieces, of which the first few may be in a send.

use std::collections::VecDeque;
use std::ptr;
use std::rc::Rc;

use ring::Ring;

/// The most pieces of one send.
const GATHER_MAX: usize = 16;
/// Small pieces are put together up to this.
const OWN_BYTES_MAX: usize = 16 * 1024;

pub(crate) enum Piece {
    /// In a buffer that the ring has lent.
    Lent {
        buffer: u16,
        bytes: usize,
    },
    Own(Vec<u8>),
    /// Of many sessions.
    Shared(Rc<[u8]>),
}

impl Piece {
    fn bytes<'a>(&'a self, ring: &'a Ring) -> &'a [u8] {
        match self {
            Piece::Lent { buffer, bytes } => ring.lent(*buffer, *bytes),
            Piece::Own(bytes) => bytes,
            Piece::Shared(bytes) => bytes,
        }
    }
}

/// The list of pieces of one send, at an address that stays.
pub(crate) struct Gathered(Box<List>);

struct List {
    message: libc::msghdr,
    pieces: [libc::iovec; GATHER_MAX],
}

impl Gathered {
    fn new() -> Gathered {
        // SAFETY: all zeros is a message without pieces.
        Gathered(Box::new(unsafe { std::mem::zeroed() }))
    }
}

#[derive(Default)]
pub(crate) struct SendQueue {
    pieces: VecDeque<Piece>,
    /// Bytes of the first piece that have left.
    sent_bytes: usize,
    /// Pieces that are in the outstanding send.
    sending: usize,
    gathered: Option<Gathered>,
    pub(crate) own_bytes: usize,
}

impl SendQueue {
    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    pub(crate) fn is_sending(&self) -> bool {
        self.sending > 0
    }

    pub(crate) fn push(&mut self, piece: Piece) {
        self.pieces.push_back(piece);
    }

    /// Copies, to the end of the last piece if that is not being sent.
    pub(crate) fn push_copy(&mut self, bytes: &[u8]) {
        self.own_bytes += bytes.len();
        if self.pieces.len() > self.sending
            && let Some(Piece::Own(last)) = self.pieces.back_mut()
            && last.len() + bytes.len() <= OWN_BYTES_MAX
        {
            last.extend_from_slice(bytes);
        } else {
            self.pieces.push_back(Piece::Own(bytes.to_vec()));
        }
    }

    /// Posts a send of what waits. `spare` is where lists of pieces rest.
    pub(crate) fn post(
        &mut self,
        ring: &mut Ring,
        socket: i32,
        token: u64,
        spare: &mut Vec<Gathered>,
    ) -> std::io::Result<()> {
        assert!(self.sending == 0 && !self.pieces.is_empty());
        self.sending = self.pieces.len().min(GATHER_MAX);
        if self.sending == 1 {
            let bytes = ptr::from_ref(&self.pieces[0].bytes(ring)[self.sent_bytes..]);
            // SAFETY: a piece stays in the queue, and its bytes where they are, until the completion.
            return unsafe { ring.send(socket, &*bytes, token) };
        }
        let mut gathered = spare.pop().unwrap_or_else(Gathered::new);
        for (index, piece) in self.pieces.iter().take(self.sending).enumerate() {
            let bytes = &piece.bytes(ring)[if index == 0 { self.sent_bytes } else { 0 }..];
            gathered.0.pieces[index] =
                libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        }
        gathered.0.message.msg_iov = gathered.0.pieces.as_mut_ptr();
        gathered.0.message.msg_iovlen = self.sending;
        let gathered = self.gathered.insert(gathered);
        // SAFETY: the box is kept, and the pieces too, until the completion.
        unsafe { ring.send_message(socket, &gathered.0.message, token) }
    }

    /// The send has completed with so many bytes: takes away what has left, and says how many
    /// pieces are gone.
    pub(crate) fn sent(
        &mut self,
        mut bytes: usize,
        ring: &mut Ring,
        spare: &mut Vec<Gathered>,
        mut lent_back: impl FnMut(),
    ) {
        spare.extend(self.gathered.take());
        self.sending = 0;
        bytes += std::mem::take(&mut self.sent_bytes);
        while let Some(piece) = self.pieces.front() {
            let length = piece.bytes(ring).len();
            if bytes < length {
                self.sent_bytes = bytes;
                return;
            }
            bytes -= length;
            match self.pieces.pop_front() {
                Some(Piece::Lent { buffer, .. }) => {
                    ring.give_back(buffer);
                    lent_back();
                }
                Some(Piece::Own(bytes)) => self.own_bytes -= bytes.len(),
                _ => {}
            }
        }
        if self.pieces.capacity() > GATHER_MAX {
            self.pieces = VecDeque::new();
        }
    }
}

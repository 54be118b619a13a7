//! A frame that is encoded once, for many.

use std::fmt;
use std::io::IoSlice;
use std::ops::Deref;
use std::sync::Arc;

use crate::buffer::SharedFrame;
use crate::framing::{Framing, Parts};

/// Memory of each wire form of a frame but the first, its bytes not counted.
pub(super) const FORM_BYTES: usize = 112;

/// A frame that the program may keep and send as often as it likes. [`Handle::encode`](crate::Handle::encode)
/// encodes it once; everyone that it is sent to shares it. Cloning it copies no bytes.
///
/// It may be given to another server's handle too. If that server has other framings, each call encodes the
/// frame anew.
#[derive(Clone)]
pub struct Frame {
    /// In the first of the server's wire forms.
    pub(super) first: SharedFrame,
    /// In the others, if there are any.
    pub(super) others: Option<Arc<[SharedFrame]>>,
    pub(super) forms: Arc<[Framing]>,
}

/// A frame as one session is sent it.
pub(super) enum Formed<'f> {
    /// As others are.
    Shared(&'f SharedFrame),
    /// Encoded for it alone.
    #[cfg(feature = "websocket")]
    Own(SharedFrame),
}

impl Deref for Formed<'_> {
    type Target = SharedFrame;

    fn deref(&self) -> &SharedFrame {
        match self {
            Formed::Shared(frame) => frame,
            #[cfg(feature = "websocket")]
            Formed::Own(frame) => frame,
        }
    }
}

/// What a caller gives to be sent.
#[derive(Debug, Clone, Copy)]
pub enum Content<'a> {
    /// Bytes, to be encoded now.
    Plain(&'a [u8]),
    /// The same, which are text where there is a difference.
    Text(&'a str),
    /// The same in several pieces.
    Parts(Parts<'a>),
    /// What was encoded before.
    Encoded(&'a Frame),
}

impl Content<'_> {
    /// How many bytes the program gave.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Content::Plain(bytes) => bytes.len(),
            Content::Text(text) => text.len(),
            Content::Parts(parts) => parts.bytes(),
            Content::Encoded(frame) => frame.body_bytes(),
        }
    }
}

impl Frame {
    /// Of a server whose only framing is raw.
    #[cfg(test)]
    pub(super) fn of(body: &[u8]) -> Frame {
        let (first, forms) = (SharedFrame::new([b"", body]), Arc::from([Framing::raw()]));
        Frame { first, others: None, forms }
    }

    /// How many bytes the program gave.
    pub fn body_bytes(&self) -> usize {
        self.first.body_bytes()
    }

    /// How many bytes it holds, in all wire forms, with [`FORM_BYTES`] for each but the first.
    pub(crate) fn held_bytes(&self) -> usize {
        let others = self.others.as_deref().map_or(0, <[SharedFrame]>::len);
        others * FORM_BYTES + self.all_forms().map(SharedFrame::bytes).sum::<usize>()
    }

    pub(super) fn all_forms(&self) -> impl Iterator<Item = &SharedFrame> {
        std::iter::once(&self.first).chain(self.others.iter().flat_map(|others| others.iter()))
    }

    /// The most bytes that one of its forms has.
    pub(super) fn form_bytes_max(&self) -> usize {
        self.all_forms().map(SharedFrame::bytes).max().unwrap_or(0)
    }

    /// The only form, if there is one: then it need not be looked for.
    pub(crate) fn only_form(&self) -> Option<&SharedFrame> {
        self.others.is_none().then_some(&self.first)
    }

    /// The program gave it as text.
    pub(super) fn is_text(&self) -> bool {
        self.first.is_text()
    }

    pub(super) fn body(&self) -> Vec<IoSlice<'_>> {
        self.first.body().map(IoSlice::new).collect()
    }

    #[inline]
    pub(super) fn in_form(&self, form: u8) -> &SharedFrame {
        match &self.others {
            Some(others) if form > 0 => &others[usize::from(form) - 1],
            _ => &self.first,
        }
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame").field("body_bytes", &self.body_bytes()).finish_non_exhaustive()
    }
}

//! What can be sent.

/// What can be sent: bytes (`&[u8]`, `Vec<u8>`, `&str`, `Arc<[u8]>` and whatever else is `AsRef<[u8]>`), which
/// are encoded at that call, the same in several [`Parts`](crate::Parts), a [`Text`](crate::Text), or a
/// [`Frame`](crate::Frame), which is encoded already.
pub trait AsFrame: sealed::Sealed {}

impl<F: sealed::Sealed> AsFrame for F {}

pub(super) mod sealed {
    use crate::engine::{Content, Frame};
    use crate::face::text::Text;
    use crate::framing::Parts;

    pub trait Sealed {
        /// For bytes this calls code of the user's.
        fn content(&self) -> Content<'_>;
    }

    impl<B: AsRef<[u8]>> Sealed for B {
        #[inline]
        fn content(&self) -> Content<'_> {
            Content::Plain(self.as_ref())
        }
    }

    impl<S: AsRef<str>> Sealed for Text<S> {
        fn content(&self) -> Content<'_> {
            Content::Text(self.0.as_ref())
        }
    }

    impl Sealed for Parts<'_> {
        fn content(&self) -> Content<'_> {
            Content::Parts(*self)
        }
    }

    impl Sealed for Frame {
        fn content(&self) -> Content<'_> {
            Content::Encoded(self)
        }
    }

    impl Sealed for &Frame {
        fn content(&self) -> Content<'_> {
            Content::Encoded(self)
        }
    }
}

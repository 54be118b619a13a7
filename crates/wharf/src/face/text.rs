//! Frames that are text.

/// A frame that is text: over WebSocket it is sent as a text message, as a browser's page expects strings. Elsewhere it
/// is its bytes.
///
/// ```
/// # fn greet(session: &wharf::Session) {
/// session.send(wharf::Text("{\"hello\":1}"));
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Text<S>(pub S);

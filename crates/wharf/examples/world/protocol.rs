//! What is said: frames with a length before them, whose first byte says what they are.

/// From a player: the token by which it logs in.
pub(crate) const LOGIN: u8 = b'L';
/// From a player: how far its avatar goes in each tick, two signed bytes.
pub(crate) const MOVE: u8 = b'M';
/// From a player: a line for its zone. From the world: the same behind four bytes of who says it.
pub(crate) const CHAT: u8 = b'C';
/// From a player: anything, which comes back at once.
pub(crate) const PING: u8 = b'P';
/// From both, when there is nothing else to say.
pub(crate) const ALIVE: u8 = b'H';
/// From the world: four bytes, the player's avatar.
pub(crate) const WELCOME: u8 = b'W';
/// From the world: four bytes of the tick's number, then eight for each avatar in the zone.
pub(crate) const POSITIONS: u8 = b'T';
/// From the world: why it does not do what was asked.
pub(crate) const REFUSED: u8 = b'R';
/// From the world, last of all: why the session ends.
pub(crate) const LAST_WORD: u8 = b'K';

/// A frame of this kind.
pub(crate) fn frame(kind: u8, content: impl AsRef<[u8]>) -> Vec<u8> {
    [&[kind], content.as_ref()].concat()
}

/// The number that begins there. `None`: there are too few bytes.
pub(crate) fn number(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.first_chunk()?))
}

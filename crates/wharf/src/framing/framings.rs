//! The framings of a server.

use std::fmt;
use std::sync::Arc;

use super::kind::{Framing, Kind};
#[cfg(feature = "websocket")]
use super::web_socket::WebSocketForm;
#[cfg(feature = "websocket")]
use crate::transport::web_socket::Role;

/// The framings declared at the start. A session has one of them, and may change to another; its slot has the index. The
/// array has a place for each value of the byte, so no index is out of range.
#[derive(Clone)]
pub(crate) struct Framings {
    places: Box<[Framing; 256]>,
    declared: usize,
    /// How many of the last ones are those that sessions may change to; of these, how many of the first the program has
    /// not given.
    further: usize,
    hidden: usize,
    /// For a framing that compresses, the one that does not.
    #[cfg(feature = "deflate")]
    without_deflate: Vec<(u8, u8)>,
    /// Those that differ: what is published is encoded once in each.
    forms: Arc<[Framing]>,
    /// Which of the forms each place has.
    form_of: [u8; 256],
}

impl Framings {
    /// At least one, and at most as many as there are places.
    pub(crate) fn of(declared: &[Framing]) -> Self {
        assert!(!declared.is_empty(), "there is a framing");
        assert!(declared.len() <= Self::MAX, "there are as many places");
        let mut places = vec![Framing(Kind::Raw); 256];
        places[..declared.len()].clone_from_slice(declared);
        #[cfg(feature = "websocket")]
        for sends_text in [false, true] {
            let role = Role::Client;
            let form = WebSocketForm {
                role,
                sends_text,
                message_bytes_max: 0, // each session has its own
                #[cfg(feature = "deflate")]
                deflate: None,
            };
            places[usize::from(Self::of_client(sends_text))] = Framing::web_socket(form);
        }
        let Ok(places) = places.try_into() else { unreachable!("there are as many places") };
        let mut forms: Vec<Framing> = Vec::new();
        let mut form_of = [0; 256];
        for (place, framing) in form_of.iter_mut().zip(declared) {
            let form = framing.form();
            let known = forms.iter().position(|known| *known == form);
            *place = known.unwrap_or(forms.len()) as u8; // there are no more than places
            if known.is_none() {
                forms.push(form);
            }
        }
        Framings {
            places,
            declared: declared.len(),
            further: 0,
            hidden: 0,
            #[cfg(feature = "deflate")]
            without_deflate: Vec::new(),
            forms: forms.into(),
            form_of,
        }
    }

    /// The same; sessions may change to so many of the last ones.
    pub(crate) fn with_further(declared: &[Framing], further: usize) -> Self {
        debug_assert!(further < declared.len(), "the first is that of connects");
        Framings { further, ..Framings::of(declared) }
    }

    /// The same; before those that sessions may change to there are these: for a framing that compresses, the place of
    /// the one that does not.
    #[cfg(feature = "deflate")]
    pub(crate) fn with_hidden(mut self, without_deflate: Vec<(u8, u8)>) -> Self {
        self.hidden = without_deflate.len();
        self.further += self.hidden;
        self.without_deflate = without_deflate;
        self
    }

    /// For a framing that compresses, the one that does not.
    #[cfg(feature = "deflate")]
    pub(crate) fn without_deflate(&self, index: u8) -> Option<u8> {
        self.without_deflate.iter().find(|(with, _)| *with == index).map(|(_, without)| *without)
    }

    /// The index of the one that sessions may change to and that is at this place among those.
    pub(crate) fn further(&self, place: usize) -> Option<u8> {
        // There are no more than places.
        let given = self.further - self.hidden;
        (place < given).then(|| (self.declared - given + place) as u8)
    }

    /// Whether it is one of those that sessions may change to.
    pub(crate) fn is_further(&self, index: u8) -> bool {
        (self.declared - self.further..self.declared).contains(&index.into())
    }

    pub(crate) fn declared(&self) -> &[Framing] {
        &self.places[..self.declared]
    }

    /// The framings that differ in what is sent.
    pub(crate) fn forms(&self) -> &Arc<[Framing]> {
        &self.forms
    }

    /// Which of them a session has whose slot says this index.
    #[inline]
    pub(crate) fn form_of(&self, index: u8) -> u8 {
        self.form_of[usize::from(index)]
    }

    /// The most that may be declared.
    pub(crate) const MAX: usize = 254;

    /// That of the messages of WebSocket clients: every server has it, beside those that were declared, and nothing is
    /// encoded in it for many.
    #[cfg(feature = "websocket")]
    pub(crate) const fn of_client(sends_text: bool) -> u8 {
        Self::MAX as u8 + sends_text as u8
    }

    /// Whether what is sent is masked, with a key that is drawn for each frame.
    #[inline]
    pub(crate) fn masks(index: u8) -> bool {
        cfg!(feature = "websocket") && usize::from(index) >= Self::MAX
    }

    pub(crate) fn get(&self, index: u8) -> &Framing {
        &self.places[usize::from(index)]
    }

    /// Asserts that this index was declared.
    pub(crate) fn assert_declared(&self, index: u8) {
        let is_declared = usize::from(index) < self.declared || Self::masks(index);
        assert!(is_declared, "a framing is declared, then used");
    }
}

impl From<Framing> for Framings {
    fn from(only: Framing) -> Self {
        Framings::of(&[only])
    }
}

impl fmt::Debug for Framings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.places[..self.declared]).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::length::LengthPrefix;
    use super::*;

    #[test]
    fn a_framing_is_had_by_its_index_and_no_index_is_out_of_range() {
        let prefixed = Framing::length_prefixed(LengthPrefix::default());
        let framings = Framings::of(&[Framing::raw(), prefixed.clone(), Framing::raw()]);
        assert_eq!((framings.get(0), framings.get(1)), (&Framing::raw(), &prefixed));
        assert_eq!([0, 1, 2].map(|index| framings.form_of(index)), [0, 1, 0]);
        assert_eq!(**framings.forms(), [Framing::raw(), prefixed]);
        framings.get(u8::MAX);
        assert!(framings.form_of(u8::MAX) < 2);
    }

    #[test]
    #[should_panic(expected = "a framing is declared")]
    fn no_session_is_given_a_framing_that_was_not_declared() {
        Framings::of(&[Framing::raw()]).assert_declared(1);
    }
}

//! The scenario `framings`: a listener for each of several framings, sessions of all of them in the same groups, and
//! sessions that change theirs.

use std::net::SocketAddr;

use oorandom::Rand64;
use wharf::{Builder, Framing, Listener};

use crate::forms::{Form, Seen};
use crate::frames::Shape;
use crate::scenario::{Case, Scenario};
use crate::web_socket::WebSockets;

/// What a seed makes of the scenario.
#[derive(Debug, Clone)]
pub(crate) struct Framings {
    /// One for each listener. Sessions may change to each of them, and those that are connected have the first.
    pub(crate) forms: Vec<Form>,
    pub(crate) shape: Shape,
    /// Sessions change theirs.
    pub(crate) changes: bool,
    /// Members are behind.
    pub(crate) is_behind: bool,
    /// Nothing goes wrong but what peers do.
    pub(crate) is_calm: bool,
    /// Some of the forms are WebSocket's.
    pub(crate) web: Option<WebSockets>,
}

/// What is said behind a request for a change that comes later: the old framing must not find it too much.
const UNSEEN_BYTES_MAX: usize = 16_000;
/// The size that frames have where all have the same.
const FRAME_BYTES: usize = 60;

impl Framings {
    /// A sequence of its own: the plans of before do not depend on it.
    pub(crate) fn new(case: &Case) -> Framings {
        let mut random = Rand64::new(u128::from(case.seed) << 32 | 0x5eed_0007);
        let mut one_in = |count: u64| random.rand_range(0..count) == 0;
        let (changes, is_behind, is_calm, is_sized) = (one_in(2), one_in(2), one_in(4), one_in(4));
        let can_be = |form: &Form| is_sized || *form != Form::Fixed;
        let mut forms: Vec<_> = Form::ALL.into_iter().filter(can_be).collect();
        for last in (1..forms.len()).rev() {
            forms.swap(last, random.rand_range(0..last as u64 + 1) as usize);
        }
        forms.truncate(2 + random.rand_range(0..forms.len() as u64 - 1) as usize);
        let shape = Shape::Text { bytes: is_sized.then_some(FRAME_BYTES) };
        Framings { forms, shape, changes, is_behind, is_calm, web: None }
    }

    /// What a case plays of framings, if it plays any.
    pub(crate) fn of(case: &Case) -> Option<Framings> {
        let mut random = Rand64::new(u128::from(case.seed) << 32 | 0x5eed_0008);
        match case.scenario {
            Scenario::Framings => Some(Framings::new(case)),
            Scenario::WebSocket => Some(Framings::with_web_socket(random)),
            Scenario::Mixed | Scenario::Ends | Scenario::Farewells => {
                (random.rand_range(0..4) == 0).then(|| Framings::with_web_socket(random))
            }
            _ => None,
        }
    }

    /// Listeners with WebSocket and without, whose sessions meet in the same groups. What is connected without has the
    /// first form.
    fn with_web_socket(mut random: Rand64) -> Framings {
        const PLAIN: [Form; 4] = [Form::Length, Form::Lines, Form::Varint, Form::Summed];
        let mut below = |count: u64| random.rand_range(0..count);
        let mut forms = vec![PLAIN[if below(2) == 0 { 0 } else { below(4) as usize }], Form::Web];
        if below(2) == 0 {
            forms.push(Form::WebText);
        }
        if below(3) == 0 {
            forms.push(Form::Web); // mostly WebSocket
        }
        let (is_behind, is_calm) = (below(4) == 0, below(8) == 0);
        let shape = Shape::Text { bytes: None };
        let web = Some(WebSockets::draw(&mut random));
        Framings { forms, shape, changes: false, is_behind, is_calm, web }
    }

    /// How many wire forms the server has.
    pub(crate) fn wire_forms(&self) -> usize {
        // What is connected with WebSocket has forms of its own, for text and not.
        self.forms.len() + if self.web.is_some() { 2 } else { 0 }
    }

    /// Whether sessions change theirs in the plan of a seed.
    pub(crate) fn change(case: &Case) -> bool {
        Framings::new(case).changes
    }

    /// Where sessions of a form come.
    pub(crate) fn address(&self, first: SocketAddr, form: usize) -> SocketAddr {
        SocketAddr::new(first.ip(), first.port() + form as u16)
    }

    pub(crate) fn frame_bytes(&self) -> Option<usize> {
        match self.shape {
            Shape::Text { bytes } => bytes,
            Shape::Bytes => None,
        }
    }

    /// A server with a listener for each form, from this address on.
    pub(crate) fn listen(&self, mut builder: Builder, first: SocketAddr) -> Builder {
        let framing = |form: &Form| form.framing(self.frame_bytes());
        let framings: Vec<Framing> = self.forms.iter().map(framing).collect();
        for (place, (form, framing)) in self.forms.iter().zip(&framings).enumerate() {
            let listener = Listener::new(self.address(first, place)).name(form.name());
            builder = builder.listen(match &self.web {
                Some(web) if form.is_web() => listener.transport(web.settings(*form)),
                _ => listener.framing(framing.clone()),
            });
        }
        builder = builder.framing(framings[0].clone());
        if self.changes { builder.framings(framings) } else { builder }
    }

    /// The form of the sessions that come by a listener, or that are connected.
    pub(crate) fn form_of(&self, listener: Option<&Listener>) -> Option<Form> {
        let Some(listener) = listener else { return self.forms.first().copied() };
        let is_its = |form: &&Form| listener.name == form.name();
        self.forms.iter().find(is_its).copied()
    }
}

/// What a peer speaks, and hears.
#[derive(Debug, Clone)]
pub(crate) struct Speaker {
    pub(crate) says: Form,
    pub(crate) hears: Form,
    /// It has asked for another form, in which nothing has come yet.
    changes_to: Option<Form>,
    /// How many changes it has seen.
    pub(crate) changes: usize,
    /// It says no more bytes before the change has come.
    pub(crate) may_say_bytes: usize,
    frame_bytes: Option<usize>,
}

/// How a peer asks for another form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// And goes on in it.
    AtOnce,
    /// Goes on in it, but the server changes only later.
    Later,
}

impl Speaker {
    pub(crate) fn new(form: Form, frame_bytes: Option<usize>) -> Speaker {
        let (says, hears) = (form, form);
        Speaker {
            says,
            hears,
            changes_to: None,
            changes: 0,
            may_say_bytes: usize::MAX,
            frame_bytes,
        }
    }

    /// How it may ask for this form.
    pub(crate) fn may_change_to(&self, form: Form, later: bool) -> Option<Change> {
        if self.changes_to.is_some() || !self.says.may_become(form) {
            return None;
        }
        Some(if later && self.says.sees_no_end_in(form) { Change::Later } else { Change::AtOnce })
    }

    /// It has asked for this form.
    pub(crate) fn has_asked_for(&mut self, form: Form, how: Change) {
        self.may_say_bytes = match how {
            Change::Later => UNSEEN_BYTES_MAX,
            // What is said behind the request would be raw too.
            Change::AtOnce if self.says == Form::Raw => 0,
            Change::AtOnce => usize::MAX,
        };
        (self.says, self.changes_to) = (form, Some(form));
    }

    pub(crate) fn has_said(&mut self, bytes: usize) {
        if self.may_say_bytes < usize::MAX {
            self.may_say_bytes = self.may_say_bytes.saturating_sub(bytes);
        }
    }

    /// Cuts what has come. False: it is no frame.
    pub(crate) fn hear(
        &mut self,
        stream: &mut Vec<u8>,
        mut each: impl FnMut(&[u8], usize),
    ) -> bool {
        let mut at = 0;
        let is_right = loop {
            let rest = &stream[at..];
            if let Some(form) = self.changes_to {
                match form.has_begun(self.hears, rest) {
                    None => break true,
                    Some(false) => {}
                    Some(true) => {
                        (self.hears, self.changes_to) = (form, None);
                        self.may_say_bytes = usize::MAX;
                        self.changes += 1;
                    }
                }
            }
            match self.hears.see(rest, self.frame_bytes) {
                Seen::Frame(frame, next) => {
                    each(&rest[frame], self.changes);
                    at += next;
                }
                Seen::More => break true,
                Seen::Wrong => break false,
            }
        };
        stream.drain(..at);
        is_right
    }
}

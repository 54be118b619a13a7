//! Bytes go back as they come.

use wharf::{Handler, Session};

pub(crate) struct Echo;

impl Handler for Echo {
    type State = ();

    fn opened(&self, _session: &Session) {}

    fn received(&self, session: &Session, _state: &mut (), frame: &[u8]) {
        session.send(frame);
    }
}

//! Sessions with a WebSocket: who may have one, and what is known of it.

use wharf::simulation::{Fault, fires};
use wharf::{Session, Upgrade, UpgradeRequest};

use super::Town;
use crate::forms::Form;
use crate::frames::Request;
use crate::misbehaviour::{may_block, panic_on_purpose};
use crate::rules::Rule;
use crate::web_socket::{REFUSED_PATH, SUBPROTOCOL, is_sent_as_text};

impl Town {
    pub(super) fn answers_request(&self, request: &UpgradeRequest) -> Upgrade {
        may_block();
        if fires(Fault::HandlerPanics) {
            self.truth.lock().web.upgrade_panics += 1;
            panic_on_purpose();
        }
        let status = request.path().strip_prefix(REFUSED_PATH).and_then(|path| path.parse().ok());
        status.map_or(Upgrade::accept(), Upgrade::refuse)
    }

    /// In `opened`: a session has what was learned, if its form is WebSocket's.
    pub(super) fn check_establishment(&self, session: &Session, form: Option<Form>) {
        let establishment = session.establishment();
        let is_web = form.is_some_and(Form::is_web);
        let subprotocol = establishment.as_ref().and_then(|of| of.subprotocol());
        let has_request = establishment.as_ref().is_some_and(|of| of.request().is_some());
        let is_right = establishment.is_some() == is_web
            && has_request == (is_web && form != Some(Form::WebCalls))
            && (!is_web || subprotocol == Some(SUBPROTOCOL));
        let id = session.id();
        let mut truth = self.truth.lock();
        let is_known = form == Some(Form::WebCalls) || !truth.is_corrupt(id);
        if !is_right && is_known {
            let what = format!("{id}, as {form:?}, has {establishment:?}");
            truth.broken(Rule::WebSocketsKeepTheirRules, vec![id.to_bits()], what);
        }
    }

    /// In `received`: a message is text if it was sent as that.
    pub(super) fn check_is_text(&self, session: &Session, frame: &[u8]) {
        let (id, is_text) = (session.id(), session.frame_is_text());
        let mut truth = self.truth.lock();
        if truth.is_corrupt(id) {
            return;
        }
        let is_web = truth.form_of(id).is_some_and(Form::is_web);
        let Some(Request { number, .. }) = Request::read(frame, truth.shape) else { return };
        if is_text != (is_web && is_sent_as_text(number)) {
            let what = format!("request {number} of {id} came as text: {is_text}");
            truth.broken(Rule::WebSocketsKeepTheirRules, vec![id.to_bits()], what);
        }
    }
}

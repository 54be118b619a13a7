//! A page beside a server, in one process: `cargo run --release --manifest-path examples/with_tokio/Cargo.toml [LINES]
//! [PAGE]`, then `nc 127.0.0.1 7000` in several terminals, and http://127.0.0.1:8000/ in a browser.
//!
//! GET / lists the sessions: id, peer, lines that have come. POST /say/ID sends the body to one, as a line:
//! `curl -d ahoy http://127.0.0.1:8000/say/0.1234`.
//!
//! wharf's workers and tokio's runtime are threads of their own, and neither waits for the other. A task sends by the
//! `Handle`, as any thread does; `when_room` is a future of no particular runtime. What the page shows is in a table
//! under a lock, because a session's state belongs to its callbacks.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use tokio::net::TcpListener;
use wharf::{
    CloseReason, Framing, Handle, Handler, Lines, PeerAddress, SendError, Server, Session,
    SessionId,
};

/// Who is there, for the page.
#[derive(Default)]
struct Sessions {
    by_id: Mutex<BTreeMap<SessionId, Shown>>,
}

struct Shown {
    peer: Option<PeerAddress>,
    lines: u64,
}

impl Sessions {
    /// Nothing under it blocks, and no task keeps it while it waits.
    fn by_id(&self) -> MutexGuard<'_, BTreeMap<SessionId, Shown>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Handler for Sessions {
    type State = ();

    fn opened(&self, session: &Session) {
        let shown = Shown { peer: session.peer_address(), lines: 0 };
        self.by_id().insert(session.id(), shown);
    }

    fn received(&self, session: &Session, (): &mut (), _line: &[u8]) {
        if let Some(shown) = self.by_id().get_mut(&session.id()) {
            shown.lines += 1;
        }
    }

    fn closed(&self, session: &Session, (): (), _: CloseReason) {
        self.by_id().remove(&session.id());
    }
}

/// What the page has.
#[derive(Clone)]
struct Page {
    sessions: Arc<Sessions>,
    handle: Handle,
}

async fn list(State(page): State<Page>) -> String {
    let mut text = String::new();
    for (id, Shown { peer, lines }) in &*page.sessions.by_id() {
        let peer = peer.as_ref().map_or_else(|| "gone".to_owned(), PeerAddress::to_string);
        let _ = writeln!(text, "{id} {peer} {lines}"); // a String takes everything
    }
    text
}

/// Waits for room: a peer that reads slowly holds back who speaks to it, and nobody else.
async fn say(
    State(page): State<Page>,
    Path(id): Path<String>,
    line: String,
) -> (StatusCode, String) {
    let Ok(id) = id.parse::<SessionId>() else {
        return (StatusCode::BAD_REQUEST, "there is no such id\n".to_owned());
    };
    loop {
        match page.handle.try_send(id, &line) {
            Ok(()) => return (StatusCode::OK, "said\n".to_owned()),
            Err(SendError::Full { .. }) => {
                if let Err(error) = page.handle.when_room(id, line.len() + 1).await {
                    return (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n"));
                }
            }
            Err(SendError::Gone(_)) => return (StatusCode::NOT_FOUND, "it has gone\n".to_owned()),
            Err(error) => return (StatusCode::BAD_REQUEST, format!("{error}\n")),
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let lines = arguments.next().unwrap_or_else(|| "127.0.0.1:7000".to_owned());
    let at = arguments.next().unwrap_or_else(|| "127.0.0.1:8000".to_owned());
    let sessions = Arc::new(Sessions::default());
    let framing = Framing::lines(Lines::default());
    let server =
        Server::builder().listen(lines.as_str()).framing(framing).start(sessions.clone())?;
    let page = Page { sessions, handle: server.handle() };
    let routes = Router::new().route("/", get(list)).route("/say/{id}", post(say)).with_state(page);
    tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
        let listener = TcpListener::bind(&at).await?;
        println!("listening on {}; {}", server.addresses()[0], server.backend());
        println!("the page is http://{}/", listener.local_addr()?);
        axum::serve(listener, routes).await?;
        Ok(())
    })
}

//! From what `--listen` says to listeners.

use wharf::Listener;

use crate::arguments::unix_path;

pub(crate) fn listeners(texts: &[String]) -> Result<Vec<Listener>, String> {
    let mut listeners = Vec::new();
    for text in texts {
        match unix_path(text) {
            Some(path) => listeners.push(Listener::unix(path)),
            None if text == "inherited" => listeners.extend(inherited()?),
            None => listeners.push(Listener::new(text.as_str())),
        }
    }
    Ok(listeners)
}

/// The sockets that a service manager has opened for this process: sd_listen_fds(3).
#[cfg(unix)]
fn inherited() -> Result<Vec<Listener>, String> {
    let mut given = listenfd::ListenFd::from_env();
    let mut listeners = Vec::new();
    for index in 0..given.len() {
        if let Ok(Some(socket)) = given.take_tcp_listener(index) {
            listeners.push(Listener::from_tcp(socket));
        } else if let Ok(Some(socket)) = given.take_unix_listener(index) {
            listeners.push(Listener::from_descriptor(socket));
        } else {
            return Err(format!("descriptor {} is no listening stream socket", 3 + index));
        }
    }
    if listeners.is_empty() {
        return Err("no socket is inherited: start it by a service manager's socket unit, or by \
                    systemd-socket-activate"
            .to_owned());
    }
    Ok(listeners)
}

#[cfg(not(unix))]
fn inherited() -> Result<Vec<Listener>, String> {
    Err("sockets are inherited from a service manager on Unix alone".to_owned())
}

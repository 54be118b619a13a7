//! A broker for clients of MQTT 3.1.1: `cargo run --release -p wharf-net --example mqtt [ADDR:PORT]`, then
//! `mosquitto_sub -t 'sea/#'` and `mosquitto_pub -t sea/north -m calm`. `WHARF_BACKEND` chooses the port.
//!
//! QoS 0 and 1 (2 is granted as 1), wildcards, retained messages, wills, take-over, keep-alive. All sessions are clean.
//! While there is no room to publish, who publishes is not received from: nothing is lost.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::IoSlice;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use wharf::{
    Backpressure, Close, CloseReason, Framing, Group, Groups, Handle, Handler, Options, Parts,
    PublishError, Server, Session, SessionId, VarintPrefix,
};

const PACKET_BYTES_MAX: usize = (1 << 20) + (64 << 10);
/// What is to be retained beyond these is published, and not kept.
const RETAINED_MAX: usize = 4_096;
const RETAINED_BYTES_MAX: usize = 64 << 10;
/// While so many publications wait for room, no client is accepted.
const HELD_MAX: usize = 10_000;

#[derive(Clone, Default)]
struct Broker(Arc<Mutex<Shared>>);

/// What is published and subscribed to happens under its lock, in one order. Nothing under it blocks.
#[derive(Default)]
struct Shared {
    /// By filter, and 2 if QoS 1 was granted: what that is in the first byte of a packet.
    groups: Groups<(String, u8)>,
    sessions: HashMap<String, SessionId>,
    retained: BTreeMap<String, Arc<Message>>,
    /// What waits for room, of sessions that are not received from; with the first byte of its packet.
    held: VecDeque<(SessionId, Group, u8, Arc<Message>)>,
    /// Of clients' own groups and of packets. Who leaves 65,535 publications unanswered sees an id again.
    number: u64,
}

struct Message {
    topic: String,
    payload: Vec<u8>,
    flags: u8, // of the first byte: 2 for QoS 1, and 1 if it is to be retained
}

struct Client {
    id: String,
    own: Group, // for what is retained
    will: Option<Arc<Message>>,
}

/// The front of a packet: its first byte, and how many follow.
fn head(first: u8, mut bytes: usize) -> Vec<u8> {
    let mut head = vec![first];
    while bytes > 0x7F {
        head.push(bytes as u8 | 0x80);
        bytes >>= 7;
    }
    head.push(bytes as u8);
    head
}

fn matches(filter: &str, topic: &str) -> bool {
    let mut names = topic.split('/');
    let mut is_next = |level| names.next().is_some_and(|name| level == "+" || level == name);
    !(topic.starts_with('$') && filter.starts_with(['+', '#']))
        && filter.split('/').all(|level| level == "#" || is_next(level))
        && (filter.ends_with('#') || names.next().is_none())
}

impl Broker {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes what is held. If there is no room, it goes on with it later, and who came last waits too.
    fn publish(&self, shared: &mut Shared, handle: &Handle) {
        while let Some((from, group, first, message)) = shared.held.front() {
            shared.number += 1;
            let (topic, id) = (message.topic.as_bytes(), shared.number % 0xFFFF + 1);
            let id = &id.to_be_bytes()[6..6 + usize::from(first & 2)];
            let mut head = head(*first, 2 + topic.len() + id.len() + message.payload.len());
            head.extend((topic.len() as u16).to_be_bytes());
            let packet = [&head[..], topic, id, &message.payload].map(IoSlice::new);
            if let Err(PublishError::Full { .. }) = handle.publish(*group, Parts(&packet)) {
                handle.pause_receiving(*from);
                shared.held.back().map(|(last, ..)| handle.pause_receiving(*last));
                let (broker, then) = (self.clone(), handle.clone());
                let go_on = move |()| broker.publish(&mut broker.lock(), &then);
                _ = handle.call_when_room_to_publish(|room| room.map_or((), go_on));
                return;
            }
            handle.resume_receiving(*from);
            shared.held.pop_front();
        }
    }

    fn message(&self, shared: &mut Shared, by: &Session, message: Arc<Message>) {
        if message.flags & 1 > 0 {
            shared.retained.remove(&message.topic);
            let is_kept = (1..=RETAINED_BYTES_MAX).contains(&message.payload.len());
            if is_kept && shared.retained.len() < RETAINED_MAX {
                shared.retained.insert(message.topic.clone(), message.clone());
            }
        }
        for (name, group) in shared.groups.names().filter(|it| matches(&it.0.0, &message.topic)) {
            let first = 0x30 | message.flags & name.1;
            shared.held.push_back((by.id(), group, first, message.clone()));
        }
        self.publish(shared, by.handle());
    }

    fn connect(&self, session: &Session, mut rest: &[u8]) -> Option<Client> {
        if (text(&mut rest)?, *rest.split_off_first()?) != ("MQTT", 4) {
            session.send([0x20, 2, 0, 1]);
            return None;
        }
        let (flags, seconds, id) =
            (*rest.split_off_first()?, rest.split_off(..2)?, text(&mut rest)?);
        let seconds = u64::from(u16::from_be_bytes(seconds.try_into().ok()?));
        let will = match flags & 0x3C {
            0 => None,
            will if will & 4 == 0 || will & 0x18 == 0x18 => return None,
            will => Some(Arc::new(Message {
                topic: name(&mut rest, &[])?.to_owned(),
                payload: bytes(&mut rest)?.to_vec(),
                flags: ((will >> 3 & 3).min(1) * 2) | (will >> 5),
            })),
        };
        (0..(flags >> 6).count_ones()).try_for_each(|_| bytes(&mut rest).map(drop))?; // user, password
        (flags & 1 == 0 && flags >> 6 != 1 && rest.is_empty()).then_some(())?;
        let shared = &mut *self.lock();
        shared.number += 1;
        let own = Group(shared.number);
        let code = match id {
            "" if flags & 2 == 0 => 2, // it could not come back to its session
            _ if shared.held.len() >= HELD_MAX || session.join(own).is_err() => 3,
            _ => 0,
        };
        session.send([0x20, 2, 0, code]);
        (code == 0).then_some(())?;
        session.set_idle_timeout((seconds > 0).then(|| Duration::from_millis(1_500 * seconds)));
        let older = shared.sessions.insert(id.to_owned(), session.id());
        older.filter(|_| !id.is_empty()).map(|id| session.handle().close(id, Close::Drain));
        Some(Client { id: id.to_owned(), own, will })
    }

    /// Of both kinds. Who unsubscribes says no QoS.
    fn subscribe(&self, by: &Session, own: Group, first: u8, mut packet: &[u8]) -> Option<()> {
        let (id, mut asked) = (packet.split_off(..2).filter(|id| **id != [0, 0])?, Vec::new());
        while asked.is_empty() || !packet.is_empty() {
            let filter = name(&mut packet, &["+", "#"])?;
            let qos = if first == 0x82 { *packet.split_off_first()? } else { 0 };
            (qos < 3 && asked.len() < 256).then_some(())?;
            asked.push((filter, qos.min(1) * 2));
        }
        let (shared, mut answer) = (&mut *self.lock(), Vec::new());
        asked.retain(|(filter, qos)| {
            let [granted, other] = [*qos, 2 - qos].map(|qos| (filter.to_string(), qos));
            shared.groups.leave(by.handle(), by.id(), &other);
            if first == 0xA2 {
                shared.groups.leave(by.handle(), by.id(), &granted);
                return false;
            }
            let is_granted = shared.groups.join(by.handle(), by.id(), &granted).is_ok();
            answer.push(if is_granted { qos / 2 } else { 0x80 });
            is_granted
        });
        for it in shared.retained.values() {
            let matching = asked.iter().filter(|(filter, _)| matches(filter, &it.topic));
            let qos = matching.map(|(_, qos)| it.flags & qos).max();
            shared.held.extend(qos.map(|qos| (by.id(), own, 0x31 | qos, it.clone())));
        }
        let head = head((first & 0xF0) + 0x10, 2 + answer.len());
        by.send(Parts(&[&head[..], id, &answer].map(IoSlice::new)));
        self.publish(shared, by.handle());
        Some(())
    }

    /// `None`: the session ends.
    fn packet(&self, by: &Session, client: &mut Option<Client>, mut packet: &[u8]) -> Option<()> {
        let first = *packet.split_off_first()?;
        while *packet.split_off_first()? > 0x7F {} // how many follow: the framing knows it
        match (first, client) {
            (0x10, client @ None) => *client = Some(self.connect(by, packet)?),
            (0x30..0x40, Some(_)) if first & 6 < 4 && first & 14 != 8 => {
                let topic = name(&mut packet, &[])?.to_owned();
                if first & 2 > 0 {
                    let id = packet.split_off(..2).filter(|id| **id != [0, 0])?;
                    by.send([0x40, 2, id[0], id[1]]);
                }
                let message = Message { topic, payload: packet.to_vec(), flags: first & 3 };
                self.message(&mut self.lock(), by, Arc::new(message));
            }
            (0x40, Some(_)) => {} // nothing is kept for it
            (0x82 | 0xA2, Some(client)) => self.subscribe(by, client.own, first, packet)?,
            (0xC0, Some(_)) if packet.is_empty() => by.send([0xD0, 0]),
            (0xE0, Some(client)) if packet.is_empty() => return client.will.take().and(None),
            _ => return None,
        }
        Some(())
    }
}

fn bytes<'p>(packet: &mut &'p [u8]) -> Option<&'p [u8]> {
    let count = u16::from_be_bytes(packet.split_off(..2)?.try_into().ok()?);
    packet.split_off(..count.into())
}

fn text<'p>(packet: &mut &'p [u8]) -> Option<&'p str> {
    std::str::from_utf8(bytes(packet)?).ok().filter(|text| !text.contains('\0'))
}

fn name<'p>(packet: &mut &'p [u8], wildcards: &[&str]) -> Option<&'p str> {
    let is_level = |level: &str| wildcards.contains(&level) || !level.contains(['+', '#']);
    text(packet).filter(|it| !it.is_empty() && !it.contains("#/") && it.split('/').all(is_level))
}

impl Handler for Broker {
    type State = Option<Client>;

    fn opened(&self, _: &Session) -> Option<Client> {
        None
    }

    fn received(&self, session: &Session, client: &mut Option<Client>, packet: &[u8]) {
        self.packet(session, client, packet).unwrap_or_else(|| session.close(Close::Drain));
    }

    fn closed(&self, session: &Session, client: Option<Client>, _: CloseReason) {
        let (Some(Client { id, will, .. }), shared) = (client, &mut *self.lock()) else { return };
        (shared.sessions.get(&id) == Some(&session.id())).then(|| shared.sessions.remove(&id));
        will.into_iter().for_each(|will| self.message(shared, session, will));
    }
}

fn main() -> wharf::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:1883".to_owned());
    let backend = std::env::var("WHARF_BACKEND").as_deref().unwrap_or("auto").parse()?;
    let options = Options::default().with(|options| {
        options.receiving.backpressure = Backpressure::PauseReceive;
        options.sending.queue_bytes_max = 2 * PACKET_BYTES_MAX;
        options.sessions.groups_max = 256;
    });
    let prefix = VarintPrefix::default().offset(1).length_bytes_max(4).kept(true);
    let framing = Framing::varint(prefix.frame_bytes_max(PACKET_BYTES_MAX));
    let server = Server::builder().listen(address.as_str()).framing(framing).options(options);
    let server = server.backend(backend).start(Broker::default())?;
    println!("listening on {}; {}", server.addresses()[0], server.backend());
    server.wait()
}

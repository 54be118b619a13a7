//! Each rule is seen to fail.

use wharf::{Backend, EndOfStream};

use super::*;
use crate::actor::THREADS;
use crate::deeds::Membership;

const ID: u64 = 7;

fn publication(to: To, began: u64) -> Publication {
    Publication { to, began, returned: began + 1, accepted: true }
}

/// A session that a thread sent two frames, published to twice and then asked to drain, its peer, and
/// all as it should be.
fn seen() -> Seen {
    let mut plan = Plan::draw(Backend::Readiness, 1);
    plan.has_short_stall = false;
    plan.options.time.drain_timeout = None;
    plan.options.receiving.end_of_stream = EndOfStream::Told;
    let closed = Some(CloseReason::Local);
    let facts =
        Facts { opened_began: 1, opened_ended: 2, closed, closed_at: 50, ..Facts::default() };
    let facts = Facts { closes: 1, in_town: true, peer: Some(3), ..facts };
    let mut actor = Deeds { from: THREADS, ..Deeds::default() };
    actor.accepted.insert(ID, 2);
    actor.publications = vec![publication(To::All, 10), publication(To::Members(5), 20)];
    let membership = Membership { group: 5, policy: Policy::Close, joins: 15, leaves: u64::MAX };
    actor.memberships.insert(ID, vec![membership]);
    actor.drains.insert(ID, 40);
    let mut peer =
        PeerFacts { number: 3, always_read: true, end: End::Stream, ..Default::default() };
    (peer.reader.session, peer.reader.bytes) = (Some(ID), 200);
    peer.reader.got.insert(THREADS, 2);
    peer.reader.published = vec![(THREADS, 0), (THREADS, 1)];
    peer.reader.groups = HashMap::from([((THREADS, 0), To::All.group()), ((THREADS, 1), 5)]);
    Seen {
        plan,
        sessions: BTreeMap::from([(ID, facts)]),
        connects: BTreeMap::new(),
        actors: BTreeMap::from([(THREADS, actor)]),
        peers: vec![peer],
        end_began: 100,
        cut_at: 100,
    }
}

/// The rules that are broken when something is otherwise.
fn broken(change: impl FnOnce(&mut Seen)) -> Vec<Rule> {
    let mut seen = seen();
    change(&mut seen);
    seen.judge().into_iter().map(|violation| violation.rule).collect()
}

fn facts(seen: &mut Seen) -> &mut Facts {
    seen.sessions.entry(ID).or_default()
}

fn actor(seen: &mut Seen) -> &mut Deeds {
    seen.actors.entry(THREADS).or_default()
}

#[test]
fn a_round_in_which_all_is_well_breaks_no_rule() {
    assert_eq!(broken(|_| {}), []);
}

#[test]
fn a_lost_last_frame_is_seen_unless_something_explains_it() {
    let loses = |seen: &mut Seen| {
        seen.peers[0].reader.got.insert(THREADS, 1);
    };
    assert_eq!(broken(loses), [Rule::FramesArrive]);
    let explained = |explain: fn(&mut Seen)| {
        broken(|seen| {
            loses(seen);
            explain(seen);
        })
    };
    assert_eq!(explained(|seen| facts(seen).stops = 1), []);
    assert_eq!(explained(|seen| seen.peers[0].is_rude = true), []);
    assert_eq!(explained(|seen| facts(seen).closed_at = 120), []);
    assert_eq!(explained(|seen| seen.peers[0].always_read = false), []);
}

#[test]
fn a_lost_last_publication_is_seen() {
    let loses = |seen: &mut Seen| seen.peers[0].reader.published.truncate(1);
    assert_eq!(broken(loses), [Rule::FramesArrive]);
    // Of one that another closed, it is not certain.
    let by_another = |seen: &mut Seen| {
        seen.peers[0].reader.published.pop();
        actor(seen).drains.clear();
    };
    assert_eq!(broken(by_another), []);
    let drained = |seen: &mut Seen| {
        by_another(seen);
        let facts = facts(seen);
        (facts.closed, facts.closed_at) = (Some(CloseReason::Drained), 110);
        seen.cut_at = u64::MAX;
    };
    assert_eq!(broken(drained), [Rule::FramesArrive]);
}

#[test]
fn a_publication_that_is_left_out_is_seen_however_the_session_ended() {
    let left_out = |seen: &mut Seen| {
        seen.peers[0].reader.published.remove(0);
        facts(seen).stops = 1;
    };
    assert_eq!(broken(left_out), [Rule::FramesArriveInOrder]);
}

#[test]
fn a_strangers_publication_is_seen() {
    let stranger = |seen: &mut Seen| actor(seen).memberships.clear();
    assert_eq!(broken(stranger), [Rule::FramesReachTheirSession]);
    let had_left = |seen: &mut Seen| {
        actor(seen).memberships.get_mut(&ID).unwrap()[0].leaves = 18;
    };
    assert_eq!(broken(had_left), [Rule::FramesReachTheirSession]);
    let excepted = |seen: &mut Seen| {
        actor(seen).publications[1].to = To::MembersBut(5, name(ID));
    };
    assert_eq!(broken(excepted), [Rule::FramesReachTheirSession]);
}

#[test]
fn frames_of_nobody_and_of_another_peers_session_are_seen() {
    let invented = |seen: &mut Seen| {
        seen.peers[0].reader.got.insert(THREADS, 3);
    };
    assert_eq!(broken(invented), [Rule::FramesReachTheirSession]);
    assert_eq!(broken(|seen| facts(seen).peer = Some(4)), [Rule::FramesReachTheirSession]);
}

#[test]
fn different_orders_are_seen() {
    let turned = |seen: &mut Seen| {
        let other = seen.peers[0].reader.published.iter().rev().copied().collect();
        let mut peer = PeerFacts { number: 4, end: End::Own, ..PeerFacts::default() };
        peer.reader.published = other;
        seen.peers.push(peer);
    };
    assert_eq!(broken(turned), [Rule::FramesArriveInOrder]);
}

#[test]
fn sessions_that_do_not_end_or_for_no_reason_are_seen() {
    assert_eq!(broken(|seen| facts(seen).closed = None), [Rule::CallbacksInOrder]);
    assert_eq!(broken(|seen| facts(seen).closes = 0), [Rule::ReasonsAreTrue]);
    for reason in [CloseReason::Reset, CloseReason::PeerClosed, CloseReason::HandlerPanicked] {
        let untrue = |seen: &mut Seen| facts(seen).closed = Some(reason);
        assert_eq!(broken(untrue), [Rule::ReasonsAreTrue]);
    }
    let unheard = |seen: &mut Seen| {
        facts(seen).closed = Some(CloseReason::PeerClosed);
        (seen.peers[0].ended_first, seen.peers[0].sent) = (true, 1);
    };
    assert_eq!(broken(unheard), [Rule::ReasonsAreTrue]);
    assert_eq!(
        broken(|seen| seen.peers[0].end = End::None),
        [Rule::PeersSeeAnEnd, Rule::FramesArrive]
    );
}

/// Its peer has finished, and then the program has, by the thread that else drains it.
fn half_closed(seen: &mut Seen) {
    let facts = facts(seen);
    (facts.closes, facts.finishes, facts.peer_finished) = (0, 1, true);
    facts.closed = Some(CloseReason::PeerClosed);
    (facts.received, seen.peers[0].sent, seen.peers[0].ended_first) = (3, 3, true);
}

#[test]
fn a_half_closed_stream_that_loses_something_is_seen() {
    let otherwise = |change: fn(&mut Seen)| {
        broken(|seen| {
            half_closed(seen);
            change(seen);
        })
    };
    assert_eq!(otherwise(|_| {}), []);
    let loses_frame = |seen: &mut Seen| {
        seen.peers[0].reader.got.insert(THREADS, 1);
    };
    assert_eq!(otherwise(loses_frame), [Rule::FramesArrive]);
    let loses_publication = |seen: &mut Seen| {
        seen.peers[0].reader.published.pop();
    };
    assert_eq!(otherwise(loses_publication), [Rule::FramesArrive]);
    assert_eq!(otherwise(|seen| seen.peers[0].end = End::Reset), [Rule::FramesArrive]);
    let unheard = otherwise(|seen| facts(seen).received = 2);
    assert_eq!(unheard, [Rule::ReasonsAreTrue, Rule::EndsAreTold]);
}

#[test]
fn an_end_that_is_told_wrongly_or_not_at_all_is_seen() {
    let otherwise = |change: fn(&mut Seen)| {
        broken(|seen| {
            half_closed(seen);
            change(seen);
        })
    };
    assert_eq!(otherwise(|seen| facts(seen).peer_finished = false), [Rule::ReasonsAreTrue]);
    let by_peer_alone = otherwise(|seen| facts(seen).finishes = 0);
    assert_eq!(by_peer_alone, [Rule::ReasonsAreTrue]);
    let closes = |seen: &mut Seen| {
        seen.plan.options.receiving.end_of_stream = EndOfStream::Closes;
    };
    assert_eq!(otherwise(closes), [Rule::EndsAreTold]);
    // A peer that follows when it sees our end has ended its stream too, else not.
    assert_eq!(otherwise(|seen| seen.peers[0].ended_first = false), []);
    let invented = |seen: &mut Seen| {
        seen.peers[0].ended_first = false;
        facts(seen).finishes = 0;
        facts(seen).closes = 1;
        facts(seen).closed = Some(CloseReason::Local);
    };
    assert_eq!(otherwise(invented), [Rule::EndsAreTold]);
}

/// It is closed with a farewell, which arrives.
fn kicked(seen: &mut Seen) {
    facts(seen).closed = Some(CloseReason::Kicked { code: 70 });
    let said = Said { id: ID, code: 70, has_frame: true, accepted: true };
    actor(seen).farewells.push(said);
    seen.peers[0].reader.farewell = Some(70);
}

#[test]
fn a_farewell_that_is_lost_or_anothers_is_seen() {
    let otherwise = |change: fn(&mut Seen)| {
        broken(|seen| {
            kicked(seen);
            change(seen);
        })
    };
    assert_eq!(otherwise(|_| {}), []);
    let lost = |seen: &mut Seen| seen.peers[0].reader.farewell = None;
    assert_eq!(otherwise(lost), [Rule::FarewellsComeLast]);
    // Also of one that reads slowly, if it has seen the end of the stream.
    let slowly = |seen: &mut Seen| {
        seen.peers[0].reader.farewell = None;
        seen.peers[0].always_read = false;
    };
    assert_eq!(otherwise(slowly), [Rule::FarewellsComeLast]);
    let explained = |seen: &mut Seen| {
        seen.peers[0].reader.farewell = None;
        facts(seen).stops = 1;
    };
    assert_eq!(otherwise(explained), []);
    let behind_our_end = |seen: &mut Seen| {
        seen.peers[0].reader.farewell = None;
        facts(seen).finishes = 1;
    };
    assert_eq!(otherwise(behind_our_end), []);
    let anothers = |seen: &mut Seen| seen.peers[0].reader.farewell = Some(71);
    assert_eq!(otherwise(anothers), [Rule::FarewellsComeLast; 2]);
    let loses_frame = |seen: &mut Seen| {
        seen.peers[0].reader.got.insert(THREADS, 1);
    };
    assert_eq!(otherwise(loses_frame), [Rule::FramesArrive]);
}

#[test]
fn a_farewells_code_is_the_sessions_reason() {
    let otherwise = |change: fn(&mut Seen)| {
        broken(|seen| {
            kicked(seen);
            change(seen);
        })
    };
    let nobody = |seen: &mut Seen| actor(seen).farewells[0].accepted = false;
    assert_eq!(otherwise(nobody), [Rule::ReasonsAreTrue, Rule::FarewellsComeLast]);
    let another = |seen: &mut Seen| facts(seen).closed = Some(CloseReason::Local);
    assert_eq!(otherwise(another), [Rule::FarewellsComeLast]);
    let cut = |seen: &mut Seen| {
        facts(seen).closed = Some(CloseReason::Local);
        facts(seen).stops = 1;
    };
    assert_eq!(otherwise(cut), []);
    let twice = |seen: &mut Seen| {
        let said = Said { code: 71, ..actor(seen).farewells[0] };
        actor(seen).farewells.insert(0, said);
    };
    assert_eq!(otherwise(twice), [Rule::FarewellsComeLast; 2]);
}

#[test]
fn a_connect_without_an_answer_or_given_up_with_frames_is_seen() {
    let connect = Connect { target: Some(Target::Listener), ..Connect::default() };
    let unanswered = |seen: &mut Seen| {
        seen.connects.insert(9, connect.clone());
    };
    assert_eq!(broken(unanswered), [Rule::ConnectsAreAnswered]);
    let answered_twice = |seen: &mut Seen| {
        seen.connects.insert(ID, Connect { failed: 1, ..connect.clone() });
    };
    assert_eq!(broken(answered_twice), [Rule::ConnectsAreAnswered]);
    let given_up = |seen: &mut Seen| {
        let error = Some(ErrorKind::ConnectionAborted);
        seen.connects.insert(9, Connect { failed: 1, error, ..connect.clone() });
        actor(seen).accepted.insert(9, 1);
    };
    assert_eq!(broken(given_up), [Rule::FramesArrive]);
}

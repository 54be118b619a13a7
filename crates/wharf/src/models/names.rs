//! A join by a name against the last member of its group: it leaves, or its session ends and the name is looked at.
//!
//! Shown: in every order the group of the name has the one that joined, so what is published by the name reaches it.

use std::sync::Arc;

use loom::thread;

use super::worker::OwnWorker;
use super::{engine, explore, join_all};
use crate::face::{Groups, Handle};
use crate::session::SessionId;

const ROOM: &u8 = &1;
const OTHER_ROOM: &u8 = &2;

type Act = fn(&Handle, &Groups<u8>, [SessionId; 3]);

/// The first session is in the room. The act takes it out, while the second joins.
fn one_joins(act: Act) {
    let (engine, port) = engine(false, 3);
    let worker = OwnWorker::new(&engine, &port, 0);
    let ids = [0, 1, 2].map(|_| worker.open());
    let groups = Arc::new(Groups::new());
    let handle = Handle::new(engine.clone());
    assert_eq!(groups.join(&handle, ids[0], ROOM), Ok(true));
    let acting = thread::spawn({
        let (handle, groups) = (handle.clone(), groups.clone());
        move || act(&handle, &groups, ids)
    });
    let joining = thread::spawn({
        let (handle, groups) = (handle.clone(), groups.clone());
        move || assert_eq!(groups.join(&handle, ids[1], ROOM), Ok(true))
    });
    join_all([acting, joining]);
    assert_eq!(groups.members(&handle, ROOM), [ids[1]], "the join was lost");
    assert_eq!(groups.leave(&handle, ids[1], ROOM), Some(0));
    assert_eq!(groups.group(ROOM), None);
}

#[test]
fn whoever_joins_as_the_last_member_leaves_is_in_the_group_of_the_name() {
    explore("names: the last leaves, one joins", || {
        one_joins(|handle, groups, [leaves, ..]| {
            groups.leave(handle, leaves, ROOM).expect("it is a member");
        });
    });
}

#[test]
fn whoever_joins_as_an_empty_group_is_looked_at_is_in_the_group_of_the_name() {
    explore("names: the last ends, one joins, a look", || {
        one_joins(|handle, groups, [ends, _, looks]| {
            let engine = handle.engine();
            engine.end_memberships(ends, engine.table.held(ends).expect("it has its own count"));
            assert_eq!(groups.join(handle, looks, OTHER_ROOM), Ok(true));
        });
    });
}

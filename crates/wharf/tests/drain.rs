//! Ending a server: in order, at a deadline, or at once.

#![forbid(unsafe_code)]

#[macro_use]
mod support;

use std::net::TcpStream;
use std::time::{Duration, Instant};

use support::*;
use wharf::{Backend, CloseReason, DrainReport, Framing};

/// Far enough to be never reached.
const LATE: Duration = Duration::from_secs(20);

fn adds_up(report: &DrainReport) -> bool {
    report.live == report.flushed + report.cut_off + report.ended + report.unfinished
}

on_every_backend! {
    fn what_is_queued_leaves_before_the_end(backend) {
        let options = pausing().with(|options| {
options.sending.queue_bytes_max = 64 << 20;
});
        let harness = start(backend, Framing::raw(), options, Behaviour::silent());
        let peers: Vec<_> = (0..4).map(|_| harness.connect_known()).collect();
        let content: Vec<u8> = (0..16u32 << 20).map(|i| (i >> 3) as u8).collect();
        for (_, id) in &peers {
            harness.handle.send(*id, &content).unwrap();
        }
        let report = std::thread::scope(|scope| {
            let drain = scope.spawn(|| harness.handle.drain(LATE).unwrap());
            for (peer, _) in &peers {
                assert_same(&read_to_end(peer), &content);
            }
            let address = harness.address();
            for (peer, _) in &peers {
                let _ = peer.shutdown(std::net::Shutdown::Both);
            }
            let report = drain.join().unwrap();
            assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
            report
        });
        assert_eq!((report.served, report.live, report.flushed), (4, 4, 4));
        assert!(adds_up(&report), "{report:?}");
        for (_, id) in &peers {
            assert_eq!(harness.log.closed(*id), CloseReason::Drained);
        }
        harness.finish();
    }

    fn the_deadline_cuts_off_who_does_not_read(backend) {
        let options = pausing().with(|options| {
options.sending.queue_bytes_max = 64 << 20;
});
        let harness = start(backend, Framing::raw(), options, Behaviour::silent());
        let (_stuck, stuck_id) = harness.connect_known();
        let (quiet, quiet_id) = harness.connect_known();
        let (left, left_id) = harness.connect_known();
        drop(left);
        assert_eq!(harness.log.closed(left_id), CloseReason::PeerClosed);
        harness.handle.send(stuck_id, vec![1; 32 << 20]).unwrap();
        let deadline = Duration::from_millis(300);
        let began = Instant::now();
        let report = std::thread::scope(|scope| {
            let drain = scope.spawn(|| harness.handle.drain(deadline).unwrap());
            assert_eq!(read_to_end(&quiet), b"");
            drop(quiet);
            drain.join().unwrap()
        });
        assert!(began.elapsed() >= deadline);
        assert!(adds_up(&report), "{report:?}");
        assert_eq!((report.served, report.live), (3, 2), "{report:?}");
        assert_eq!((report.flushed, report.cut_off, report.ended), (1, 1, 0), "{report:?}");
        assert!(report.cut_off_bytes > 0 && report.cut_off_bytes <= 32 << 20, "{report:?}");
        assert_eq!(harness.log.closed(stuck_id), CloseReason::Stopped);
        assert_eq!(harness.log.closed(quiet_id), CloseReason::Drained);
        harness.finish();
    }

    fn a_server_without_sessions_drains_at_once(backend) {
        let harness = start(backend, Framing::raw(), one_worker(), Behaviour::silent());
        let report = harness.handle.drain(LATE).unwrap();
        assert_eq!(report, DrainReport::default());
        assert_eq!(harness.handle.drain(LATE).unwrap(), report, "once more changes nothing");
        harness.finish();
    }

    fn a_drain_under_load_accounts_for_every_session(backend) {
        let options = pausing().workers(2);
        let harness = start(backend, Framing::raw(), options, Behaviour::echo());
        let address = harness.address();
        let report = std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(move || {
                    // Comes, talks and goes until nobody lets it in any more.
                    while let Ok(peer) = TcpStream::connect(address) {
                        peer.set_read_timeout(Some(BOUND)).unwrap();
                        for _ in 0..20 {
                            use std::io::{Read, Write};
                            let mut answer = [0; 5];
                            let told = (&peer).write_all(b"hello");
                            if told.and_then(|()| (&peer).read_exact(&mut answer)).is_err() {
                                break;
                            }
                            assert_eq!(&answer, b"hello");
                        }
                    }
                });
            }
            eventually("they talk", || harness.handle.stats().opened > 200);
            harness.handle.drain(LATE).unwrap()
        });
        let stats = harness.handle.stats();
        assert!(adds_up(&report), "{report:?}");
        assert_eq!(report.cut_off, 0, "{report:?}");
        assert_eq!(report.served, stats.opened);
        harness.finish();
    }

    fn a_stop_ends_everything_at_once(backend) {
        let options = pausing().with(|options| {
options.sending.queue_bytes_max = 64 << 20;
});
        let harness = start(backend, Framing::raw(), options, Behaviour::silent());
        let (stuck, id) = harness.connect_known();
        harness.handle.send(id, vec![1; 32 << 20]).unwrap();
        harness.handle.stop();
        assert_eq!(harness.log.closed(id), CloseReason::Stopped);
        drop(stuck);
        harness.finish();
    }
}

//! The session layer as it is written with tokio: a task and a bounded channel for each session, the
//! channels in a `DashMap` by id, `Bytes` cloned to each recipient, the current-thread runtime.
//!
//! As usually (`--usual`), each frame is one write. With care (`--careful`), what waits in the
//! channel is drained, up to 256 frames, into one write.
#![forbid(unsafe_code)]

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;

use bytes::{Bytes, BytesMut};
use dashmap::DashMap;
use protocol::{
    Arguments, FRAME_BYTES, FrameCutter, HEADER_BYTES, Hello, Sent, Workload, announce, run_sender,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// The most frames that wait for one session.
const QUEUE_FRAMES: usize = 256;
/// The most that leave in one write, with care.
const CAREFUL_FRAMES: usize = 256;
const BUFFER_BYTES: usize = 4 * 1024;

struct Server {
    arguments: Arguments,
    /// The most that leave in one write.
    write_frames: usize,
    sessions: DashMap<u64, Sender<Bytes>>,
    /// For `send-by-id`: from the index that a session said to its id.
    ids: Box<[AtomicU64]>,
    greeted: AtomicUsize,
}

impl Server {
    async fn serve(
        &self,
        id: u64,
        mut stream: TcpStream,
        mut queue: Receiver<Bytes>,
    ) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let (mut reader, mut writer) = stream.split();
        let mut cutter = FrameCutter::default();
        let mut buffer = BytesMut::with_capacity(BUFFER_BYTES);
        let mut frames = Vec::new();
        let mut gathered = Vec::new();
        loop {
            tokio::select! {
                count = reader.read_buf(&mut buffer) => {
                    if count? == 0 {
                        return Ok(());
                    }
                    let cut = cutter.cut(&buffer, |payload| self.received(id, payload));
                    cut.map_err(io::Error::other)?;
                    buffer.clear();
                }
                count = queue.recv_many(&mut frames, self.write_frames) => {
                    match &frames[..] {
                        [] => return Ok(()),
                        [frame] => writer.write_all(frame).await?,
                        frames => {
                            gathered.clear();
                            frames.iter().for_each(|frame| gathered.extend_from_slice(frame));
                            writer.write_all(&gathered).await?;
                        }
                    }
                    debug_assert_eq!(count, frames.len());
                    frames.clear();
                }
            }
        }
    }

    fn received(&self, id: u64, payload: &[u8]) {
        let mut frame = BytesMut::with_capacity(HEADER_BYTES + payload.len());
        frame.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        frame.extend_from_slice(payload);
        let frame = frame.freeze();
        match Hello::read(payload) {
            Some(index) => {
                self.send(id, frame);
                self.greeted(id, index as usize);
            }
            None => self.publish(id, &frame),
        }
    }

    /// To every session but the one that says it.
    fn publish(&self, speaker: u64, frame: &Bytes) {
        for session in &self.sessions {
            if *session.key() != speaker {
                // A member that does not read misses it: the load tells.
                let _ = session.value().try_send(frame.clone());
            }
        }
    }

    fn send(&self, id: u64, frame: Bytes) -> Sent {
        match self.sessions.get(&id).map(|session| session.try_send(frame)) {
            Some(Ok(())) => Sent::Queued,
            Some(Err(TrySendError::Full(_))) => Sent::Full,
            Some(Err(TrySendError::Closed(_))) | None => Sent::Gone,
        }
    }

    fn greeted(&self, id: u64, index: usize) {
        if let Some(place) = self.ids.get(index) {
            place.store(id, Ordering::Release);
            self.greeted.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn send_to_all(&self, sender: u32) {
        run_sender(&self.arguments, sender, |index, frame: &[u8; FRAME_BYTES]| {
            let id = self.ids[index].load(Ordering::Relaxed);
            self.send(id, Bytes::copy_from_slice(frame))
        });
    }
}

async fn accept_all(server: Arc<Server>) -> io::Result<()> {
    let listener = TcpListener::bind(server.arguments.listen).await?;
    announce(listener.local_addr()?);
    for id in 0.. {
        let (stream, _) = listener.accept().await?;
        let (sender, queue) = channel(QUEUE_FRAMES);
        server.sessions.insert(id, sender);
        let server = Arc::clone(&server);
        tokio::spawn(async move {
            // A peer that resets ends its own task.
            let _ = server.serve(id, stream, queue).await;
            server.sessions.remove(&id);
        });
    }
    Ok(())
}

fn main() -> io::Result<()> {
    let arguments = Arguments::from_command_line();
    let addressed = match arguments.workload {
        Workload::Broadcast => 0,
        Workload::SendById => arguments.sessions,
        _ => arguments.refuse(),
    };
    let server = Arc::new(Server {
        write_frames: if arguments.has("--careful") { CAREFUL_FRAMES } else { 1 },
        sessions: DashMap::new(),
        ids: (0..addressed).map(|_| AtomicU64::new(0)).collect(),
        greeted: AtomicUsize::new(0),
        arguments,
    });
    if addressed > 0 {
        for sender in 0..server.arguments.senders {
            let server = Arc::clone(&server);
            thread::spawn(move || {
                while server.greeted.load(Ordering::Acquire) < addressed {
                    thread::sleep(std::time::Duration::from_millis(1));
                }
                server.send_to_all(sender as u32);
            });
        }
    }
    tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(accept_all(server))
}

//! The threads that run the jobs of sessions.

use std::io;
use std::sync::mpsc;
use std::thread::JoinHandle;

use super::running::Running;
use crate::engine::Engine;
#[cfg(feature = "simulation")]
use crate::port::Sockets;

impl Running {
    /// Starts the threads of the pool, which wait for [`begin`](Self::begin).
    pub(super) fn start_pool(&mut self) -> io::Result<()> {
        let count = self.engine.options.offload.threads;
        if count == 0 {
            return Ok(());
        }
        self.engine.pool_starts();
        #[cfg(feature = "simulation")]
        let first_place = match &self.engine.sockets {
            Sockets::Simulated(world) => {
                let first = world.expect_threads(count);
                self.places.push((world.clone(), first..first + count));
                first
            }
            Sockets::Os => 0,
        };
        for index in 0..count {
            #[cfg(feature = "simulation")]
            let place = first_place + index;
            #[cfg(not(feature = "simulation"))]
            let place = index;
            let thread = self.start_pool_thread(index, place)?;
            self.threads.push(thread);
            self.pool_threads += 1;
        }
        Ok(())
    }

    fn start_pool_thread(&mut self, index: usize, place: usize) -> io::Result<JoinHandle<()>> {
        let engine = self.engine.clone();
        let name = format!("{}-job-{index}", engine.options.thread_name);
        let (begin, may_begin) = mpsc::channel::<()>();
        let (placed, is_placed) = mpsc::channel();
        self.may_begin.push(begin);
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            engine.serve_on_this_thread(); // a job may not wait for the server
            take_place(&engine, place);
            let _ = placed.send(());
            if may_begin.recv().is_ok() {
                wait_for_turn(&engine);
                while let Some(job) = engine.next_job() {
                    job.run();
                }
                #[cfg(feature = "simulation")]
                engine.pool_thread_ended();
            }
        })?;
        let _ = is_placed.recv();
        Ok(thread)
    }
}

/// In a simulated world nobody looks at what is shared before its turn.
fn wait_for_turn(engine: &Engine) {
    #[cfg(feature = "simulation")]
    if let Sockets::Simulated(world) = &engine.sockets {
        world.wait_for_turn();
    }
    #[cfg(not(feature = "simulation"))]
    let _ = engine;
}

/// In a simulated world: this thread's place.
fn take_place(engine: &Engine, place: usize) {
    #[cfg(feature = "simulation")]
    if let Sockets::Simulated(world) = &engine.sockets {
        world.take_place(place, true);
    }
    #[cfg(not(feature = "simulation"))]
    let _ = (engine, place);
}

//! From addresses, framing and options to a running server.

use std::fmt;
use std::net::ToSocketAddrs;
use std::sync::Arc;

use super::listening::{Listening, Name};
use super::plan::Plan;
use super::select;
use super::server::Server;
use super::start::start_workers;
#[cfg(feature = "simulation")]
use super::start::{StartError, start_on};
use crate::error::Result;
use crate::face::Handler;
use crate::framing::Framing;
#[cfg(feature = "simulation")]
use crate::options::BackendChoice;
use crate::options::{Backend, Options};
#[cfg(feature = "simulation")]
use crate::port::Sockets;
#[cfg(feature = "simulation")]
use crate::port::simulated::{SimulatedPort, World};
#[cfg(feature = "simulation")]
use crate::session::SessionId;

/// What a server or connector will be: addresses, framing, options.
#[derive(Debug, Clone, Default)]
pub struct Builder {
    names: Vec<Name>,
    framing: Framing,
    options: Options,
}

impl Builder {
    /// Adds an address to listen on, or a name that stands for one or several: of these at least one
    /// must be had, and [`Server::listen_failures`] tells of the others. (`localhost` is often a name
    /// of `::1` also where there is no IPv6, as in Docker's containers.) Nothing is bound before
    /// [`start`](Self::start).
    ///
    /// `[::]` takes IPv4 too; see [`Options::ipv6_only`].
    ///
    /// # Errors
    /// [`Error::Resolve`](crate::Error::Resolve) if the name has no address.
    pub fn listen(mut self, address: impl ToSocketAddrs + fmt::Debug) -> Result<Self> {
        self.names.push(Name::resolve(address)?);
        Ok(self)
    }

    /// How bytes become frames. Default [`Framing::raw`].
    pub fn framing(mut self, framing: Framing) -> Self {
        self.framing = framing;
        self
    }

    /// All options at once.
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// How many workers; see [`Options::workers`].
    pub fn workers(mut self, count: usize) -> Self {
        self.options.workers = count;
        self
    }

    /// Which port; see [`Options::backend`].
    pub fn backend(mut self, backend: Backend) -> Self {
        self.options.backend = backend;
        self
    }

    /// Binds, chooses the port, starts the workers. When this returns, connections are accepted.
    ///
    /// # Errors
    /// If an option is outside its range, no address of a name can be listened on, a forced backend
    /// cannot be had, or no thread can be started.
    pub fn start<H: Handler>(self, handler: H) -> Result<Server> {
        let Builder { names, framing, mut options } = self;
        options.check(&framing)?;
        options.workers = options.worker_count();
        let choice = select::choose(&options)?;
        let plan = Plan::new(framing, &options);
        let ports = if choice.backend() == Backend::Iocp { 1 } else { plan.options.workers };
        let Listening { listeners, addresses, failures } = plan.listen(&names, ports)?;
        let (running, choice) = start_workers(&choice, plan, listeners, &Arc::new(handler))?;
        Ok(Server { running, choice, addresses, failures })
    }
}

impl Server {
    /// A server that will listen on `address`; see [`Builder::listen`].
    ///
    /// # Errors
    /// [`Error::Resolve`](crate::Error::Resolve) if the name has no address.
    pub fn bind(address: impl ToSocketAddrs + fmt::Debug) -> Result<Builder> {
        Builder::default().listen(address)
    }
}

/// The connect side: sessions that we begin.
#[derive(Debug)]
pub struct Connector;

impl Connector {
    /// A connector. What [`start`](Builder::start) returns is a [`Server`] without a listener;
    /// its [`Handle::connect`](crate::Handle::connect) begins sessions.
    #[expect(clippy::new_ret_no_self, reason = "it reads as its counterpart Server::bind does")]
    pub fn new() -> Builder {
        Builder::default()
    }
}

#[cfg(feature = "simulation")]
impl Builder {
    /// The same in a simulated world; `is_shared` says of which kind its port is.
    pub(crate) fn start_simulated<H: Handler>(
        self,
        world: &World,
        is_shared: bool,
        handler: H,
    ) -> Result<Server> {
        // This thread waits for workers that wait for their first turn.
        let _undivided = crate::sync::steps::undivided();
        let Builder { names, framing, mut options } = self;
        options.check(&framing)?;
        if options.workers == 0 {
            options.workers = world.workers();
        }
        let workers = options.workers;
        let (clock, sockets) = (world.clone(), Sockets::Simulated(world.clone()));
        let sizes = world.sizes(&options);
        let first_generation = world.first_generation(SessionId::FIRST_GENERATION_BITS);
        let framings = framing.into();
        let plan = Plan { framings, options, clock, sockets, first_generation };
        let ports = if is_shared { 1 } else { workers };
        let Listening { listeners, addresses, failures } = plan.listen(&names, ports)?;
        let first_port = world.make_ports(ports, is_shared, sizes);
        let first_thread = world.expect_threads(workers);
        let (world, handler) = (world.clone(), Arc::new(handler));
        let place = move |index| {
            world.take_place(first_thread + index, true);
            world.clone()
        };
        let started = if is_shared {
            let open = move |index| Ok(SimulatedPort::<true>::open(place(index), first_port));
            start_on(open, plan, listeners, &handler)
        } else {
            let open = move |index| {
                Ok(SimulatedPort::<false>::open(place(index), first_port + index as u32))
            };
            start_on(open, plan, listeners, &handler)
        };
        let running = started.map_err(StartError::plain)?;
        let choice = BackendChoice::Forced(Backend::Simulated);
        Ok(Server { running, choice, addresses, failures })
    }
}

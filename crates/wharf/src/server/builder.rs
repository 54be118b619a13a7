//! From listeners, framing and options to a running server or connector.

use std::sync::Arc;

use super::connector::Connector;
use super::listening::Listening;
use super::plan::Plan;
use super::prepared::Prepared;
#[cfg(feature = "simulation")]
use super::running::Running;
use super::select;
use super::server::Server;
use super::start::start_workers;
#[cfg(feature = "simulation")]
use super::start::{StartError, start_on};
use crate::error::{Error, Result};
use crate::face::Handler;
use crate::framing::{Framing, Framings};
#[cfg(feature = "simulation")]
use crate::options::BackendChoice;
use crate::options::{Backend, Listener, Options};
#[cfg(feature = "simulation")]
use crate::port::Sockets;
#[cfg(feature = "simulation")]
use crate::port::simulated::{SimulatedPort, World};
#[cfg(feature = "simulation")]
use crate::session::SessionId;
#[cfg(feature = "websocket")]
use crate::transport::web_socket::Role;

/// What a server will be: listeners, framing, options. Nothing happens before [`start`](Self::start) or
/// [`prepare`](Self::prepare).
#[derive(Debug, Default)]
#[must_use = "nothing happens before it is started"]
pub struct Builder {
    listeners: Vec<Listener>,
    settings: Settings,
}

/// What a connector will be: framing and options. Nothing happens before [`start`](Self::start).
#[derive(Debug, Default)]
#[must_use = "nothing happens before it is started"]
pub struct ConnectorBuilder {
    settings: Settings,
}

/// What servers and connectors have in common.
#[derive(Debug, Default)]
struct Settings {
    framing: Option<Framing>,
    further_framings: Vec<Framing>,
    options: Options,
    workers: Option<usize>,
    backend: Option<Backend>,
}

/// The setters that servers and connectors have in common.
macro_rules! setters {
    () => {
        /// Sets all options. What [`workers`](Self::workers) and [`backend`](Self::backend) say goes before
        /// them, whether it was said before or is said after.
        pub fn options(mut self, options: Options) -> Self {
            self.settings.options = options;
            self
        }

        /// Adds framings that sessions may change to, by their places in the order in which they were added; see
        /// [`Session::set_framing`](crate::Session::set_framing).
        pub fn framings(mut self, framings: impl IntoIterator<Item = Framing>) -> Self {
            self.settings.further_framings.extend(framings);
            self
        }

        /// Sets how many workers there are; see [`Options::workers`](field@Options::workers).
        pub fn workers(mut self, count: usize) -> Self {
            self.settings.workers = Some(count);
            self
        }

        /// Sets which backend serves; see [`Options::backend`](field@Options::backend).
        pub fn backend(mut self, backend: Backend) -> Self {
            self.settings.backend = Some(backend);
            self
        }
    };
}

impl Server {
    /// What a server will be; [`Builder::start`] makes it.
    pub fn builder() -> Builder {
        Builder::default()
    }
}

impl Connector {
    /// What a connector will be; [`ConnectorBuilder::start`] makes it.
    pub fn builder() -> ConnectorBuilder {
        ConnectorBuilder::default()
    }
}

impl Builder {
    /// Adds a listener: a [`Listener`], or whatever one can be made of, such as `"[::]:7000"`. At most 253.
    pub fn listen(mut self, listener: impl Into<Listener>) -> Self {
        self.listeners.push(listener.into());
        self
    }

    /// Sets how bytes become frames, for every listener that has no [framing](field@Listener::framing) of its
    /// own and for the sessions that [`Handle::connect`](crate::Handle::connect) begins. Default: the framing
    /// of the first listener, or raw.
    pub fn framing(mut self, framing: Framing) -> Self {
        self.settings.framing = Some(framing);
        self
    }

    setters!();

    /// Binds, chooses the backend and starts the workers. When it returns, connections are accepted.
    ///
    /// # Errors
    /// If an option is outside its range, a listener has no address or none that can be listened on, a
    /// backend that was asked for cannot be had, no thread can be started, or the handler's
    /// [`Mailer`](crate::Mailer) is another server's.
    pub fn start<H: Handler>(self, handler: H) -> Result<Server> {
        Ok(self.prepare(handler)?.start())
    }

    /// Does what [`start`](Self::start) does, but lets no worker run yet. So the program has the
    /// [`Handle`](crate::Handle) and the addresses before the first session comes. Until
    /// [`Prepared::start`] whoever connects waits in the kernel's queue.
    ///
    /// # Errors
    /// As of [`start`](Self::start).
    pub fn prepare<H: Handler>(self, handler: H) -> Result<Prepared> {
        let Builder { listeners, settings } = self;
        let (framings, options) = settings.settle(&listeners)?;
        let choice = select::choose(&options)?;
        let mut plan = Plan::new(framings, &options);
        let ports = if choice.backend() == Backend::Iocp { 1 } else { options.workers };
        let Listening { sockets, places, failures } = plan.listen(listeners, ports)?;
        let (running, choice) = start_workers(&choice, plan, sockets, &Arc::new(handler))?;
        Ok(Prepared::new(Server { running, choice, places, failures }))
    }
}

impl ConnectorBuilder {
    /// Sets how bytes become frames. Default [`Framing::raw`].
    pub fn framing(mut self, framing: Framing) -> Self {
        self.settings.framing = Some(framing);
        self
    }

    setters!();

    /// Chooses the backend and starts the workers.
    ///
    /// # Errors
    /// If an option is outside its range, a backend that was asked for cannot be had, no thread can be started, or
    /// the handler's [`Mailer`](crate::Mailer) is another's.
    pub fn start<H: Handler>(self, handler: H) -> Result<Connector> {
        let (framings, options) = self.settings.settle(&[])?;
        let choice = select::choose(&options)?;
        let plan = Plan::new(framings, &options);
        let (running, choice) = start_workers(&choice, plan, Vec::new(), &Arc::new(handler))?;
        Ok(Connector::begin(running, choice))
    }
}

impl Settings {
    /// The framings (that of connects, that of each listener, those that sessions may change to), and the options with
    /// the number of workers known.
    fn settle(self, listeners: &[Listener]) -> Result<(Framings, Options)> {
        let Settings { framing, further_framings, mut options, workers, backend } = self;
        options.workers = workers.unwrap_or(options.workers);
        options.backend = backend.unwrap_or(options.backend);
        let first = || listeners.first().and_then(|listener| listener.framing.clone());
        let of_connects = framing.or_else(first).unwrap_or_default();
        let of_listener = |listener: &Listener| {
            #[cfg(feature = "websocket")]
            if let Some(transport) = &listener.transport {
                return transport.framing(Role::Server);
            }
            listener.framing.clone().unwrap_or(of_connects.clone())
        };
        let further = further_framings.len();
        let framings =
            std::iter::once(of_connects.clone()).chain(listeners.iter().map(of_listener));
        #[cfg(feature = "deflate")]
        let (hidden, places): (Vec<_>, Vec<_>) = listeners
            .iter()
            .zip(1..)
            .filter_map(|(listener, place)| {
                let transport = listener.transport.as_ref()?;
                Some((transport.framing_without_deflate()?, place))
            })
            .unzip();
        #[cfg(feature = "deflate")]
        let framings = framings.chain(hidden);
        let framings: Vec<_> = framings.chain(further_framings).collect();
        if framings.len() > Framings::MAX {
            let (value, rule) = (framings.len() as u64 - 1, "there may be at most 253");
            let name = if further > 0 { "listeners and framings" } else { "listeners" };
            return Err(Error::Option { name, value, rule });
        }
        #[cfg(feature = "websocket")]
        for transport in listeners.iter().filter_map(|listener| listener.transport.as_ref()) {
            transport.check()?;
        }
        for framing in &framings {
            framing.check()?;
            options.check(framing)?;
        }
        options.check_heartbeat(&of_connects)?;
        for listener in listeners {
            let options = options.at(listener);
            options.check_durations()?;
            options.check_heartbeat(&of_listener(listener))?;
        }
        options.workers = options.worker_count();
        let framings = Framings::with_further(&framings, further);
        #[cfg(feature = "deflate")]
        let framings =
            framings.with_hidden(places.into_iter().zip(1 + listeners.len() as u8..).collect());
        Ok((framings, options))
    }
}

#[cfg(feature = "simulation")]
impl Builder {
    /// [`prepare`](Self::prepare) in a simulated world; `is_shared` says of which kind its port is.
    pub(crate) fn prepare_simulated<H: Handler>(
        self,
        world: &World,
        is_shared: bool,
        handler: H,
    ) -> Result<Prepared> {
        let Builder { listeners, settings } = self;
        let (running, Listening { places, failures, .. }) =
            settings.prepare_simulated(listeners, world, is_shared, handler)?;
        let choice = BackendChoice::Forced(Backend::Simulated);
        Ok(Prepared::new(Server { running, choice, places, failures }))
    }
}

#[cfg(feature = "simulation")]
impl ConnectorBuilder {
    /// [`start`](Self::start) in a simulated world; `is_shared` says of which kind its port is.
    pub(crate) fn start_simulated<H: Handler>(
        self,
        world: &World,
        is_shared: bool,
        handler: H,
    ) -> Result<Connector> {
        let (running, _) =
            self.settings.prepare_simulated(Vec::new(), world, is_shared, handler)?;
        Ok(Connector::begin(running, BackendChoice::Forced(Backend::Simulated)))
    }
}

#[cfg(feature = "simulation")]
impl Settings {
    fn prepare_simulated<H: Handler>(
        mut self,
        listeners: Vec<Listener>,
        world: &World,
        is_shared: bool,
        handler: H,
    ) -> Result<(Running, Listening)> {
        // This thread waits for workers that wait for their first turn.
        let _undivided = crate::sync::steps::undivided();
        if self.workers.unwrap_or(self.options.workers) == 0 {
            self.workers = Some(world.workers());
        }
        let (framings, options) = self.settle(&listeners)?;
        let workers = options.workers;
        let (clock, made_by) = (world.clone(), Sockets::Simulated(world.clone()));
        let sizes = world.sizes(&options);
        let first_generation = world.first_generation(SessionId::FIRST_GENERATION_BITS);
        let mut plan = Plan::of(framings, options, clock, made_by, first_generation);
        let ports = if is_shared { 1 } else { workers };
        let mut listening = plan.listen(listeners, ports)?;
        let sockets = std::mem::take(&mut listening.sockets);
        let first_port = world.make_ports(ports, is_shared, sizes);
        let first_thread = world.expect_threads(workers);
        let places = (world.clone(), first_thread..first_thread + workers);
        let (world, handler) = (world.clone(), Arc::new(handler));
        let place = move |index| {
            world.take_place(first_thread + index, true);
            world.clone()
        };
        let started = if is_shared {
            let open = move |index| Ok(SimulatedPort::<true>::open(place(index), first_port));
            start_on(open, plan, sockets, &handler)
        } else {
            let open = move |index| {
                Ok(SimulatedPort::<false>::open(place(index), first_port + index as u32))
            };
            start_on(open, plan, sockets, &handler)
        };
        let mut running = started.map_err(StartError::plain)?;
        running.places.push(places);
        Ok((running, listening))
    }
}

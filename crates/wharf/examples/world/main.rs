//! A world of zones, in which avatars go about, on a thread of its own, thirty times a second:
//! `cargo run --release -p wharf-net --example world serve [ADDR:PORT] [--json FILE]`, and in another terminal
//! `... world bots 127.0.0.1:7000 --count 2000`. `WHARF_BACKEND` chooses the port, `WORKERS` how many workers there are.
//!
//! - `gate.rs` is the handler: logins by token, which a database is asked about; pings; how much one may say.
//! - `world.rs` is the world: it takes events, ticks, and sends each zone its positions.
//! - `protocol.rs` says what is said, `database.rs` is the database, `figures.rs` the line a second.
//! - `bots.rs` and `slow.rs` are players by the thousand.

mod bots;
mod database;
mod figures;
mod gate;
mod protocol;
mod slow;
mod world;

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use wharf::{Framing, Heartbeat, LengthPrefix, Mailer, Options, Server};

use crate::bots::Wanted;
use crate::figures::Figures;
use crate::gate::Gate;
use crate::protocol::ALIVE;

const USAGE: &str = "\
usage: world serve [ADDR:PORT] [--json FILE]
       world bots ADDR:PORT [--count N] [--slow PERCENT] [--secs N] [--phase-secs N] [--json FILE]
  Exit codes of bots: 0 all went well, 1 a bot was closed or something was lost, 2 usage.";
/// What has come and the world has not taken yet has so many bytes at most.
const EVENTS_BYTES_MAX: usize = 16 << 20;

fn framing() -> Framing {
    Framing::length_prefixed(LengthPrefix::default())
}

fn options() -> Options {
    let workers = std::env::var("WORKERS").ok().and_then(|workers| workers.parse().ok());
    Options::default().workers(workers.unwrap_or(0)).with(|options| {
        options.offload.threads = 8; // 400 logins a second
        options.offload.jobs_max = 4_096; // who comes when all come at once waits for 10 s
        options.time.heartbeat = Some(Heartbeat::new(Duration::from_secs(5), [ALIVE]));
        options.time.idle_timeout = Some(Duration::from_secs(15));
        // What lies in the kernel for one who reads slowly is old when it comes.
        options.sending.kernel_bytes = Some(8 * 1024);
    })
}

fn serve(address: &str, json: Option<&str>) -> wharf::Result<()> {
    let backend = std::env::var("WHARF_BACKEND").as_deref().unwrap_or("auto").parse()?;
    let (world, events) = wharf::events(EVENTS_BYTES_MAX);
    let mailer = Mailer::new();
    let gate = Gate { world, mailer: mailer.clone() };
    let builder = Server::builder().listen(address).framing(framing()).options(options());
    let server = builder.backend(backend).start(mailer.with(gate))?;
    println!("listening on {}; {}", server.addresses()[0], server.backend());
    let (figures, handle) = (Arc::new(Figures::default()), server.handle());
    {
        let (figures, handle) = (figures.clone(), handle.clone());
        thread::spawn(move || world::run(events, &handle, &figures));
    }
    let json = json.map(str::to_owned);
    thread::spawn(move || {
        if let Err(error) = figures.say(&handle, json.as_deref()) {
            eprintln!("the figures cannot be written: {error}");
        }
    });
    server.wait()
}

/// `None`: they are no such arguments.
fn bots(address: &str, mut rest: &[&str]) -> Option<(Wanted, Option<String>)> {
    let address = address.parse().ok()?;
    let mut wanted = Wanted { address, bots: 2_000, slow: 10, seconds: 60, phase_seconds: 10 };
    let mut json = None;
    while let [name, value, others @ ..] = rest {
        match *name {
            "--count" => wanted.bots = value.parse().ok()?,
            "--slow" => wanted.slow = value.parse().ok().filter(|percent| *percent <= 100)?,
            "--secs" => wanted.seconds = value.parse().ok()?,
            "--phase-secs" => wanted.phase_seconds = value.parse().ok()?,
            "--json" => json = Some((*value).to_owned()),
            _ => return None,
        }
        rest = others;
    }
    wanted.slow *= wanted.bots / 100;
    rest.is_empty().then_some((wanted, json))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["serve"] => return Ok(serve("127.0.0.1:7000", None)?),
        ["serve", address] => return Ok(serve(address, None)?),
        ["serve", address, "--json", file] => return Ok(serve(address, Some(file))?),
        ["bots", address, ref rest @ ..] => {
            if let Some((wanted, json)) = bots(address, rest) {
                std::process::exit(i32::from(!bots::run(wanted, json.as_deref())?));
            }
        }
        _ => {}
    }
    eprintln!("{USAGE}");
    std::process::exit(2)
}

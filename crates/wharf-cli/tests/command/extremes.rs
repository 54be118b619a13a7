//! Every option of every subcommand, with values that it may not have, or can hardly have.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::running::{EchoServer, Folder, Output, Started, until, wharf};

const VALUES: [&str; 20] = [
    "",
    "0",
    "-1",
    "0.5",
    "1e-9",
    "1e-300",
    "100000",
    "4294967295",
    "4294967296",
    "18446744073709551615",
    "18446744073709551616",
    "1e9",
    "1e19",
    "1e300",
    "nan",
    "inf",
    "-inf",
    "0..18446744073709551615",
    "1\n\n2",
    "☃",
];

/// A subcommand, and what keeps it small while one of its options is tried.
struct Leaf {
    path: Vec<String>,
    options: Vec<String>,
    usual: Vec<(&'static str, String)>,
}

/// All subcommands that can be run, by the definition that the command itself is made of.
fn leaves(command: &clap::Command, path: &[String], server: &str, into: &mut Vec<Leaf>) {
    for subcommand in command.get_subcommands() {
        let path = [path, &[subcommand.get_name().to_owned()]].concat();
        if subcommand.has_subcommands() {
            leaves(subcommand, &path, server, into);
            continue;
        }
        let arguments = subcommand.get_arguments().filter(|one| one.get_action().takes_values());
        let name = |argument: &clap::Arg| argument.get_long().expect("it has a name").to_owned();
        let options = arguments.map(name).collect();
        let usual = match path[0].as_str() {
            "echo" => vec![("listen", "127.0.0.1:0"), ("workers", "1"), ("drain-secs", "0.1")],
            "load" => vec![("target", server), ("sessions", "2"), ("secs", "0.05")],
            "sim" => vec![("scenario", "calm"), ("seeds", "1"), ("steps", "5"), ("lanes", "1")],
            other => panic!("what keeps `wharf {other}` small?"),
        };
        let usual = usual.into_iter().map(|(name, value)| (name, value.to_owned())).collect();
        into.push(Leaf { path, options, usual });
    }
}

/// Runs it to its end; one that goes on for long, since the value is a good one, is told to end.
fn run(arguments: &[OsString], folder: &Folder) -> Output {
    const LONG: Duration = Duration::from_millis(300);
    let mut started = Started::new(wharf().args(arguments).current_dir(folder.path()));
    until("it ends or would hear a signal", || !started.is_running() || started.heeds_signals());
    let since = Instant::now();
    until("it ends or goes on", || !started.is_running() || since.elapsed() > LONG);
    started.interrupt();
    started.wait()
}

fn judge(arguments: &[OsString], output: &Output) -> Result<(), String> {
    let lines = output.stderr.lines().count();
    let good = match output.code {
        Some(0 | 1) => lines <= 1,
        Some(2) => lines == 1,
        _ => false, // a panic, a signal
    };
    let named = output.stderr.is_empty() || output.stderr.starts_with("wharf: ");
    if good && named { Ok(()) } else { Err(format!("{arguments:?}: {output:?}")) }
}

/// All of these, some at once.
fn run_all(trials: &[Vec<OsString>], folder: &Folder) -> Vec<String> {
    const AT_ONCE: usize = 4;
    let next = AtomicUsize::new(0);
    let lane = || {
        let mut bad = Vec::new();
        while let Some(arguments) = trials.get(next.fetch_add(1, Ordering::Relaxed)) {
            bad.extend(judge(arguments, &run(arguments, folder)).err());
        }
        bad
    };
    std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(lane)).collect();
        lanes.into_iter().flat_map(|lane| lane.join().unwrap()).collect()
    })
}

#[test]
fn no_value_of_any_option_makes_it_panic_or_say_more_than_a_line() {
    let server = EchoServer::start(&["--workers", "1"]).unwrap();
    let mut all = Vec::new();
    leaves(&wharf_cli::definition(), &[], server.address(), &mut all);
    let options: usize = all.iter().map(|leaf| leaf.options.len()).sum();
    assert!(all.len() >= 5 && options >= 40, "{options} options of {} subcommands", all.len());

    let values = VALUES.map(OsString::from).into_iter();
    let values: Vec<_> = values.chain([OsString::from_vec(vec![0xff])]).collect();
    let mut trials = Vec::new();
    for leaf in &all {
        for option in &leaf.options {
            for value in &values {
                let mut trial: Vec<OsString> = leaf.path.iter().map(OsString::from).collect();
                for (name, usual) in leaf.usual.iter().filter(|(name, _)| name != option) {
                    trial.push(format!("--{name}={usual}").into());
                }
                let mut tried = OsString::from(format!("--{option}="));
                tried.push(value);
                trial.push(tried);
                trials.push(trial);
            }
        }
    }
    let folder = Folder::new("extremes");
    let bad = run_all(&trials, &folder);
    assert!(bad.is_empty(), "{} of {}: {bad:#?}", bad.len(), trials.len());
    server.terminate();
}

#[test]
fn numbers_that_are_large_only_together_are_no_danger_either() {
    let server = EchoServer::start(&["--workers", "1"]).unwrap();
    let load = format!("load echo --secs 0.05 --target {}", server.address());
    let folder = Folder::new("together");
    let trials = [
        "sim --scenario idle --peers 100000 --seeds 1 --steps 3".to_owned(),
        "sim --scenario churn --peers 2000 --seeds 1 --steps 3".to_owned(),
        "sim --scenario echo --workers 256 --senders 256 --seeds 1 --steps 3".to_owned(),
        "sim --seeds 2 --steps 3 --trace --from 18446744073709551615".to_owned(),
        "sim --seeds 0 --minutes 0 --json".to_owned(),
        "echo --listen 127.0.0.1:0 --workers 1 --sessions-max 16777216 --send-queue-bytes 1073741824"
            .to_owned(),
        format!("{load} --bytes 536870898 --depth 2"),
        format!("{load} --bytes 536870898 --depth 536870898 --framing length"),
        format!("{load} --rate 1000000000 --sessions 3"),
        format!("{load} --ws --bytes 65536 --depth 1000000000"),
        format!("{load} --ws --host ☃ --path /"),
        "echo --listen 127.0.0.1:0 --workers 1 --ws --ws-ping-after 1e9".to_owned(),
        format!("{load} --rate 0.000001 --secs 1e9"),
    ];
    let words = |line: &String| line.split(' ').map(OsString::from).collect();
    let bad = run_all(&trials.iter().map(words).collect::<Vec<_>>(), &folder);
    assert!(bad.is_empty(), "{bad:#?}");
    server.terminate();
}

/// As another user, who may have so many threads.
#[test]
fn threads_that_the_system_does_not_give_are_a_line_too() {
    let limited = |threads: &str, arguments: &str| {
        let mut setpriv = std::process::Command::new("setpriv");
        setpriv.args(["--reuid", "65534", "--clear-groups", "prlimit"]);
        setpriv.arg(format!("--nproc={threads}"));
        Started::new(setpriv.arg(env!("CARGO_BIN_EXE_wharf")).args(arguments.split(' '))).wait()
    };
    let version = limited("100", "--version");
    if version.code != Some(0) {
        return eprintln!("not tested: {}", version.stderr);
    }
    for (threads, arguments) in [
        ("1", "echo --listen 127.0.0.1:0"),
        ("10", "echo --listen 127.0.0.1:0 --workers 50"),
        ("1", "load echo --target 127.0.0.1:1"),
        ("10", "load echo --target 127.0.0.1:1 --workers 50"),
        ("1", "sim --seeds 1"),
        ("10", "sim --seeds 99 --steps 5 --lanes 50"),
        ("30", "sim --seeds 9 --steps 5 --lanes 2 --workers 50"),
        ("30", "sim --seeds 9 --steps 5 --lanes 2 --senders 50"),
    ] {
        let output = limited(threads, arguments);
        assert_eq!((output.code, output.stderr.lines().count()), (Some(2), 1), "{output:?}");
        for says in [" thread", ": Resource temporarily unavailable"] {
            assert!(output.stderr.contains(says), "{output:?}");
        }
    }
}

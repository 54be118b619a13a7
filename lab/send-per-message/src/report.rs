//! The parent: lets the ways take turns, and says what each cost.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use instruments::{Table, is_quick, median_and_spread, quantile, verdict};

use crate::calls::Counter;
use crate::sender::{SESSIONS, Shape};
use crate::ways::MESSAGE_BYTES;
use crate::{peers, torn};

const WAYS: [(&str, &str); 4] = [
    ("call", "a call for each message"),
    ("operation", "an operation for each (io_uring)"),
    ("wharf-readiness", "wharf's queue, readiness"),
    ("wharf-uring", "wharf's queue, io_uring"),
];

/// One way, from so many threads, in one shape.
struct Case {
    way: (&'static str, &'static str),
    threads: usize,
    shape: Shape,
    messages: u64,
    /// Nanoseconds of CPU time for each message.
    cpu_ns: Vec<f64>,
    per_second: Vec<f64>,
    /// Messages in one send operation.
    in_one: Vec<f64>,
    /// System calls for each message.
    calls: Option<f64>,
}

impl Case {
    /// Runs it once; behind a counter of system calls, or to be measured.
    fn run(&mut self, counter: Option<Counter>) {
        let program = std::env::current_exe().expect("this program");
        let file = counter.map(Counter::file);
        let mut command = match (counter, &file) {
            (Some(counter), Some(file)) => {
                let mut command = counter.command(file);
                command.arg(program);
                command
            }
            _ => Command::new(program),
        };
        command.args(["--way", self.way.0, "--shape", self.shape.name()]);
        command.args(["--threads", &self.threads.to_string()]);
        command.args(["--messages", &self.messages.to_string()]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the child");
        let mut output = BufReader::new(child.stdout.take().expect("its output"));
        let mut line = String::new();
        output.read_line(&mut line).expect("its address");
        let address = line.trim().parse().unwrap_or_else(|_| instruments::not_here(&line));
        let peers = peers::start(address, SESSIONS);
        line.clear();
        output.read_to_string(&mut line).expect("its figures");
        assert!(child.wait().expect("its end").success());
        let bytes = peers.join().expect("the peers");
        assert_eq!(bytes, self.messages * MESSAGE_BYTES as u64, "every message has come");

        let messages = self.messages as f64;
        if let (Some(counter), Some(file)) = (counter, file) {
            self.calls = counter.read(&file).map(|calls| calls as f64 / messages);
            return;
        }
        let figures: Vec<f64> =
            line.split_whitespace().map(|figure| figure.parse().expect("a figure")).collect();
        self.cpu_ns.push(figures[0] / messages);
        self.per_second.push(messages * 1e9 / figures[1]);
        self.in_one.push(messages / figures[2]);
    }
}

pub fn run() {
    let (rounds, flood, ticks) =
        if is_quick() { (1, 50_000, 10_000) } else { (7, 400_000, 50_000) };
    let counter = Counter::find();
    let mut cases = Vec::new();
    for (shape, messages) in
        Shape::ALL.map(|shape| (shape, if shape == Shape::Flood { flood } else { ticks }))
    {
        for threads in [1, 4] {
            cases.extend(WAYS.map(|way| Case {
                way,
                threads,
                shape,
                messages,
                cpu_ns: Vec::new(),
                per_second: Vec::new(),
                in_one: Vec::new(),
                calls: None,
            }));
        }
    }
    for case in cases.iter_mut().filter(|_| counter.is_some()) {
        case.run(counter);
    }
    for _ in 0..rounds {
        cases.iter_mut().for_each(|case| case.run(None));
    }

    let counted = counter.map_or("nobody, perf and strace are missing", Counter::name);
    println!(
        "{SESSIONS} sessions, messages of {MESSAGE_BYTES} bytes, {rounds} rounds: median (least–greatest)"
    );
    println!("System calls are counted by {counted}.\n");
    let mut table = Table::new([
        "shape and way",
        "threads",
        "calls/message",
        "CPU ns/message",
        "to a call's",
        "messages/s",
        "messages/send",
    ]);
    for case in &cases {
        table.row([
            format!("{}: {}", case.shape.name(), case.way.1),
            case.threads.to_string(),
            case.calls.map_or("?".to_owned(), |calls| format!("{calls:.3}")),
            median_and_spread(&case.cpu_ns, 0),
            median_and_spread(&ratios(&cases, case), 2),
            format!("{:.0}", quantile(&case.per_second, 0.5)),
            format!("{:.1}", quantile(&case.in_one, 0.5)),
        ]);
    }
    println!("{table}");

    let frames_each = if is_quick() { 20 } else { 200 };
    let torn = [torn::by_calls(frames_each), torn::by_wharf(frames_each)];
    println!("Of {} frames of 256 KiB that 4 threads sent to one session,", 4 * frames_each);
    println!("{} were torn by calls without a lock, {} by wharf's queue.", torn[0], torn[1]);

    let costs_more = cases
        .iter()
        .filter(|case| case.shape == Shape::Flood && case.way.0.starts_with("wharf"))
        .all(|case| quantile(&ratios(&cases, case), 0.5) < 0.5);
    verdict(
        costs_more && torn[0] > 0 && torn[1] == 0,
        "when messages come faster than they leave, a call for each costs more than twice the CPU time \
         of a queue; and threads that call for themselves tear frames",
    );
}

/// The CPU time of a case to that of calls from as many threads in the same shape, round by round.
fn ratios(cases: &[Case], case: &Case) -> Vec<f64> {
    let is_measure = |other: &&Case| {
        (other.way.0, other.threads, other.shape) == ("call", case.threads, case.shape)
    };
    let calls = cases.iter().find(is_measure).expect("calls are among the ways");
    case.cpu_ns.iter().zip(&calls.cpu_ns).map(|(of_case, of_calls)| of_case / of_calls).collect()
}

//! Starting the binary, and what it says.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::{self, JoinHandle};
#[cfg(unix)]
use std::time::{Duration, Instant};

pub(crate) const WHARF: &str = env!("CARGO_BIN_EXE_wharf");

/// Longer than anything here takes, even on a machine that does much else.
#[cfg(unix)]
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs the command to its end.
pub(crate) fn run(arguments: &[&str]) -> Output {
    run_with(arguments, &[])
}

pub(crate) fn run_with(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let output = wharf().args(arguments).envs(environment.iter().copied()).output().unwrap();
    Output {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

pub(crate) fn stdout_json(output: &Output) -> serde_json::Value {
    serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// Waits until something holds.
#[cfg(unix)]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// `wharf echo` on a free port. Dropping it kills it.
pub(crate) struct EchoServer {
    child: Child,
    first_line: String,
    address: String,
    /// Takes its lines in, so that it never waits for a full pipe.
    reader: Option<JoinHandle<Vec<String>>>,
}

impl EchoServer {
    /// The error is what it said on stderr instead of listening.
    pub(crate) fn start(arguments: &[&str]) -> Result<EchoServer, String> {
        let (mut server, stdout) = EchoServer::start_unread(arguments)?;
        let lines = move || stdout.lines().map_while(Result::ok).collect();
        server.reader = Some(thread::spawn(lines));
        Ok(server)
    }

    /// The first line has been read, the rest is the caller's to read.
    pub(crate) fn start_unread(
        arguments: &[&str],
    ) -> Result<(EchoServer, BufReader<ChildStdout>), String> {
        let mut child = Command::new(WHARF)
            .args(["echo", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .env_remove("WHARF_BACKEND")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut first_line = String::new();
        stdout.read_line(&mut first_line).unwrap();
        let Some(at) = first_line.find("127.0.0.1:") else {
            let mut refusal = String::new();
            child.stderr.take().unwrap().read_to_string(&mut refusal).unwrap();
            assert_eq!(child.wait().unwrap().code(), Some(2), "{first_line} {refusal}");
            return Err(refusal);
        };
        let is_part = |c: char| c.is_ascii_digit() || c == '.' || c == ':';
        let address: String = first_line[at..].chars().take_while(|c| is_part(*c)).collect();
        Ok((EchoServer { child, first_line, address, reader: None }, stdout))
    }

    /// What it said when it started.
    pub(crate) fn first_line(&self) -> &str {
        self.first_line.trim_end()
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    #[cfg(unix)]
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    #[cfg(unix)]
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([format!("-{name}"), pid]).status().unwrap();
        assert!(status.success());
    }

    /// Its exit code and its lines, once it has ended.
    #[cfg(unix)]
    pub(crate) fn wait(mut self) -> (Option<i32>, Vec<String>) {
        let mut code = None;
        until("the server ends", || {
            let status = self.child.try_wait().unwrap();
            code = status.map(|status| status.code());
            status.is_some()
        });
        let lines = self.reader.take().map(|reader| reader.join().unwrap()).unwrap_or_default();
        let mut stderr = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert_eq!(stderr, "", "nothing to complain of");
        (code.flatten(), lines)
    }

    /// Ends it as an operator does; it must end well, having drained.
    #[cfg(unix)]
    pub(crate) fn terminate(self) -> Vec<String> {
        self.signal("TERM");
        let reads = self.reader.is_some();
        let (code, lines) = self.wait();
        assert_eq!(code, Some(0), "{lines:?}");
        let reports = ["drained: ", r#"{"drained""#];
        let is_report = |line: &String| reports.iter().any(|report| line.starts_with(report));
        assert!(!reads || lines.iter().any(is_report), "{lines:?}");
        lines
    }

    /// Kills it, and gives its lines. Windows has a Ctrl-Break for a process, but safe code cannot
    /// send it; `ci/windows.sh` tests that drain.
    #[cfg(windows)]
    pub(crate) fn terminate(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        let mut stderr = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert_eq!(stderr, "", "nothing to complain of");
        self.reader.take().map(|reader| reader.join().unwrap()).unwrap_or_default()
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The command, as the tests start it.
pub(crate) fn wharf() -> Command {
    let mut command = Command::new(WHARF);
    command.env_remove("WHARF_BACKEND").stdin(Stdio::null());
    command
}

/// A folder of a test's own.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(test: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("wharf-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The path of a file in it.
    pub(crate) fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    /// The names of what is in it.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).unwrap();
        let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name();
        let mut names: Vec<_> = entries.map(|entry| name(entry).into_string().unwrap()).collect();
        names.sort_unstable();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A command that may have to be told to end.
#[cfg(target_os = "linux")]
pub(crate) struct Started {
    child: Child,
    readers: Option<[JoinHandle<String>; 2]>,
}

#[cfg(target_os = "linux")]
impl Started {
    pub(crate) fn new(command: &mut Command) -> Started {
        fn read(mut from: impl Read + Send + 'static) -> JoinHandle<String> {
            thread::spawn(move || {
                let mut bytes = Vec::new();
                from.read_to_end(&mut bytes).unwrap();
                String::from_utf8_lossy(&bytes).into_owned()
            })
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let readers = [read(child.stdout.take().unwrap()), read(child.stderr.take().unwrap())];
        Started { child, readers: Some(readers) }
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Whether it is the command by now, if a shell starts it, and a signal would not just kill it.
    pub(crate) fn heeds_signals(&self) -> bool {
        // The one that it asks for last: a signal that comes while it is being asked for is lost.
        const SIGTERM: u32 = 15;
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.unwrap_or_default();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = caught.and_then(|caught| u64::from_str_radix(caught.trim(), 16).ok());
        let heeds = caught.is_some_and(|caught| (caught >> (SIGTERM - 1)) & 1 == 1);
        heeds && status.starts_with("Name:\twharf\n")
    }

    /// The processor time that it has had, in hundredths of a second.
    pub(crate) fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace();
        fields.skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum()
    }

    /// It may have ended by itself just now.
    pub(crate) fn interrupt(&self) {
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-INT", &pid]).stderr(Stdio::null()).status().unwrap();
    }

    pub(crate) fn wait(mut self) -> Output {
        until("it ends", || !self.is_running());
        let code = self.child.wait().unwrap().code();
        let readers = self.readers.take().expect("they are taken once");
        let [stdout, stderr] = readers.map(|reader| reader.join().unwrap());
        Output { code, stdout, stderr }
    }
}

#[cfg(target_os = "linux")]
impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

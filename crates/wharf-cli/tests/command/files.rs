//! Files that the command writes: whole or not at all, nobody else's, and with an exit code.

use std::fs;

use crate::running::{EchoServer, Folder, run};

#[test]
fn no_other_file_is_touched_and_nothing_is_left_beside() {
    let server = EchoServer::start(&[]).unwrap();
    let folder = Folder::new("files");
    for name in ["x.new", "x.json.new", "x.tmp"] {
        fs::write(folder.file(name), "another's").unwrap();
    }
    let json = folder.file("x.json");
    let target = ["--secs", "0.05", "--target", server.address(), "--json", &json];
    for mode in ["echo", "churn", "idle"] {
        let output = run(&[&["load", mode, "--sessions", "3"][..], &target].concat());
        assert_eq!(output.code, Some(0), "{output:?}");
        let figures: serde_json::Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
        assert_eq!(figures["mode"], mode);
    }
    fs::remove_file(&json).unwrap();
    let output = run(&["sim", "--seeds", "1", "--steps", "5", "--ledger", &json]);
    assert_eq!(output.code, Some(0), "{output:?}");
    assert_eq!(folder.names(), ["x.json", "x.json.new", "x.new", "x.tmp"]);
    for name in ["x.new", "x.json.new", "x.tmp"] {
        assert_eq!(fs::read(folder.file(name)).unwrap(), b"another's", "{name}");
    }
    server.terminate();
}

#[test]
fn what_was_there_is_there_still_when_nothing_could_be_run() {
    let folder = Folder::new("kept");
    let json = folder.file("x.json");
    fs::write(&json, "before").unwrap();
    let load = ["load", "echo", "--target", "127.0.0.1:1", "--json", &json];
    let output = run(&[&load[..], &["--bytes", "1000000", "--depth", "1000000"]].concat());
    assert_eq!(output.code, Some(2), "{output:?}");
    assert_eq!(fs::read(&json).unwrap(), b"before");
}

#[test]
fn a_ledger_that_cannot_be_written_is_told_before_anything_is_run() {
    let folder = Folder::new("ledger");
    fs::write(folder.file("no-ledger"), "{}").unwrap();
    let nowhere = folder.file("nowhere/ledger.json");
    let a_folder = folder.path().to_str().unwrap().to_owned();
    for path in [a_folder, folder.file("no-ledger"), nowhere, "/dev/full".to_owned()] {
        let output = run(&["sim", "--seeds", "1", "--steps", "5", "--trace", "--ledger", &path]);
        assert_eq!(output.code, Some(2), "{output:?}");
        assert_eq!(output.stdout, "", "{path}");
        assert!(output.stderr.starts_with("wharf: "), "{output:?}");
        assert!(output.stderr.contains(&path), "{output:?}");
    }
    assert_eq!(folder.names(), ["no-ledger"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_has_an_exit_code() {
    use crate::running::{Started, until, wharf};
    use std::fs::File;
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let server = EchoServer::start(&[]).unwrap();
    let load = ["load", "echo", "--secs", "0.05", "--target", server.address()];
    let output = run(&[&load[..], &["--json", "/dev/full"]].concat());
    let says = "wharf: cannot write /dev/full: No space left on device (os error 28)\n";
    assert_eq!((output.code, output.stderr.as_str()), (Some(1), says), "{output:?}");
    let stdout_is_full = "wharf: cannot write to stdout: No space left on device (os error 28)\n";
    let (json, trace) = (["--json", "-"], ["--trace"]);
    let sim = ["sim", "--seeds", "1", "--steps", "5"];
    let traced = [&sim[..], &trace].concat();
    for arguments in [&[&load[..], &json].concat(), &load[..], &sim, &traced] {
        let output = wharf().args(arguments).stdout(full()).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {stderr}");
        assert!(stderr.ends_with(stdout_is_full), "{arguments:?}: {stderr}");
    }

    // A server serves on, and says so once.
    let full_log = ["-c", "exec \"$@\" >/dev/full", "sh", env!("CARGO_BIN_EXE_wharf"), "echo"];
    let mut shell = std::process::Command::new("sh");
    shell.args(full_log).args(["--listen", "127.0.0.1:0", "--workers", "1"]);
    let echo = Started::new(shell.args(["--stats-every", "0.001"]));
    until("it hears signals", || echo.heeds_signals());
    echo.interrupt();
    let output = echo.wait();
    assert_eq!((output.code, output.stderr.as_str()), (Some(1), stdout_is_full), "{output:?}");

    // A disk of 8 KiB that is full but for a name.
    let folder = Folder::new("full");
    let script = "mkdir disk && mount -t tmpfs -o size=8k none disk && cd disk || exit 2
                  echo before >x.json; head -c 16384 /dev/zero >zeros 2>/dev/null
                  \"$@\"; code=$?; cat x.json; ls; exit $code";
    let mut unshare = std::process::Command::new("unshare");
    unshare.args(["-rm", "sh", "-c", script, "sh", env!("CARGO_BIN_EXE_wharf")]).args(load);
    let output = Started::new(unshare.args(["--json", "x.json"]).current_dir(folder.path())).wait();
    if output.stdout.is_empty() {
        eprintln!("not tested on a full disk: {}", output.stderr);
    } else {
        assert_eq!(output.code, Some(1), "{output:?}");
        assert!(output.stderr.contains("wharf: cannot write x.json: No space"), "{output:?}");
        assert!(output.stdout.ends_with("\nbefore\nx.json\nzeros\n"), "{output:?}");
    }
    server.terminate();
}

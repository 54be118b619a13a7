//! Builds the servers and the load, each with its own compiler.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Failure;
use crate::peers::{self, Build, Peer};

/// The load's package and binary.
pub(crate) const LOAD: &str = "load";

pub(crate) struct Built {
    pub(crate) peers: Vec<&'static Peer>,
    /// Who is not compared, and why.
    pub(crate) left_out: Vec<(&'static str, String)>,
    binaries: PathBuf,
}

impl Built {
    pub(crate) fn all(home: &Path, peers: &[&'static Peer]) -> Result<Built, Failure> {
        // Always the same packages together, whoever is asked for, since what they share is built
        // with the features that all of them want. If it fails, one by one, to see whose fault it is.
        let mut packages: Vec<&str> = peers::ALL.iter().filter_map(package).collect();
        packages.push(LOAD);
        packages.sort_unstable();
        packages.dedup();
        let together = cargo(home, &packages).is_ok();
        if !together {
            cargo(home, &[LOAD])?;
        }
        let mut built = Built { peers: Vec::new(), left_out: Vec::new(), binaries: binaries()? };
        for peer in peers {
            let result = match &peer.build {
                Build::Cargo(_) if together => Ok(()),
                Build::Cargo(package) => cargo(home, &[package]),
                build @ Build::Command { .. } => built.compile(home, build),
            };
            match result {
                Ok(()) => built.peers.push(peer),
                Err(failure) => built.left_out.push((peer.name, failure.to_string())),
            }
        }
        if built.peers.is_empty() {
            return Err("no peer could be built".into());
        }
        Ok(built)
    }

    /// wharf and the load alone, as `build_before.sh` builds them of another commit.
    pub(crate) fn wharf(home: &Path) -> Result<Built, Failure> {
        let peers: Vec<&'static Peer> = peers::wharf().collect();
        let mut packages: Vec<&str> = peers.iter().filter_map(|peer| package(peer)).collect();
        packages.push(LOAD);
        packages.dedup();
        cargo(home, &packages)?;
        Ok(Built { peers, left_out: Vec::new(), binaries: binaries()? })
    }

    pub(crate) fn binary(&self, name: &str) -> PathBuf {
        self.binaries.join(name)
    }

    fn compile(&self, home: &Path, build: &Build) -> Result<(), Failure> {
        let Build::Command { needs, package, source, binary, command } = build else {
            return Ok(());
        };
        let missing = || format!("{needs} is missing (apt-get install {package})");
        if !Path::new(needs).exists() {
            return Err(missing().into());
        }
        let (source, binary) = (home.join(source), self.binary(binary));
        if is_newer(&binary, &source) {
            return Ok(());
        }
        let [program, arguments @ ..] = command else { return Err("no command".into()) };
        let place = |word: &&str| match *word {
            "SOURCE" => source.clone().into_os_string(),
            "BINARY" => binary.clone().into_os_string(),
            word => word.into(),
        };
        let status = Command::new(program)
            .current_dir(home)
            .args(arguments.iter().map(place))
            .env("GO111MODULE", "off")
            .status()
            .map_err(|error| format!("{program}: {error} (apt-get install {package})"))?;
        if status.success() { Ok(()) } else { Err(format!("{program}: {status}").into()) }
    }
}

/// Where Cargo puts binaries: this one is there too.
fn binaries() -> Result<PathBuf, Failure> {
    Ok(env::current_exe()?.parent().ok_or("no folder of binaries")?.to_owned())
}

fn package(peer: &Peer) -> Option<&'static str> {
    match peer.build {
        Build::Cargo(package) => Some(package),
        Build::Command { .. } => None,
    }
}

fn cargo(home: &Path, packages: &[&str]) -> Result<(), Failure> {
    let mut command = Command::new("cargo");
    command.current_dir(home).args(["build", "--release", "--locked", "--quiet"]);
    for package in packages {
        command.args(["--package", package]);
    }
    let status = command.status().map_err(|error| format!("cargo: {error}"))?;
    if status.success() { Ok(()) } else { Err("it does not build here".into()) }
}

fn is_newer(file: &Path, than: &Path) -> bool {
    let changed = |path: &Path| fs::metadata(path).and_then(|it| it.modified()).ok();
    matches!((changed(file), changed(than)), (Some(file), Some(than)) if file > than)
}

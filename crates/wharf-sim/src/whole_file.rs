//! Writes files completely or not at all.
//!
//! The new contents are written next to the file, under a unique name, then renamed. So a full disk or a
//! killed process leaves no partial file, and no other file is touched.

use std::fmt::Display;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A place where a file will be written.
#[derive(Debug)]
pub struct WholeFile {
    /// As it was given, for errors.
    path: PathBuf,
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// A regular file, or none yet.
    Regular { path: PathBuf, permissions: Option<Permissions> },
    /// A device or a pipe: nothing can be renamed to it, so it is written to as it stands.
    Special(File),
}

impl WholeFile {
    /// Checks that a file can be written there, so that what takes hours is not in vain. Nothing is changed.
    ///
    /// # Errors
    /// If it cannot; like those of all functions here they name the file.
    pub fn at(path: &Path) -> io::Result<WholeFile> {
        let place = Place::at(path).map_err(|error| named("write", path, &error))?;
        Ok(WholeFile { path: path.to_owned(), place })
    }

    /// What is there now; `None` if there is nothing.
    ///
    /// # Errors
    /// If it cannot be read; a device or a pipe is not.
    pub fn read(&self) -> io::Result<Option<Vec<u8>>> {
        let read = match &self.place {
            Place::Regular { path, .. } => fs::read(path).map(Some),
            Place::Special(_) => Err(ErrorKind::Unsupported.into()),
        };
        match read {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            read => read.map_err(|error| named("read", &self.path, &error)),
        }
    }

    /// Puts this in the place of what is there.
    ///
    /// # Errors
    /// If it cannot be written; then what was there is there still.
    pub fn write(&self, contents: &[u8]) -> io::Result<()> {
        self.place.write(contents).map_err(|error| named("write", &self.path, &error))
    }

    /// What is wrong with what is in it.
    pub(crate) fn is_no(&self, what: &str, error: impl Display) -> io::Error {
        let path = self.path.display();
        io::Error::new(ErrorKind::InvalidData, format!("{path} is no {what}: {error}"))
    }
}

fn named(to_do: &str, path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {to_do} {}: {error}", path.display()))
}

impl Place {
    fn at(path: &Path) -> io::Result<Place> {
        let (path, permissions) = match fs::metadata(path) {
            Ok(found) if found.is_dir() => return Err(ErrorKind::IsADirectory.into()),
            Ok(found) => {
                let file = OpenOptions::new().write(true).open(path)?;
                if !found.is_file() {
                    return Ok(Place::Special(file));
                }
                // A link stays, and what it points to is replaced.
                (fs::canonicalize(path)?, Some(found.permissions()))
            }
            // A link to nowhere would be replaced itself.
            Err(error) if error.kind() == ErrorKind::NotFound && !path.is_symlink() => {
                (path.to_owned(), None)
            }
            Err(error) => return Err(error),
        };
        let (beside, file) = create_beside(&path)?;
        drop(file);
        fs::remove_file(beside)?;
        Ok(Place::Regular { path, permissions })
    }

    fn write(&self, contents: &[u8]) -> io::Result<()> {
        let (path, permissions) = match self {
            Place::Regular { path, permissions } => (path, permissions),
            Place::Special(file) => return (&*file).write_all(contents),
        };
        let (beside, mut file) = create_beside(path)?;
        let written = file
            .write_all(contents)
            .and_then(|()| permissions.clone().map_or(Ok(()), |given| file.set_permissions(given)))
            // Some systems say only now that the disk is full.
            .and_then(|()| file.sync_all());
        drop(file); // Windows renames no open file
        let written = written.and_then(|()| fs::rename(&beside, path));
        if written.is_err() {
            let _ = fs::remove_file(&beside);
        }
        written
    }
}

/// A new file in the same folder.
fn create_beside(path: &Path) -> io::Result<(PathBuf, File)> {
    static FILES: AtomicU32 = AtomicU32::new(0);
    let Some(name) = path.file_name() else { return Err(ErrorKind::InvalidInput.into()) };
    loop {
        let mut new = name.to_owned();
        let number = FILES.fetch_add(1, Ordering::Relaxed);
        new.push(format!(".{}-{number}.new", std::process::id()));
        let beside = path.with_file_name(new);
        match OpenOptions::new().write(true).create_new(true).open(&beside) {
            Ok(file) => return Ok((beside, file)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of a test's own.
    struct Folder(PathBuf);

    impl Folder {
        fn new(test: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("wharf-{test}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.0).unwrap();
            let mut names: Vec<_> =
                entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort_unstable();
            names
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn a_file_is_replaced_and_no_other_is_touched() {
        let folder = Folder::new("replaced");
        let path = folder.0.join("x.json");
        fs::write(folder.0.join("x.new"), "another's").unwrap();
        let file = WholeFile::at(&path).unwrap();
        assert_eq!((folder.names(), file.read().unwrap()), (vec!["x.new".to_owned()], None));
        for contents in ["one", "two"] {
            file.write(contents.as_bytes()).unwrap();
            assert_eq!(file.read().unwrap().unwrap(), contents.as_bytes());
        }
        assert_eq!(folder.names(), ["x.json", "x.new"]);
        assert_eq!(fs::read(folder.0.join("x.new")).unwrap(), b"another's");
    }

    #[test]
    fn a_name_beside_that_is_taken_is_another_file_and_is_left_alone() {
        let folder = Folder::new("taken");
        let path = folder.0.join("x");
        let (first, _) = create_beside(&path).unwrap();
        let number: u32 =
            first.to_str().unwrap().rsplit(['-', '.']).nth(1).unwrap().parse().unwrap();
        for number in number..number + 100 {
            let taken = format!("x.{}-{number}.new", std::process::id());
            fs::write(folder.0.join(taken), "taken").unwrap();
        }
        WholeFile::at(&path).unwrap().write(b"mine").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"mine");
        assert_eq!(folder.names().len(), 101);
    }

    #[test]
    fn what_cannot_be_written_is_told_before_and_leaves_nothing() {
        let folder = Folder::new("refused");
        assert!(WholeFile::at(&folder.0).is_err(), "a folder");
        assert!(WholeFile::at(&folder.0.join("none").join("x")).is_err(), "no folder");
        assert!(WholeFile::at(Path::new("")).is_err(), "no name");
        let file = folder.0.join("x");
        fs::write(&file, "").unwrap();
        assert!(WholeFile::at(&file.join("x")).is_err(), "no folder either");
        assert_eq!(folder.names(), ["x"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_and_the_permissions_stay_and_a_device_is_written_to() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let folder = Folder::new("linked");
        let (path, link) = (folder.0.join("x"), folder.0.join("link"));
        fs::write(&path, "before").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        symlink("x", &link).unwrap();
        WholeFile::at(&link).unwrap().write(b"after").unwrap();
        assert!(link.is_symlink());
        assert_eq!(fs::read(&path).unwrap(), b"after");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        fs::remove_file(&path).unwrap();
        assert!(WholeFile::at(&link).is_err(), "a link to nowhere");
        assert_eq!(folder.names(), ["link"]);

        let null = WholeFile::at(Path::new("/dev/null")).unwrap();
        null.write(b"anything").unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
        assert!(null.read().is_err(), "a ledger is no device");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_device_is_an_error() {
        let full = WholeFile::at(Path::new("/dev/full")).unwrap();
        assert_eq!(full.write(b"x").unwrap_err().kind(), ErrorKind::StorageFull);
    }
}

//! The command's output on stdout.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

/// A line, or several, on stdout. That nobody reads it any more is no error, a full disk is one.
pub(crate) fn print(text: impl Display) -> io::Result<()> {
    print_to(&mut io::stdout(), text)
}

/// The same on any output.
pub(crate) fn print_to(output: &mut dyn Write, text: impl Display) -> io::Result<()> {
    match writeln!(output, "{text}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(io::Error::new(error.kind(), format!("cannot write to stdout: {error}"))),
        Ok(()) => Ok(()),
    }
}

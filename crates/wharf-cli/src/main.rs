//! The `wharf` command. What it does stands in the library beside it.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    wharf_cli::main()
}

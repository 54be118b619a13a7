//! The `wharf` command. The library beside it does the work.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    wharf_cli::main()
}

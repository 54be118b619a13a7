//! `face JSON`: prints each public item on a line, in the order of their paths.

use std::env;
use std::error::Error;

use public_api::Builder;

/// Traits of the compiler's own, which programs cannot name.
const UNNAMED: [&str; 3] = ["Freeze", "StructuralPartialEq", "UnsafeUnpin"];

fn main() -> Result<(), Box<dyn Error>> {
    let json = env::args_os().nth(1).ok_or("usage: face JSON")?;
    let face = Builder::from_rustdoc_json(json).omit_blanket_impls(true).build()?;
    for item in face.items() {
        let line = item.to_string();
        if !UNNAMED.iter().any(|name| line.contains(&format!("core::marker::{name} for "))) {
            println!("{line}");
        }
    }
    Ok(())
}

//! Puts kiln-init into the builder, where `KILN_INIT_DIR` says that it has been built.

#![allow(clippy::print_stdout, reason = "this is how a build script speaks to cargo")]

use std::path::PathBuf;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-env-changed=KILN_INIT_DIR");
    let dir = env::var_os("KILN_INIT_DIR").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let mut code = String::new();
    for (name, arch) in [("X86_64", "x86_64"), ("ARM64", "arm64")] {
        let file = dir.as_ref().map(|dir| dir.join(format!("kiln-init-{arch}")));
        if let Some(file) = &file {
            println!("cargo::rerun-if-changed={}", file.display());
        }
        let value = match file.filter(|file| file.is_file()) {
            Some(file) => format!("Some(include_bytes!({:?}))", file.canonicalize()?),
            None => "None".to_owned(),
        };
        code += &format!("const {name}: Option<&[u8]> = {value};\n");
    }
    let out = env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("OUT_DIR is not set"))?;
    fs::write(PathBuf::from(out).join("embedded_init.rs"), code)
}

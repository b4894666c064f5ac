//! Compiles the protocol buffers in Rust, so that nobody needs `protoc`.

use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("cargo names the package's folder")?)
        .join("../../proto");
    println!("cargo::rerun-if-changed={}", root.display());
    let mut compiler = protox::Compiler::new([root])?;
    compiler.include_imports(true).include_source_info(true).open_file("carillon/v1/publish.proto")?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo names the output folder")?);
    fs::write(out.join("carillon.v1.bin"), compiler.encode_file_descriptor_set())?;
    tonic_prost_build::configure().bytes(".carillon.v1").compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

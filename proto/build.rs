//! Compiles the `.proto` files with protox, so that no `protoc` binary is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = protox::compile(["spindle/agent/v1/agent.proto"], ["proto"])?;
    prost_build::Config::new().bytes(["."]).compile_fds(files)?;
    #[cfg(feature = "control")]
    {
        let mut compiler = protox::Compiler::new(["proto"])?;
        compiler.include_imports(true).include_source_info(true);
        compiler.open_files([
            "creel/v1/machines.proto",
            "creel/v1/workflows.proto",
            "creel/v1/host.proto",
        ])?;
        // For reflection, comments included: what tools show of the contract is its documentation.
        let directory = std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?;
        let set = std::path::Path::new(&directory).join("creel.v1.bin");
        std::fs::write(set, compiler.encode_file_descriptor_set())?;
        let files = compiler.file_descriptor_set();
        write_methods(&files)?;
        tonic_prost_build::configure().bytes(".").compile_fds(files)?;
    }
    Ok(())
}

/// Every method with its service, for those who need to know them by name.
#[cfg(feature = "control")]
fn write_methods(files: &tonic_prost_build::FileDescriptorSet) -> std::io::Result<()> {
    let mut text = String::from("pub const METHODS: &[(&str, &str)] = &[\n");
    for file in &files.file {
        for service in file.service.iter().filter(|_| file.package() == "creel.v1") {
            for method in &service.method {
                text += &format!("    (\"{}.{}\", \"{}\"),\n", file.package(), service.name(), method.name());
            }
        }
    }
    text += "];\n";
    let out = std::env::var_os("OUT_DIR").expect("cargo sets it for build scripts");
    std::fs::write(std::path::Path::new(&out).join("methods.rs"), text)
}

//! `creel version`: creel and its parts.

use serde_json::json;

use super::context::Context;
use super::failure::Failure;
use crate::exit::Exit;

pub(super) async fn version(context: &Context, as_json: bool) -> Result<Exit, Failure> {
    let kit = context.kit();
    let qemu = context.qemu().await;
    let protocol = creel_proto::names::PROTOCOL_VERSION;
    if as_json {
        let value = json!({
            "creel": env!("CARGO_PKG_VERSION"),
            "agent_protocol": protocol,
            "kit": kit.as_ref().ok().map(|kit| kit.directory.display().to_string()),
            "kernel": kit.as_ref().ok().map(|kit| &kit.kernel.release),
            "qemu": qemu.as_ref().ok().map(|qemu| qemu.version.to_string()),
        });
        println!("{value:#}");
        return Ok(Exit::Success);
    }
    println!("creel           {}", env!("CARGO_PKG_VERSION"));
    println!("agent protocol  {protocol} (spindle.agent.v1)");
    match kit {
        Ok(kit) => println!("kit             {} (kernel {})", kit.directory.display(), kit.kernel.release),
        Err(error) => println!("kit             none: {error}"),
    }
    match qemu {
        Ok(qemu) => println!("QEMU            {} ({})", qemu.version, qemu.path.display()),
        Err(error) => println!("QEMU            none: {error}"),
    }
    Ok(Exit::Success)
}

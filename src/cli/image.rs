//! `creel image`: list, build, inspect, verify and remove.

mod build;
mod care;

use serde_json::json;

use super::args::ImageCommand;
use super::context::Context;
use super::failure::Failure;
use super::run::image_failure;
use crate::exit::Exit;
use crate::image::ImageSummary;

pub(super) async fn image(context: &Context, command: ImageCommand) -> Result<Exit, Failure> {
    match command {
        ImageCommand::Ls(json) => list(context, json.json),
        ImageCommand::Build(command) => build::build(context, command).await,
        ImageCommand::Inspect { name, json } => inspect(context, &name, json.json),
        ImageCommand::Rm { name } => {
            context.images().remove(&name).map_err(|error| image_failure(&error))?;
            eprintln!("removed image {name}");
            Ok(Exit::Success)
        }
        ImageCommand::Verify { names, json } => care::verify(context, names, json.json),
        ImageCommand::Gc { dry_run, json } => care::gc(context, dry_run, json.json),
    }
}

fn list(context: &Context, as_json: bool) -> Result<Exit, Failure> {
    let images = context.images().list().map_err(|error| image_failure(&error))?;
    if as_json {
        let values: Vec<_> = images.iter().map(summary_json).collect();
        println!("{:#}", serde_json::Value::from(values));
        return Ok(Exit::Success);
    }
    if images.is_empty() {
        eprintln!("no images; make one with `creel image build tiny`");
        return Ok(Exit::Success);
    }
    println!("{:<20} {:<8} {:>7} {:>5} {:>9}  DIGEST", "NAME", "ARCH", "MEMORY", "VCPUS", "SIZE");
    for summary in images {
        match &summary.image {
            Ok(image) => println!(
                "{:<20} {:<8} {:>4}MiB {:>5} {:>6}MiB  {}",
                summary.name,
                image.spec.arch.to_string(),
                image.spec.memory_mib,
                image.spec.vcpus,
                summary.size_bytes.div_ceil(1 << 20),
                image.digest.as_deref().map_or("-", |digest| &digest[..digest.len().min(12)]),
            ),
            Err(error) => println!("{:<20} broken: {error}", summary.name),
        }
    }
    Ok(Exit::Success)
}

fn summary_json(summary: &ImageSummary) -> serde_json::Value {
    let image = summary.image.as_ref();
    json!({
        "name": summary.name,
        "root": summary.root,
        "removable": summary.removable,
        "size_bytes": summary.size_bytes,
        "digest": image.ok().and_then(|image| image.digest.clone()),
        "spec": image.ok().map(|image| &image.spec),
        "error": image.err().map(ToString::to_string),
    })
}

fn inspect(context: &Context, name: &str, as_json: bool) -> Result<Exit, Failure> {
    let image = context.images().resolve(name).map_err(|error| image_failure(&error))?;
    if as_json {
        let value = json!({
            "name": image.name,
            "directory": image.directory,
            "spec_path": image.spec_path,
            "digest": image.digest,
            "warnings": image.warnings,
            "spec": image.spec,
        });
        println!("{value:#}");
        return Ok(Exit::Success);
    }
    let spec = &image.spec;
    println!("name        {}", image.name);
    println!("digest      {}", image.digest.as_deref().unwrap_or("-"));
    println!("directory   {}", image.directory.display());
    println!("arch        {}", spec.arch);
    println!("resources   {} MiB, {} vcpus", spec.memory_mib, spec.vcpus);
    println!("kernel      {}", spec.kernel.display());
    println!("initrd      {}", spec.initrd.display());
    println!("store disk  {}", spec.store_disk.display());
    println!("boot args   {}", spec.boot_args);
    println!("shell       {}", spec.shell);
    for volume in &spec.volumes {
        println!("volume      {} MiB at {}", volume.size_mib, volume.mount_point);
    }
    for warning in &image.warnings {
        println!("warning     {warning}");
    }
    Ok(Exit::Success)
}

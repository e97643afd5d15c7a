//! `creel image verify` and `creel image gc`: whether images are as they were built, and what is left of old ones.

use serde_json::json;

use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::run::image_failure;
use crate::exit::Exit;
use crate::image::{Collect, Removed};

/// Exits with 3 if an image has a fault.
pub(super) fn verify(context: &Context, names: Vec<String>, as_json: bool) -> Result<Exit, Failure> {
    let store = context.images();
    let names = match names.is_empty() {
        true => store.names().map_err(|error| image_failure(&error))?,
        false => names,
    };
    let mut all = Vec::new();
    for name in &names {
        let verified = store.verify(name).map_err(|error| image_failure(&error))?;
        if !as_json {
            match (verified.faults.as_slice(), &verified.digest) {
                ([], Some(digest)) => println!("{name}: ok, {digest}"),
                ([], None) => {
                    println!("{name}: ok as far as can be told: it was not made by creel and has no digest")
                }
                (faults, _) => faults.iter().for_each(|fault| println!("{name}: {fault}")),
            }
        }
        all.push(verified);
    }
    let broken: Vec<&str> =
        all.iter().filter(|image| !image.faults.is_empty()).map(|image| image.name.as_str()).collect();
    if as_json {
        let image = |image: &crate::image::Verified| {
            json!({
                "name": image.name,
                "directory": image.directory,
                "digest": image.digest,
                "ok": image.faults.is_empty(),
                "faults": image.faults,
            })
        };
        println!("{:#}", serde_json::Value::from(all.iter().map(image).collect::<Vec<_>>()));
    }
    match broken.as_slice() {
        [] => {
            if names.is_empty() && !as_json {
                eprintln!("no images; make one with `creel image build tiny`");
            }
            Ok(Exit::Success)
        }
        broken => Err(Failure::host(format!(
            "not as built: {}; remove what is damaged with `creel image rm`, and build it again",
            broken.join(", ")
        ))),
    }
}

pub(super) fn gc(context: &Context, dry_run: bool, as_json: bool) -> Result<Exit, Failure> {
    let how = if dry_run { Collect::DryRun } else { Collect::Remove };
    let collected = context.images().gc(how).map_err(|error| image_failure(&error))?;
    if as_json {
        let list = |removed: &[Removed], key: &str| -> Vec<serde_json::Value> {
            removed.iter().map(|one| json!({ key: one.what, "size_bytes": one.size_bytes })).collect()
        };
        let value = json!({
            "dry_run": dry_run,
            "freed_bytes": collected.freed_bytes(),
            "entries": list(&collected.entries, "digest"),
            "abandoned": list(&collected.abandoned, "directory"),
            "in_use": list(&collected.in_use, "digest"),
        });
        println!("{value:#}");
        return Ok(Exit::Success);
    }
    let did = if dry_run { "would remove" } else { "removed" };
    for entry in &collected.entries {
        println!("{did} {} ({})", short(&entry.what), mib(entry.size_bytes));
    }
    for left in &collected.abandoned {
        println!("{did} what a killed build left, {} ({})", left.what, mib(left.size_bytes));
    }
    for entry in &collected.in_use {
        println!(
            "kept {} ({}): it is in use, though no image leads to it",
            short(&entry.what),
            mib(entry.size_bytes)
        );
    }
    let freed = mib(collected.freed_bytes());
    eprintln!("{}", if dry_run { format!("{freed} would be freed") } else { format!("{freed} freed") });
    Ok(Exit::Success)
}

fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

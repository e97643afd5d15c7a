//! `creel debug`: parts of creel, alone.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::context::Context;
use super::failure::{Failure, with_causes};
use crate::exit::Exit;
use crate::host::boot_id;
use crate::image::{KitSources, assemble};
use crate::state::machines::{Found, MachineRecords};
use crate::state::records::RecordError;
use crate::text::printable;

/// `creel debug kit`: what `make kit` calls.
pub(super) fn kit(
    output: &Path,
    agent: PathBuf,
    keeper: PathBuf,
    vsock_helper: PathBuf,
) -> Result<Exit, Failure> {
    let sources = KitSources {
        agent,
        keeper,
        vsock_helper,
        boot_dir: PathBuf::from("/boot"),
        modules_root: PathBuf::from("/lib/modules"),
    };
    let assembled = assemble(&sources, output).map_err(|error| Failure::host(with_causes(&error)))?;
    let kit = assembled.kit;
    println!(
        "kit {}: kernel {} as {}, {} modules",
        kit.directory.display(),
        kit.kernel.release,
        kit.kernel.format.file_name(),
        kit.modules.len()
    );
    if let Some(why) = assembled.kept_bzimage {
        eprintln!("note: the kernel stays a bzImage, which boots a little slower: {why}");
    }
    Ok(Exit::Success)
}

/// `creel debug state`: the records of machines, as they lie on the disk.
pub(super) fn state(context: &Context, ids: &[String], as_json: bool) -> Result<Exit, Failure> {
    let state_dir = &context.config().places.state;
    let failed = |error: RecordError| Failure::host(with_causes(&error));
    let mut found = match MachineRecords::open(state_dir).map_err(failed)? {
        Some(records) => records.list().map_err(failed)?,
        None => Vec::new(),
    };
    if let Some(unknown) = ids.iter().find(|id| !found.iter().any(|(known, _)| known.as_str() == *id)) {
        let directory = state_dir.join("machines");
        return Err(Failure::usage(format!(
            "`{}` has no record of a machine `{unknown}`; `creel debug state` lists those that there are",
            directory.display()
        )));
    }
    found.retain(|(id, _)| ids.is_empty() || ids.iter().any(|wanted| wanted == id.as_str()));
    let boot_id = boot_id().map_err(Failure::internal)?;
    if as_json {
        let values = found.iter().map(|found| value(found, &boot_id));
        println!("{:#}", Value::from(values.collect::<Vec<_>>()));
    } else {
        print!("{}", table(&found, &boot_id));
    }
    Ok(Exit::Success)
}

/// A record as it is written, and beside it what became of its keeper; or what is wrong with it.
fn value((id, record): &Found, boot_id: &str) -> Value {
    match record {
        Ok(record) => {
            let mut value = json!(record);
            value["keeper_lives"] = record.keeper_lives(boot_id).into();
            value
        }
        Err(error) => json!({ "id": id, "error": with_causes(error) }),
    }
}

fn table(found: &[Found], boot_id: &str) -> String {
    let mut text = format!(
        "{:<12} {:<10} {:<16} {:<16} {:>8} {:>11}  CREATED\n",
        "ID", "STAGE", "IMAGE", "WORKFLOW", "KEEPER", "CID"
    );
    for (id, record) in found {
        text += &match record {
            Ok(record) => {
                let keeper = match record.keeper {
                    None => "-".to_owned(),
                    Some(keeper) if record.keeper_lives(boot_id) => keeper.pid.to_string(),
                    Some(_) => "gone".to_owned(),
                };
                let cid = record.leases.cid.map_or_else(|| "-".to_owned(), |cid| cid.to_string());
                format!(
                    "{:<12} {:<10} {:<16} {:<16} {keeper:>8} {cid:>11}  {}\n",
                    id.as_str(),
                    record.stage.as_str(),
                    printable(&record.image),
                    printable(&record.workflow_id),
                    record.created_at.strftime("%Y-%m-%dT%H:%M:%SZ")
                )
            }
            Err(error) => format!("{:<12} damaged: {}\n", id.as_str(), printable(&with_causes(error))),
        };
    }
    text
}

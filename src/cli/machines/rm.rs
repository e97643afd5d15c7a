//! `creel rm`, and what `creel kill` shares with it: ends machines.

use super::connect::{Everyone, api_failure, machine_id};
use crate::cli::args::{RmArgs, SocketArg};
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::exit::Exit;
use crate::runtime::{DestroyMode, MachineId};

pub(in crate::cli) async fn rm(context: &Context, arguments: RmArgs) -> Result<Exit, Failure> {
    let mode = if arguments.force { DestroyMode::Kill } else { DestroyMode::Graceful };
    end_all(context, &arguments.ids, &arguments.socket, mode, |id| println!("{id}")).await
}

/// Ends machines side by side and tells `ended` of each that has.
pub(super) async fn end_all(
    context: &Context,
    ids: &[String],
    socket: &SocketArg,
    mode: DestroyMode,
    ended: impl Fn(&MachineId),
) -> Result<Exit, Failure> {
    let ids: Vec<MachineId> = ids.iter().map(|id| machine_id(id)).collect::<Result<_, _>>()?;
    let everyone = Everyone::reach(context, socket).await?;
    let ending = ids.iter().map(|id| {
        let everyone = &everyone;
        async move {
            let ended = async {
                let client = everyone.find(id).await?;
                client.destroy(id, mode).await.map_err(|error| api_failure(&error))
            };
            (id, ended.await)
        }
    });
    let mut exits = Vec::new();
    for (id, destroyed) in futures_util::future::join_all(ending).await {
        match destroyed {
            Ok(_) => ended(id),
            Err(failure) => {
                exits.push(failure.exit);
                eprintln!("creel: {id}: {failure}");
            }
        }
    }
    Ok(Exit::worst(exits))
}

//! The records of machines that creelds before this one have left.

use tracing::{error, info, warn};

use crate::error::with_causes;
use crate::host::boot_id;
use crate::state::machines::{Found, MachineRecords};
use crate::state::records::RecordError;

/// What was found before this creeld had a machine of its own.
#[derive(Debug)]
pub struct LeftRecords {
    records: MachineRecords,
    found: Vec<Found>,
}

impl LeftRecords {
    /// # Errors
    /// When the records can't be listed. What is wrong with one of them is no error.
    pub(super) fn find(records: &MachineRecords) -> Result<Self, RecordError> {
        records.remove_half_written()?;
        Ok(Self { records: records.clone(), found: records.list()? })
    }

    /// Removes the records of machines that are gone: to be called once those that lived have been ended. Of what a newer
    /// creel wrote, and of what still has a keeper, the records stay.
    pub(super) fn remove_of_the_gone(&self) {
        let boot_id = match boot_id() {
            Ok(boot_id) => boot_id,
            Err(error) => {
                error!(%error, "which machines are gone can't be told: their records stay");
                return;
            }
        };
        let mut removed = Vec::new();
        for (id, found) in &self.found {
            match found {
                Ok(record) if record.keeper_lives(&boot_id) => {
                    error!(machine = %id, keeper = ?record.keeper, "a machine of a creeld before this one still has its keeper");
                    continue;
                }
                Ok(_) => {}
                Err(left @ (RecordError::Newer { .. } | RecordError::Io { .. })) => {
                    warn!(machine = %id, error = %with_causes(left), "a machine's record is left as it is");
                    continue;
                }
                // All that a machine has is named after it, so there is nothing of this one.
                Err(damaged) => {
                    warn!(machine = %id, error = %with_causes(damaged), "a machine's record is damaged, and the machine is gone");
                }
            }
            match self.records.remove(id) {
                Ok(()) => removed.push(id.as_str()),
                Err(error) => warn!(error = %with_causes(&error), "failed to remove a machine's record"),
            }
        }
        if !removed.is_empty() {
            info!(
                count = removed.len(),
                machines = removed.join(","),
                "removed the records of machines that are gone"
            );
        }
    }
}

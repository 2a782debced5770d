//! Volumes of a launch: opened, locked, and marked before anything of the pod runs.

use std::os::fd::OwnedFd;

use casemate_ticket::mounts::{self, Volume};
use casemate_ticket::spec::{Level, Spec};

use super::{Access, Facts, Name, storage};
use crate::daemon::Daemon;
use crate::refusal::{Refusal, Result};

/// Names of the volumes that a pod of this spec has.
pub fn attached_names(spec: &Spec) -> Vec<String> {
    volumes_of(spec).map(|volume| volume.name.to_owned()).collect()
}

/// The volumes in the order of their descriptors.
fn volumes_of(spec: &Spec) -> impl Iterator<Item = Volume<'_>> {
    mounts::of_all(&spec.apps).into_iter()
}

impl Daemon {
    /// Disks for a pod, in the order in which they are among its app's mounts. They are nobody else's from here on, for
    /// as long as anybody has these descriptors.
    ///
    /// # Errors
    /// `VOLUME_UNKNOWN`, `VOLUME_IN_USE`, `VOLUME_BUSY`, `VOLUME_CHANGED`, `VOLUME_VM_ONLY`.
    pub(crate) fn attach_volumes(&self, spec: &Spec) -> Result<Vec<OwnedFd>> {
        let wanted = volumes_of(spec).zip(&spec.volumes);
        let mut disks = Vec::new();
        for (volume, described) in wanted {
            let name = Name { tenant: &spec.tenant, volume: volume.name, snapshot: None };
            let access = if volume.read_only { Access::Read } else { Access::ReadWrite };
            let (disk, facts) = self.hold_volume(&name, access)?;
            if facts.size_bytes != described.size {
                let size = facts.size_bytes;
                let message = format!("{} has {size} bytes by now; decide again", name.shown());
                return Err(Refusal::new("VOLUME_CHANGED", message));
            }
            // The host's kernel mounts no file system that a guest may have made: whoever finds a fault in that code
            // would be in the kernel.
            if spec.level != Level::Vm && facts.machine {
                let message = format!(
                    "{} could be written to by a virtual machine, and is for virtual machines from then on",
                    name.shown()
                );
                return Err(Refusal::new("VOLUME_VM_ONLY", message));
            }
            disks.push(disk);
        }
        Ok(disks)
    }

    /// Volumes that a virtual machine is about to have, to be written, are for virtual machines from then on. To be called
    /// before it has them.
    ///
    /// # Errors
    /// `SPAWN_STORAGE`.
    pub(crate) fn mark_volumes(&self, spec: &Spec) -> Result<()> {
        for volume in volumes_of(spec) {
            let name = Name { tenant: &spec.tenant, volume: volume.name, snapshot: None };
            let facts = self.volumes.known(&name)?;
            if !volume.read_only && !facts.machine {
                let marked = Facts { machine: true, ..facts };
                self.volumes.write_down(&name, marked).map_err(storage)?;
            }
        }
        Ok(())
    }
}

//! What is asked of volumes: a record with its receipt is an order, carried out once; listing needs none.

use std::os::fd::OwnedFd;

use casemate_ticket::json::Value;
use casemate_ticket::volume::{Admitted, Operation, Order, check};

use super::copying::COPIES_MAX;
use super::{Access, Copying, FOLDERS_MAX, Facts, Listed, Name, storage};
use crate::answers::{number, object, string};
use crate::clients::Answer;
use crate::daemon::Daemon;
use crate::host;
use crate::refusal::{Refusal, Result};
use crate::resize::FREE_BYTES_MIN;

impl<'a> Name<'a> {
    fn of(order: &'a Order) -> Self {
        Self { tenant: &order.tenant, volume: &order.volume, snapshot: order.snapshot.as_deref() }
    }

    fn whole(self) -> Self {
        Self { snapshot: None, ..self }
    }
}

impl Daemon {
    /// `volume`: everything that can refuse does so before the record is spent, and that before anything is changed.
    pub(crate) fn order_volume(
        &mut self,
        client: u64,
        ticket: &str,
        record: &str,
    ) -> Result<Option<Answer>> {
        if self.stopping.is_some() {
            return Err(Refusal::new("SPAWN_STOPPING", "spawn is being stopped"));
        }
        let admitted = check(ticket, record.as_bytes(), &self.context(None), host::boottime_ns())
            .map_err(|error| Refusal::new(error.code(), error.to_string()))?;
        let name = Name::of(&admitted.order);
        match admitted.order.operation {
            Operation::Create => self.create_volume(&admitted, &name),
            Operation::Remove => self.remove_volume(&admitted, &name),
            Operation::Grow => self.grow_volume(&admitted, &name),
            Operation::Export => self.export_volume(&admitted, &name).map(Some),
            Operation::Snapshot | Operation::Restore => {
                let copying = self.begin_copy(client, &admitted, &name)?;
                self.copying.push(copying);
                return Ok(None);
            }
        }
        .map(|answer| Some(answer.unwrap_or_else(|| Answer::new(vec![]))))
    }

    fn spend(&self, admitted: &Admitted) -> Result<()> {
        self.spent.spend(&admitted.leaf_hash, admitted.deadline_ns)
    }

    fn create_volume(&self, admitted: &Admitted, name: &Name<'_>) -> Result<Option<Answer>> {
        self.refuse_another(name)?;
        let size = admitted.order.size_bytes;
        self.refuse_more(size)?;
        self.spend(admitted)?;
        let empty = self.assets.empty_volume();
        self.volumes.create(name, empty, size).map_err(storage)?;
        Ok(None)
    }

    fn remove_volume(&self, admitted: &Admitted, name: &Name<'_>) -> Result<Option<Answer>> {
        let _held = self.hold_volume(name, Access::Read)?;
        let is_of_it = |listed: &Listed| listed.volume == name.volume && listed.snapshot.is_some();
        if name.snapshot.is_none() && self.volumes.list(name.tenant)?.iter().any(is_of_it) {
            let message = format!("{} has snapshots; remove them first", name.shown());
            return Err(Refusal::new("VOLUME_HAS_SNAPSHOTS", message));
        }
        self.spend(admitted)?;
        self.volumes.remove(name).map_err(storage)?;
        Ok(None)
    }

    fn grow_volume(&self, admitted: &Admitted, name: &Name<'_>) -> Result<Option<Answer>> {
        let (disk, facts) = self.hold_volume(name, Access::ReadWrite)?;
        let size_bytes = admitted.order.size_bytes;
        if size_bytes < facts.size_bytes {
            let size = facts.size_bytes;
            let message = format!("{} has {size} bytes and cannot be made smaller", name.shown());
            return Err(Refusal::new("VOLUME_SHRINK", message));
        }
        self.refuse_more(size_bytes.saturating_sub(facts.size_bytes))?;
        self.spend(admitted)?;
        rustix::fs::ftruncate(&disk, size_bytes).map_err(storage)?;
        rustix::fs::fsync(&disk).map_err(storage)?;
        self.volumes.write_down(name, Facts { size_bytes, ..facts }).map_err(storage)?;
        Ok(None)
    }

    fn export_volume(&self, admitted: &Admitted, name: &Name<'_>) -> Result<Answer> {
        let facts = self.volumes.known(name)?;
        let disk = self.volumes.read_only(name)?;
        self.spend(admitted)?;
        Ok(Answer::new(vec![("size_bytes", number(facts.size_bytes))]).with(disk))
    }

    /// A snapshot is made of the volume, and the volume of a snapshot; either way nobody has the volume meanwhile.
    fn begin_copy(&self, client: u64, admitted: &Admitted, name: &Name<'_>) -> Result<Copying> {
        if self.copying.len() >= COPIES_MAX {
            let message = format!("{COPIES_MAX} volumes are being copied; try again");
            return Err(Refusal::new("VOLUME_BUSY", message));
        }
        let whole = name.whole();
        let (held, facts) = self.hold_volume(&whole, Access::Read)?;
        let restores = admitted.order.operation == Operation::Restore;
        let (from, facts, volume_lock, into) = if restores {
            let facts = self.volumes.known(name)?;
            (self.volumes.read_only(name)?, facts, Some(held), whole)
        } else {
            self.refuse_another(name)?;
            (held, facts, None, *name)
        };
        self.refuse_more(facts.size_bytes)?;
        self.spend(admitted)?;
        let to = self.volumes.begin(&into).map_err(storage)?;
        Ok(Copying {
            client,
            tenant: into.tenant.to_owned(),
            volume: into.volume.to_owned(),
            into: into.snapshot.map(ToOwned::to_owned),
            from,
            _volume_lock: volume_lock,
            facts,
            to,
            position: 0,
        })
    }

    /// Opens a volume that no pod has and nobody works with.
    pub(crate) fn hold_volume(&self, name: &Name<'_>, access: Access) -> Result<(OwnedFd, Facts)> {
        if let (None, Some(pod)) = (name.snapshot, self.pod_with(name.tenant, name.volume)) {
            let message = format!("{} is attached to pod {pod}; stop that first", name.shown());
            return Err(Refusal::new("VOLUME_IN_USE", message));
        }
        self.volumes.hold(name, access)
    }

    /// The pod that a volume is attached to.
    fn pod_with(&self, tenant: &str, volume: &str) -> Option<&str> {
        self.pods.values().find_map(|pod| {
            let identity = pod.identity.as_ref().filter(|identity| identity.tenant == tenant)?;
            pod.volumes.iter().any(|name| name == volume).then_some(identity.pod.as_str())
        })
    }

    fn refuse_another(&self, name: &Name<'_>) -> Result<()> {
        if self.volumes.facts(name)?.is_some() {
            let message = format!("the tenant has a {} already", name.shown());
            return Err(Refusal::new("VOLUME_EXISTS", message));
        }
        // One that is still being copied has no place yet.
        if self.copying.iter().any(|copy| copy.name() == *name) {
            let message = format!("{} is being made; try again", name.shown());
            return Err(Refusal::new("VOLUME_BUSY", message));
        }
        if self.volumes.list(name.tenant)?.len() >= FOLDERS_MAX {
            let message = format!("the tenant has {FOLDERS_MAX} volumes and snapshots");
            return Err(Refusal::new("VOLUMES_FULL", message));
        }
        Ok(())
    }

    /// Files are sparse: what all of them could come to take has to be there, and the floor of the disk beside it.
    fn refuse_more(&self, bytes: u64) -> Result<()> {
        let (promised, free) = self.volumes.promised_and_free()?;
        let copies = self.copying.iter().map(Copying::left_bytes);
        let promised = copies.fold(promised, u64::saturating_add);
        if free.saturating_sub(promised).saturating_sub(bytes) >= FREE_BYTES_MIN {
            return Ok(());
        }
        let message = format!(
            "the host's disk has {free} bytes left, {promised} of them are promised to volumes, and {FREE_BYTES_MIN} stay free"
        );
        Err(Refusal::new("HOST_FULL", message))
    }

    /// `volumes`: all of a tenant.
    pub(crate) fn list_volumes(&self, tenant: &str) -> Result<Answer> {
        let listed = self.volumes.list(tenant)?;
        let entry = |Listed { volume, snapshot, facts, used_bytes }: &Listed| {
            let pod = match snapshot {
                None => self.pod_with(tenant, volume),
                Some(_) => None,
            };
            object(vec![
                ("volume", string(volume)),
                ("snapshot", snapshot.as_ref().map_or(Value::Null, string)),
                ("size_bytes", number(facts.size_bytes)),
                ("used_bytes", number(*used_bytes)),
                ("made_ms", number(facts.made_ms)),
                ("machine", Value::Bool(facts.machine)),
                ("pod", pod.map_or(Value::Null, string)),
            ])
        };
        Ok(Answer::new(vec![("volumes", Value::Array(listed.iter().map(entry).collect()))]))
    }
}

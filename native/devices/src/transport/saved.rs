//! A transport's state as bytes, for the template.

use super::registers::Registers;
use super::{
    ACKNOWLEDGED_DRIVER, FEATURES_OK_STATUS, INTERRUPT_CONFIG, INTERRUPT_QUEUE, MmioTransport,
    RUNNING_STATUS, STATUS_ACKNOWLEDGE, STATUS_FAILED, STATUS_NEEDS_RESET,
};
use crate::queue::{QUEUES_MAX, QueueConfig};
use crate::state::{Reader, STATE_VERSION, StateError};

impl MmioTransport {
    /// Appends the state of transport and device. Nothing of the host is in it: no backend, no
    /// counter.
    pub fn save(&self, out: &mut Vec<u8>) {
        let registers = &self.registers;
        out.extend_from_slice(&[STATE_VERSION, self.device.kind()]);
        for word in [
            registers.status,
            registers.device_features_select,
            registers.driver_features_select,
            registers.queue_select,
            registers.interrupt_status,
            registers.config_generation,
        ] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&registers.driver_features.to_le_bytes());
        for (config, queue) in registers.queues.iter().zip(&self.queues) {
            out.extend_from_slice(&config.size.to_le_bytes());
            out.push(u8::from(config.ready));
            for address in [config.descriptors, config.available, config.used] {
                out.extend_from_slice(&address.to_le_bytes());
            }
            let position = queue.as_ref().map_or(0, crate::queue::Queue::position);
            out.extend_from_slice(&position.to_le_bytes());
        }
        self.device.save(out);
    }

    /// Reads back what [`Self::save`] wrote, into a transport made with the same kind of device and
    /// the restored memory. All is checked as if the guest had written it now; on an error the
    /// transport is reset. [`Self::resume`] must follow before the guest runs.
    ///
    /// # Errors
    /// [`StateError`] for what no device can have written.
    pub fn restore(&mut self, state: &mut Reader<'_>) -> Result<(), StateError> {
        self.reset();
        let result = self.restore_checked(state);
        if result.is_err() {
            self.reset();
        }
        result
    }

    fn restore_checked(&mut self, state: &mut Reader<'_>) -> Result<(), StateError> {
        match state.u8()? {
            STATE_VERSION => {}
            other => return Err(StateError::Version(other)),
        }
        let kind = state.u8()?;
        if kind != self.device.kind() {
            return Err(StateError::Device(kind));
        }
        let (registers, positions) = read_registers(state)?;
        self.registers = registers;
        self.check_registers()?;
        if self.registers.status == RUNNING_STATUS {
            self.queues = self.freeze_queues(positions).map_err(StateError::Queue)?;
        }
        self.device.restore(state)
    }

    /// What a driver could have brought about: a step of the state machine, features that agree
    /// once they were accepted, queues only where the device has them.
    fn check_registers(&self) -> Result<(), StateError> {
        let registers = &self.registers;
        let accepted = match registers.status & !(STATUS_NEEDS_RESET | STATUS_FAILED) {
            0 | STATUS_ACKNOWLEDGE | ACKNOWLEDGED_DRIVER => false,
            FEATURES_OK_STATUS | RUNNING_STATUS => true,
            _ => return Err(StateError::Value("status")),
        };
        if accepted && !self.features_agree() {
            return Err(StateError::Value("features"));
        }
        if registers.interrupt_status & !(INTERRUPT_QUEUE | INTERRUPT_CONFIG) != 0 {
            return Err(StateError::Value("interrupt status"));
        }
        let unused = registers.queues.iter().skip(self.device.queue_sizes().len());
        let ready_early = !accepted && registers.queues.iter().any(|queue| queue.ready);
        if ready_early || unused.into_iter().any(|queue| *queue != QueueConfig::default()) {
            return Err(StateError::Value("queue"));
        }
        Ok(())
    }
}

fn read_registers(state: &mut Reader<'_>) -> Result<(Registers, [u16; QUEUES_MAX]), StateError> {
    let mut registers = Registers {
        status: state.u32()?,
        device_features_select: state.u32()?,
        driver_features_select: state.u32()?,
        queue_select: state.u32()?,
        interrupt_status: state.u32()?,
        config_generation: state.u32()?,
        driver_features: state.u64()?,
        ..Registers::default()
    };
    let mut positions = [0; QUEUES_MAX];
    for (config, position) in registers.queues.iter_mut().zip(&mut positions) {
        *config = QueueConfig {
            size: state.u32()?,
            ready: state.bool("queue ready")?,
            descriptors: state.u64()?,
            available: state.u64()?,
            used: state.u64()?,
        };
        *position = state.u16()?;
    }
    Ok((registers, positions))
}

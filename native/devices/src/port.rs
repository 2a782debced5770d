//! The one thing a guest needs of a keyboard controller: a way to say that it is done.

/// What an I/O port write asks of the monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortAction {
    /// Nothing.
    Ignore,
    /// The guest pulled the reset line (`reboot=k`): the machine ends.
    Reset,
}

/// The i8042's command port, 0x64, without a keyboard.
#[derive(Clone, Copy, Debug, Default)]
pub struct I8042;

impl I8042 {
    const DATA: u16 = 0x60;
    const COMMAND: u16 = 0x64;
    const PULSE_RESET: u8 = 0xfe;

    /// What a port reads as, when it is one of this device: no byte waits, and none is pending, so
    /// a kernel that waits for the controller goes on at once.
    #[must_use]
    pub fn read(port: u16) -> Option<u8> {
        matches!(port, Self::DATA | Self::COMMAND).then_some(0)
    }

    /// What a write of `value` to `port` asks for.
    #[must_use]
    pub fn write(port: u16, value: u8) -> PortAction {
        match (port, value) {
            (Self::COMMAND, Self::PULSE_RESET) => PortAction::Reset,
            _ => PortAction::Ignore,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_reset_command_ends_the_machine() {
        assert_eq!(I8042::write(0x64, 0xfe), PortAction::Reset);
        assert_eq!(I8042::write(0x60, 0xfe), PortAction::Ignore);
        assert_eq!(I8042::write(0x64, 0xd1), PortAction::Ignore);
        assert_eq!((I8042::read(0x64), I8042::read(0x61)), (Some(0), None));
    }
}

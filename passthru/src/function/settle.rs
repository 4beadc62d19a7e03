//! What a change of the guest's registers makes necessary: the state that they ask for, held against the state that the
//! host and the address space are in.

use super::registers::ConfigWrite;
use super::{Effect, Function, Placement};
use crate::host::MessageKind;
use crate::pci::registers::*;
use crate::pci::{Space, bar};

/// PMCSR's state field (PCIe 6.0 §7.5.2.2).
const POWER_STATE: u16 = 0x3;
const D0: u16 = 0;
const D3_HOT: u16 = 3;
/// PMCSR's PME status, which a one clears.
const PME_STATUS: u32 = 1 << 15;
/// Device Control's Initiate Function Level Reset (PCIe 6.0 §7.5.3.4), in the register's second byte.
const INITIATE_RESET: u8 = 1 << 7;
/// AF Control's Initiate FLR (PCI SIG ECN "Advanced Capabilities for Conventional PCI").
const INITIATE_AF_RESET: u8 = 1 << 0;

impl Function {
    /// A write of these bytes asks for a reset of the function.
    pub(super) fn asks_for_reset(&self, offset: u16, data: &[u8]) -> bool {
        let written = |register: Option<u16>, bit: u8| {
            let at = register.and_then(|register| register.checked_sub(offset));
            at.and_then(|at| data.get(usize::from(at))).is_some_and(|byte| byte & bit != 0)
        };
        written(self.controls.device_control.map(|register| register + 1), INITIATE_RESET)
            || written(self.controls.advanced_features, INITIATE_AF_RESET)
    }

    pub(super) fn power_state(&self) -> u16 {
        self.controls.power.map_or(D0, |register| self.registers.word(register) & POWER_STATE)
    }

    /// BARs go before the function sleeps and come after it woke: in D3hot it answers nothing but configuration accesses,
    /// and what is mapped of it in this process is a bus error.
    pub(super) fn settle_power(&mut self, before: u16, effects: &mut Vec<Effect>) {
        let (Some(register), state) = (self.controls.power, self.power_state()) else { return };
        if !matches!(state, D0 | D3_HOT) {
            // D1 and D2 are not offered, and a write that asks for them is discarded (PCIe 6.0 §7.5.2.2).
            let kept = self.registers.word(register) & !POWER_STATE | before;
            return self.registers.set_word(register, kept);
        }
        if state == before {
            return;
        }
        if state == D3_HOT {
            self.settle_bars(effects);
            effects.extend(self.pass_on(register, state));
        } else {
            effects.extend(self.pass_on(register, state));
            self.awoken(effects);
            self.settle_bars(effects);
        }
    }

    /// What the guest changed while the function slept did not reach it: its host restores the registers that it had
    /// before, and kernels set no interrupts up in a function that sleeps.
    fn awoken(&mut self, effects: &mut Vec<Effect>) {
        self.host_command = None;
        self.settle_interrupts(effects);
        self.settle_command(effects);
    }

    /// Wakes a function that sleeps: it is about to have the registers of one that does not.
    pub(super) fn wake(&mut self, effects: &mut Vec<Effect>) {
        if let Some(register) = self.controls.power.filter(|_| self.power_state() != D0) {
            effects.extend(self.pass_on(register, D0));
            self.host_command = None;
        }
    }

    fn pass_on(&self, register: u16, state: u16) -> Option<Effect> {
        let (value, mask) = (u32::from(state), u32::from(POWER_STATE));
        let write = ConfigWrite { offset: register, len: 2, value, mask, clear: PME_STATUS };
        self.passes_power_on.then_some(Effect::WriteHost(write))
    }

    /// What the function's own command register is to hold. Bus mastering and error reporting follow the guest.
    /// Decoding stays on: the guest's is a matter of what is mapped for it, and an access through a mapping of the
    /// host's would be a bus error while the function does not decode. INTx is the guest's to disable while it is
    /// delivered, and off otherwise.
    fn host_command(&self) -> u16 {
        let guest = self.registers.word(COMMAND);
        let decode = self.registers.dword(COMMAND).writable as u16 & (COMMAND_IO | COMMAND_MEMORY);
        let intx = if self.intx.is_on() { 0 } else { COMMAND_INTX_DISABLE };
        guest & !(COMMAND_IO | COMMAND_MEMORY) | decode | intx
    }

    pub(super) fn settle_command(&mut self, effects: &mut Vec<Effect>) {
        if self.power_state() != D0 {
            return;
        }
        let command = self.host_command();
        if self.host_command != Some(command) {
            self.host_command = Some(command);
            let value = u32::from(command);
            let (offset, len, mask, clear) = (COMMAND, 2, 0xffff, 0);
            effects.push(Effect::WriteHost(ConfigWrite { offset, len, value, mask, clear }));
        }
    }

    pub(super) fn settle_bars(&mut self, effects: &mut Vec<Effect>) {
        let awake = self.power_state() == D0;
        let command = self.registers.word(COMMAND);
        let mut moves = Vec::new();
        for (bar, placed) in self.bars.iter().zip(&mut self.placed) {
            let enable = match bar.kind.space() {
                Space::Io => COMMAND_IO,
                Space::Memory => COMMAND_MEMORY,
            };
            let low = u64::from(self.registers.dword(bar.register()).shadow);
            let high = match bar.kind.is_64bit() {
                true => u64::from(self.registers.dword(bar.register() + 4).shadow),
                false => 0,
            };
            // A ROM has a bit of its own as well (PCIe 6.0 §7.5.1.2.4).
            let enabled = bar.index != bar::ROM || low & 1 != 0;
            let decodes = awake && command & enable != 0 && enabled;
            let base = decodes.then_some((high << 32 | low) & bar.address_mask());
            if *placed != base {
                *placed = base;
                moves.push(Placement { bar: bar.index, space: bar.kind.space(), size: bar.size, base });
            }
        }
        if !moves.is_empty() {
            effects.push(Effect::Place(moves));
        }
    }

    /// INTx is off before messages are on, and on only after they are off: a host has one kind at a time.
    pub(super) fn settle_interrupts(&mut self, effects: &mut Vec<Effect>) {
        if self.power_state() != D0 {
            return;
        }
        let registers = &self.registers;
        // With both on, which the specification leaves open, MSI-X wins.
        if let Some(msix) = self.msix.as_ref().filter(|m| m.is_enabled(registers)) {
            let vectors = msix.vectors();
            self.intx.settle(false, effects);
            self.vectors.switch(Some((MessageKind::Msix, vectors)), effects);
            self.vectors.settle(0..vectors, |v| msix.want(registers, v), effects);
        } else if let Some(msi) = self.msi.as_ref().filter(|m| m.is_enabled(registers)) {
            let vectors = msi.enabled(registers);
            self.intx.settle(false, effects);
            self.vectors.switch(Some((MessageKind::Msi, vectors)), effects);
            self.vectors.settle(0..vectors, |v| msi.want(registers, v), effects);
        } else {
            self.vectors.switch(None, effects);
            self.intx.settle(self.intx.may_be_asserted(registers), effects);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::{endpoint, put, report};
    use super::super::*;
    use super::D0;

    const POWER: u16 = 0x74;
    const MSI_CONTROL: u16 = 0x52;
    const MSIX_CONTROL: u16 = 0x42;
    const ALL_ON: [u8; 2] = [0x07, 0x00];

    /// With a pin, decoding and bus mastering on.
    fn started(report: &Report) -> Function {
        let mut description = endpoint();
        put(&mut description.config, 0x3c, &[0x0b, 0x01]);
        let (mut function, _) = Function::new(&description, report, Shape::default()).unwrap();
        function.start(&mut Vec::new());
        function.write_config(BAR0, &0xc000_0000u32.to_le_bytes(), &mut Vec::new());
        function.write_config(COMMAND, &ALL_ON, &mut Vec::new());
        function
    }

    fn with_intx() -> Report {
        Report { intx: true, ..report() }
    }

    fn write(function: &mut Function, offset: u16, data: &[u8]) -> Vec<String> {
        let mut effects = Vec::new();
        function.write_config(offset, data, &mut effects);
        effects.iter().map(shown).collect()
    }

    fn shown(effect: &Effect) -> String {
        match effect {
            Effect::WriteHost(write) => {
                format!("{:#x} = {:#x} of {:#x}", write.offset, write.value, write.mask)
            }
            Effect::Place(moves) if moves.iter().all(|m| m.base.is_none()) => "unplaced".to_owned(),
            Effect::Place(moves) => format!("{} placed", moves.len()),
            Effect::SetVectors(kind, count, changes) => format!("{kind} {count} {}", changes.len()),
            Effect::DisableVectors(kind) => format!("no {kind}"),
            Effect::SetIntx(on) => format!("INTx {on}"),
            Effect::Reset => "reset".to_owned(),
        }
    }

    #[test]
    fn bars_go_before_the_function_sleeps_and_come_after_it_woke() {
        let mut function = started(&report());
        assert_eq!(write(&mut function, POWER, &[3]), ["unplaced", "0x74 = 0x3 of 0x3"]);
        assert_eq!(write(&mut function, COMMAND, &[0x02]), [""; 0], "and stay away");
        assert_eq!(write(&mut function, POWER, &[2]), [""; 0], "D2 is not offered");
        let woken = ["0x74 = 0x0 of 0x3", "0x4 = 0x403 of 0xffff", "2 placed"];
        assert_eq!(write(&mut function, POWER, &[0]), woken);
        assert_eq!(function.registers().dword(BAR0).shadow & !0xf, 0xc000_0000, "registers are as they were");
    }

    #[test]
    fn what_changed_while_the_function_slept_is_made_up_for_when_it_woke() {
        let mut function = started(&with_intx());
        write(&mut function, POWER, &[3]);
        for (register, bytes) in [(MSIX_CONTROL, [0x00, 0x80]), (COMMAND, [0x02, 0x00]), (COMMAND, ALL_ON)] {
            assert_eq!(write(&mut function, register, &bytes), [""; 0], "{register:#x}");
        }
        let woken = ["0x74 = 0x0 of 0x3", "INTx false", "MSI-X 65 0", "0x4 = 0x407 of 0xffff", "3 placed"];
        assert_eq!(write(&mut function, POWER, &[0]), woken);
        write(&mut function, POWER, &[3]);
        write(&mut function, COMMAND, &[0x00, 0x00]);
        let mut effects = Vec::new();
        function.reset(&mut effects);
        let effects: Vec<String> = effects.iter().map(shown).collect();
        assert_eq!(effects, ["0x74 = 0x0 of 0x3", "no MSI-X", "0x4 = 0x403 of 0xffff"], "no DMA is left on");
    }

    #[test]
    fn a_function_that_is_reset_is_awake() {
        let mut function = started(&report());
        write(&mut function, POWER, &[3]);
        let mut effects = Vec::new();
        function.reset(&mut effects);
        assert_eq!(effects.first().map(shown).as_deref(), Some("0x74 = 0x0 of 0x3"));
        assert_eq!(function.power_state(), D0);
    }

    #[test]
    fn a_host_without_power_states_only_loses_its_bars() {
        let mut function = started(&Report { power_states: false, ..report() });
        assert_eq!(write(&mut function, POWER, &[3]), ["unplaced"]);
        assert_eq!(write(&mut function, POWER, &[0]), ["0x4 = 0x407 of 0xffff", "3 placed"]);
    }

    #[test]
    fn a_reset_silences_the_function_before_it_begins() {
        for (register, bytes) in [(0x88, &[0x00, 0x80][..]), (0x89, &[0x80]), (0x88, &[0x00, 0xff, 0, 0])] {
            let mut function = started(&report());
            function.write_config(MSIX_CONTROL, &[0x00, 0x80], &mut Vec::new());
            let effects = write(&mut function, register, bytes);
            assert_eq!(effects.last().map(String::as_str), Some("reset"), "{register:#x} {effects:?}");
            for before in ["unplaced", "no MSI-X"] {
                assert!(effects.iter().any(|effect| effect == before), "{effects:?}");
            }
            assert_eq!(function.registers().word(COMMAND), 0);
            assert_eq!(function.registers().word(0x88) & 0x8000, 0, "the bit reads zero");
        }
    }

    #[test]
    fn what_does_not_ask_for_a_reset() {
        let alone = Report { reset: Some(crate::host::ResetMethod::BusWith([].into())), ..report() };
        for report in [Report { reset: None, ..report() }, alone] {
            assert!(!write(&mut started(&report), 0x88, &[0x00, 0x80]).contains(&"reset".to_owned()));
        }
        for (register, byte) in [(0x88, 0x80), (0x89, 0x7f), (0x8b, 0x80)] {
            let effects = write(&mut started(&report()), register, &[byte]);
            assert!(!effects.contains(&"reset".to_owned()), "{register:#x}");
        }
    }

    #[test]
    fn interrupts_are_of_one_kind_at_a_time_in_any_order() {
        let mut function = started(&with_intx());
        let mut on: Option<String> = Some("INTx".to_owned());
        for (register, bytes, kind) in [
            (MSI_CONTROL, [0x01, 0x00], Some("MSI")),
            (MSIX_CONTROL, [0x00, 0x80], Some("MSI-X")),
            (MSI_CONTROL, [0x00, 0x00], Some("MSI-X")),
            (MSIX_CONTROL, [0x00, 0x00], Some("INTx")),
            (MSIX_CONTROL, [0x00, 0x80], Some("MSI-X")),
            (MSI_CONTROL, [0x01, 0x00], Some("MSI-X")),
            (MSIX_CONTROL, [0x00, 0x00], Some("MSI")),
            (MSI_CONTROL, [0x00, 0x00], Some("INTx")),
        ] {
            for effect in write(&mut function, register, &bytes) {
                let kind = effect.trim_start_matches("no ").split(' ').next().unwrap_or_default().to_owned();
                if effect.starts_with("no ") || effect == "INTx false" {
                    assert_eq!(on.take(), Some(kind));
                } else if effect.starts_with("MSI") || effect == "INTx true" {
                    assert_eq!(on.replace(kind), None, "one was on");
                }
            }
            assert_eq!(on.as_deref(), kind, "{register:#x} {bytes:?}");
        }
    }

    #[test]
    fn intx_is_on_once_the_function_may_assert_it_and_the_guests_to_disable() {
        let mut description = endpoint();
        put(&mut description.config, 0x3c, &[0x0b, 0x02]);
        let (mut function, _) = Function::new(&description, &with_intx(), Shape::default()).unwrap();
        function.start(&mut Vec::new());
        assert_eq!(write(&mut function, COMMAND, &[0x00, 0x04]), [""; 0]);
        assert_eq!(write(&mut function, COMMAND, &[0x04, 0x04]), ["INTx true", "0x4 = 0x407 of 0xffff"]);
        assert_eq!(write(&mut function, COMMAND, &[0x04, 0x00]), ["0x4 = 0x7 of 0xffff"]);
        assert_eq!(write(&mut function, COMMAND, &[0x00, 0x00]), ["0x4 = 0x3 of 0xffff"], "it may be up now");
        let mut effects = Vec::new();
        function.reset(&mut effects);
        let effects: Vec<String> = effects.iter().map(shown).collect();
        assert_eq!(effects, ["INTx false", "0x4 = 0x403 of 0xffff"]);
    }

    #[test]
    fn a_function_without_a_pin_or_a_host_without_intx_has_none() {
        let mut description = endpoint();
        put(&mut description.config, 0x3c, &[0x0b, 0x00]);
        for (description, report) in [(description, with_intx()), (endpoint(), report())] {
            let (mut function, _) = Function::new(&description, &report, Shape::default()).unwrap();
            assert!(!write(&mut function, COMMAND, &ALL_ON).contains(&"INTx true".to_owned()));
            assert_eq!(function.registers().dword(INTERRUPT_LINE).shadow >> 8 & 0xff, 0);
        }
    }
}

//! One vCPU's attack: random accesses of every kind, one after the other.

use core::sync::atomic::{AtomicBool, Ordering};

use runtime::config::ConfigSpace;
use runtime::function::COMMAND;
use runtime::interrupt;
use runtime::port;
use runtime::println;
use runtime::slot::Slot;
use runtime::window::Window;

use crate::budget::Budget;
use crate::filter::Rules;
use crate::random::Random;
use crate::target::{Target, Targets};

/// Ports 0xCF8 and 0xCFC belong together: between the two, another vCPU's access would send a write to a function that it
/// was not meant for.
static CONFIG_PORTS: AtomicBool = AtomicBool::new(false);

const ROM_BAR: u64 = 0x30;
const SIMULATED: u32 = 0x0001_5350;
/// In its BAR0.
const SIMULATED_TRIGGER: u64 = 0x48;

pub struct Attack<'a> {
    pub targets: &'a Targets,
    pub rules: Rules,
    /// Per cent of the accesses that go to memory BARs.
    pub to_bars: u64,
    /// RAM that must stay as it is: BARs are put on top of it.
    pub guard: u64,
    pub random: Random,
    /// Says how far it is.
    pub tells: bool,
    pub budget: Budget,
}

/// How often the first vCPU says how far it is, in accesses.
const MILESTONE: u64 = 500_000;

impl Attack<'_> {
    /// Runs until the budget is used up.
    pub fn run(&mut self) {
        let mut milestone = MILESTONE;
        while !self.budget.is_used_up() {
            if self.tells && self.budget.made() >= milestone {
                println!("{milestone} accesses of the first vCPU");
                milestone += MILESTONE;
            }
            if self.random.below(100) < self.to_bars
                && let Some(home) = self.targets.home(self.random.word())
            {
                self.memory(home);
                continue;
            }
            let Some(target) = self.targets.nth(self.random.word()) else { return };
            match self.random.below(16) {
                0 | 1 => self.anywhere_in_config(target),
                2 => self.by_config_ports(target),
                3 => self.header(target),
                4 | 5 => self.capability(target),
                6 => self.reset(target),
                7 | 8 => self.table_entry(target),
                9 | 10 => self.move_bar(target),
                11 => self.ports(target),
                12 => self.absent(),
                13 => self.raise(target),
                _ => self.restore(target),
            }
        }
    }

    /// An offset at which so many bytes fit; now and then one that is not aligned.
    fn offset(&mut self, length: u64, bytes: u64) -> u64 {
        let offset = self.random.below(length.saturating_sub(bytes) + 1);
        if self.random.one_in(16) { offset } else { offset & !(bytes - 1) }
    }

    fn write_config(&mut self, target: &Target, offset: u64, bytes: u64, value: u64) {
        if Rules::renumbers(target, offset, bytes) {
            return;
        }
        let value = self.rules.config(target, &mut self.budget, offset, bytes, value);
        if let Some(ecam) = target.function.ecam() {
            ecam.window().write_any(offset, bytes, value);
            self.budget.accesses(1);
        }
    }

    fn read_config(&mut self, target: &Target, offset: u64, bytes: u64) {
        if let Some(ecam) = target.function.ecam() {
            let _ = ecam.window().read_any(offset, bytes);
            self.budget.accesses(1);
        }
    }

    fn memory(&mut self, home: Window) {
        // Registers are at the beginning, mostly.
        let length = if self.random.one_in(2) { home.length() } else { home.length().min(8192) };
        let bytes = self.random.width(8).min(length);
        let offset = self.offset(length, bytes);
        if self.random.one_in(2) {
            let _ = home.read_any(offset, bytes);
        } else {
            let value = self.random.value();
            let value = self.rules.memory(home.address() + offset, bytes, value);
            home.write_any(offset, bytes, value);
        }
        self.budget.accesses(1);
    }

    fn anywhere_in_config(&mut self, target: &Target) {
        let bytes = self.random.width(8);
        let length = if self.random.one_in(2) { 256 } else { 4096 };
        let offset = self.offset(length, bytes);
        if self.random.one_in(2) {
            self.read_config(target, offset, bytes);
        } else {
            let value = self.random.value();
            self.write_config(target, offset, bytes, value);
        }
    }

    fn by_config_ports(&mut self, target: &Target) {
        let bytes = self.random.width(4);
        let offset = self.random.below(256) & !(bytes - 1);
        let value = self.random.value();
        if Rules::renumbers(target, offset, bytes) {
            return;
        }
        let value = self.rules.config(target, &mut self.budget, offset, bytes, value);
        let (config, offset) = (target.function.ports(), offset as u16);
        while CONFIG_PORTS.swap(true, Ordering::Acquire) {
            core::hint::spin_loop();
        }
        match (self.random.one_in(2), bytes) {
            (true, 1) => config.write8(offset, value as u8),
            (true, 2) => config.write16(offset, value as u16),
            (true, _) => config.write32(offset, value as u32),
            (false, 1) => drop(config.read8(offset)),
            (false, 2) => drop(config.read16(offset)),
            (false, _) => drop(config.read32(offset)),
        }
        CONFIG_PORTS.store(false, Ordering::Release);
        self.budget.accesses(1);
    }

    fn header(&mut self, target: &Target) {
        let value = self.random.value();
        match self.random.below(4) {
            0 => self.write_config(target, u64::from(COMMAND), 2, value),
            1 => self.write_config(target, ROM_BAR, 4, value),
            2 => self.write_config(target, 0x3c, 4, value),
            _ => self.write_config(target, u64::from(COMMAND), 4, value),
        }
    }

    /// Control registers of MSI and MSI-X, and the message that MSI sends.
    fn capability(&mut self, target: &Target) {
        let value = self.random.value();
        let msix = target.msix.map(|(capability, ..)| (capability, 2, 2));
        let msi = target.msi.map(|capability| (capability, 4 * self.random.below(6), 4));
        let chosen = if self.random.one_in(2) { msix.or(msi) } else { msi.or(msix) };
        if let Some((capability, register, bytes)) = chosen {
            self.write_config(target, u64::from(capability) + register, bytes, value);
        }
    }

    /// D3hot and back, and resets that the function does itself.
    fn reset(&mut self, target: &Target) {
        let kinds = [
            target.power.map(|capability| (capability + 4, 3)),
            target.power.map(|capability| (capability + 4, 0)),
            target.express.map(|capability| (capability + 8, 0x8000)),
            target.advanced.map(|capability| (capability + 4, 1)),
        ];
        if let Some(Some((offset, value))) = self.random.pick(&kinds).copied() {
            self.write_config(target, u64::from(offset), 2, value);
        }
    }

    /// Dwords and quadwords of an MSI-X table: messages to any vCPU, or to none, and masks.
    fn table_entry(&mut self, target: &Target) {
        let Some((_, place, length)) = target.msix else { return };
        let Some(home) = target.home(place.bar).filter(|home| place.offset + length <= home.length()) else {
            return;
        };
        let entry = place.offset + self.random.below(length / 16) * 16;
        // To one of the first vCPUs, or to any destination in any mode.
        let destination = if self.random.one_in(2) { 0x1000 } else { 0xf_fffc };
        let message = 0xfee0_0000 | self.random.word() & destination;
        let data = u64::from(interrupt::FIRST) + self.random.below(0xb0);
        let mut write = |register: u64, bytes: u64, value: u64| {
            let value = self.rules.memory(home.address() + entry + register, bytes, value);
            home.write_any(entry + register, bytes, value);
            self.budget.accesses(1);
        };
        match self.random.below(4) {
            // As a driver would.
            0 | 1 => {
                write(12, 4, 1);
                write(0, 8, message);
                write(8, 4, data);
                write(12, 4, 0);
            }
            2 => write(12, 4, self.random.below(2)),
            _ => {
                let bytes = 4 << self.random.below(2);
                write(bytes * self.random.below(16 / bytes), bytes, self.random.value());
            }
        }
    }

    /// Lets slotpass' simulated function raise a vector, whatever has become of it.
    fn raise(&mut self, target: &Target) {
        if let Some(home) = target.home(0).filter(|_| target.id == SIMULATED) {
            home.write_any(SIMULATED_TRIGGER, 4, self.random.below(260));
            self.budget.accesses(1);
        }
    }

    /// A BAR on top of another one, of RAM, of ECAM, of the local APIC, at 0, or anywhere; decoding stays as it is.
    fn move_bar(&mut self, target: &Target) {
        let Some(bar) = target.bars.get(self.random.below(6) as usize).copied().flatten() else { return };
        let other = self.targets.nth(self.random.word());
        let other = other.and_then(|other| other.bars.get(self.random.below(6) as usize).copied().flatten());
        let address = match self.random.below(8) {
            0 => 0,
            1 => self.guard,
            2 => 0xe000_0000,
            3 => 0xfee0_0000,
            4 => bar.address.wrapping_add(bar.size),
            5 => self.random.value(),
            _ => other.map_or(u64::MAX, |other| other.address),
        };
        let register = 0x10 + 4 * u64::from(bar.index);
        self.write_config(target, register, 4, address);
        if bar.kind.is_pair() {
            self.write_config(target, register + 4, 4, address >> 32);
        }
    }

    fn ports(&mut self, target: &Target) {
        let Some((first, length)) = target.ports(self.random.below(6) as u8) else { return };
        let bytes = self.random.width(4);
        let number = first + self.offset(length, bytes) as u16;
        let value = self.random.value();
        match (self.random.one_in(2), bytes) {
            (true, 1) => port::write8(number, value as u8),
            (true, 2) => port::write16(number, value as u16),
            (true, _) => port::write32(number, value as u32),
            (false, 1) => drop(port::read8(number)),
            (false, 2) => drop(port::read16(number)),
            (false, _) => drop(port::read32(number)),
        }
        self.budget.accesses(1);
    }

    /// Slots that have no function: what is written there must go nowhere.
    fn absent(&mut self) {
        let bits = self.random.word();
        let slot = Slot::new((bits >> 8) as u8, (bits >> 3 & 31) as u8, (bits & 7) as u8);
        let is_target = self.targets.iter().any(|target| target.function.slot() == slot);
        let some = self.targets.iter().next();
        let Some(ecam) = some.and_then(|target| target.function.ecam()).filter(|_| !is_target) else {
            return;
        };
        let base = ecam.window().address() - (u64::from(some.map_or(0, |t| t.function.slot().bits())) << 12);
        let config = Window::device(base + (u64::from(slot.bits()) << 12), 4096);
        let bytes = self.random.width(8);
        let offset = self.offset(4096, bytes);
        if self.random.one_in(2) {
            config.write_any(offset, bytes, bits);
        } else {
            let _ = config.read_any(offset, bytes);
        }
        self.budget.accesses(1);
    }

    /// So that most accesses find something at home.
    fn restore(&mut self, target: &Target) {
        self.budget.accesses(target.restore(true));
        if let Some((capability, ..)) = target.msix {
            let control = self.random.pick(&[0, 0x8000, 0x8000, 0xc000]).copied().unwrap_or(0);
            self.write_config(target, u64::from(capability) + 2, 2, control);
        }
    }
}

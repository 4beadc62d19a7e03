//! KVM's interrupt routing table and irqfds.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use devices::pci::PortBuses;
use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE, KvmIrqRouting, kvm_irq_routing_entry, kvm_irq_routing_irqchip,
    kvm_irq_routing_msi,
};
use kvm_ioctls::{Cap, VmFd};
use parking_lot::Mutex;
use passthru::pci::Slot;
use passthru::ports::{Gsi, InterruptPort, MsiMessage, PortError, PortOperation};
use vmm_sys_util::eventfd::EventFd;

use crate::layout;

/// Routes that every KVM with routing allows (`KVM_MAX_IRQ_ROUTES`), when the capability does not say.
const ROUTES: u32 = 4096;

/// Interrupts to the guest.
pub struct KvmInterrupts {
    vm: Arc<VmFd>,
    /// Pins of the functions on these buses come in at their ports' device.
    ports: PortBuses,
    table: Mutex<Routes>,
    limit: u32,
    calls: AtomicU64,
    /// Who raises each line, of those that do so from here.
    lines: Mutex<BTreeMap<u32, BTreeSet<Slot>>>,
}

/// What is to be KVM's table, in the form that the call takes: a message more costs the same here however many there are.
struct Routes {
    /// The interrupt controllers' pins, which are always there, and behind them the messages.
    table: KvmIrqRouting,
    pins: usize,
    /// GSIs for messages, and where each is in the table; one without a message is not there yet.
    messages: BTreeMap<u32, Option<usize>>,
    /// The table has routes of GSIs that were given back.
    has_released: bool,
    /// Something changed since the last commit.
    changed: bool,
}

impl Routes {
    fn new(pins: &[kvm_irq_routing_entry]) -> io::Result<Routes> {
        let table = KvmIrqRouting::from_entries(pins).map_err(too_many)?;
        let (messages, has_released) = (BTreeMap::new(), false);
        Ok(Routes { table, pins: pins.len(), messages, has_released, changed: true })
    }

    fn route(&mut self, gsi: u32, message: MsiMessage) -> io::Result<()> {
        let Some(place) = self.messages.get_mut(&gsi) else { return Ok(()) };
        let entry = entry(gsi, message);
        match place.and_then(|at| self.table.as_mut_slice().get_mut(at)) {
            Some(routed) => *routed = entry,
            None => {
                *place = Some(self.table.as_slice().len());
                self.table.push(entry).map_err(too_many)?;
            }
        }
        self.changed = true;
        Ok(())
    }

    fn release(&mut self, gsi: u32) {
        if self.messages.remove(&gsi).flatten().is_some() {
            self.has_released = true;
            self.changed = true;
        }
    }

    /// Takes out of the table what was given back, all of it at once.
    fn sweep(&mut self) -> io::Result<()> {
        let mut kept = self.table.as_slice().get(..self.pins).unwrap_or_default().to_vec();
        for place in self.messages.values_mut() {
            let route = place.and_then(|at| self.table.as_slice().get(at));
            *place = route.map(|_| kept.len());
            kept.extend(route);
        }
        self.table = KvmIrqRouting::from_entries(&kept).map_err(too_many)?;
        self.has_released = false;
        Ok(())
    }
}

fn too_many(error: vmm_sys_util::fam::Error) -> io::Error {
    io::Error::other(format!("{error:?}"))
}

fn entry(gsi: u32, MsiMessage { address, data }: MsiMessage) -> kvm_irq_routing_entry {
    let mut entry =
        kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_MSI, ..kvm_irq_routing_entry::default() };
    entry.u.msi = kvm_irq_routing_msi {
        address_lo: address as u32,
        address_hi: (address >> 32) as u32,
        data,
        ..kvm_irq_routing_msi::default()
    };
    entry
}

impl KvmInterrupts {
    /// Routes of the PICs and the I/O APIC only.
    pub fn new(vm: Arc<VmFd>, ports: PortBuses) -> Result<KvmInterrupts, PortError> {
        let limit =
            u32::try_from(vm.check_extension_int(Cap::IrqRouting)).ok().filter(|n| *n > 1).unwrap_or(ROUTES);
        let pins = pins();
        let failed = PortOperation::Commit { routes: pins.len() };
        let table = Routes::new(&pins).map_err(failed.failed())?;
        let interrupts = KvmInterrupts {
            vm,
            ports,
            table: Mutex::new(table),
            limit,
            calls: AtomicU64::new(0),
            lines: Mutex::default(),
        };
        interrupts.commit()?;
        Ok(interrupts)
    }

    /// Calls of `KVM_SET_GSI_ROUTING` so far.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }
}

/// The PICs have GSIs 0 to 15, the I/O APIC all of its pins; GSI 0, the timer, comes in at its pin 2, as the MADT says
/// (ACPI 6.5 §5.2.12.5).
fn pins() -> Vec<kvm_irq_routing_entry> {
    let route = |gsi, irqchip, pin| {
        let mut entry =
            kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_IRQCHIP, ..kvm_irq_routing_entry::default() };
        entry.u.irqchip = kvm_irq_routing_irqchip { irqchip, pin };
        entry
    };
    let master = (0..8).map(|gsi| route(gsi, KVM_IRQCHIP_PIC_MASTER, gsi));
    let slave = (8..16).map(|gsi| route(gsi, KVM_IRQCHIP_PIC_SLAVE, gsi - 8));
    let io_apic = (0..layout::IO_APIC_PINS)
        .filter(|gsi| *gsi != 2)
        .map(|gsi| route(gsi, KVM_IRQCHIP_IOAPIC, if gsi == 0 { 2 } else { gsi }));
    master.chain(slave).chain(io_apic).collect()
}

/// The pin of the I/O APIC that INTx pin `pin` (1 to 4) of a device is wired to: pins 16 to 23, rotated by device so
/// that neighbours do not share (PCIe 6.0 §2.2.8.1 does so across bridges).
pub fn intx_gsi(device: u8, pin: u8) -> u32 {
    16 + (u32::from(device) + u32::from(pin.saturating_sub(1))) % 8
}

/// kvm-ioctls and vmm-sys-util want an [`EventFd`] of their own, not somebody's descriptor.
pub(super) fn with_eventfd<T>(fd: BorrowedFd<'_>, call: impl FnOnce(&EventFd) -> T) -> T {
    // SAFETY: the descriptor is open while it is borrowed, and it is not closed here.
    let event = ManuallyDrop::new(unsafe { EventFd::from_raw_fd(fd.as_raw_fd()) });
    call(&event)
}

impl InterruptPort for KvmInterrupts {
    fn allocate(&self, slot: Slot) -> Result<Gsi, PortError> {
        let mut table = self.table.lock();
        // The limit is that of the numbers as well (`kvm_set_irq_routing` refuses the whole table for one beyond).
        let (first, last) = (layout::IO_APIC_PINS, self.limit);
        // The entries of the pins take their share of the table. The number behind the highest one in use is free; only
        // when there is none, one that was given back is looked for.
        let is_full = table.messages.len() + table.pins >= self.limit as usize;
        let next = table.messages.last_key_value().map_or(first, |(gsi, _)| gsi + 1);
        let gsi = match next {
            _ if is_full => None,
            next if next < last => Some(next),
            _ => (first..last).find(|gsi| !table.messages.contains_key(gsi)),
        };
        let none = PortOperation::Gsi { slot, limit: self.limit }.failed();
        let gsi = gsi.ok_or(io::Error::from_raw_os_error(libc::ENOSPC)).map_err(none)?;
        table.messages.insert(gsi, None);
        Ok(Gsi(gsi))
    }

    fn release(&self, gsi: Gsi) {
        self.table.lock().release(gsi.0);
    }

    fn route(&self, gsi: Gsi, message: MsiMessage) -> Result<(), PortError> {
        // KVM refuses a whole table for one entry with these bits set (`kvm_set_routing_entry` when message addresses
        // have 32-bit destination ids).
        if message.address >> 32 & 0xff != 0 {
            let invalid = io::Error::from_raw_os_error(libc::EINVAL);
            return Err(invalid).map_err(PortOperation::Message(message).failed());
        }
        self.table.lock().route(gsi.0, message).map_err(PortOperation::Message(message).failed())
    }

    fn commit(&self) -> Result<(), PortError> {
        let mut table = self.table.lock();
        if !table.changed {
            return Ok(());
        }
        let failed = PortOperation::Commit { routes: table.messages.len() + table.pins };
        if table.has_released {
            table.sweep().map_err(failed.failed())?;
        }
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.vm.set_gsi_routing(&table.table).map_err(failed.failed())?;
        table.changed = false;
        Ok(())
    }

    fn attach(&self, gsi: Gsi, event: BorrowedFd<'_>) -> Result<(), PortError> {
        with_eventfd(event, |event| self.vm.register_irqfd(event, gsi.0))
            .map_err(PortOperation::Attach(gsi).failed())
    }

    fn detach(&self, gsi: Gsi, event: BorrowedFd<'_>) -> Result<(), PortError> {
        with_eventfd(event, |event| self.vm.unregister_irqfd(event, gsi.0))
            .map_err(PortOperation::Detach(gsi).failed())
    }

    fn line(&self, slot: Slot, pin: u8) -> Gsi {
        Gsi(intx_gsi(self.ports.wired_device(slot), pin))
    }

    fn attach_line(
        &self,
        gsi: Gsi,
        trigger: BorrowedFd<'_>,
        resample: BorrowedFd<'_>,
    ) -> Result<bool, PortError> {
        if !self.vm.check_extension(Cap::IrqfdResample) {
            return Ok(false);
        }
        let attach = |trigger: &EventFd| {
            with_eventfd(resample, |resample| self.vm.register_irqfd_with_resample(trigger, resample, gsi.0))
        };
        with_eventfd(trigger, attach).map_err(PortOperation::Attach(gsi).failed())?;
        Ok(true)
    }

    fn set_line(&self, gsi: Gsi, slot: Slot, raised: bool) -> Result<(), PortError> {
        // Held across the call, so that the line is what the last change of it says.
        let mut lines = self.lines.lock();
        let by = lines.entry(gsi.0).or_default();
        if raised {
            by.insert(slot)
        } else {
            by.remove(&slot)
        };
        self.vm.set_irq_line(gsi.0, !by.is_empty()).map_err(PortOperation::Line(gsi).failed())
    }

    fn detach_line(&self, gsi: Gsi, trigger: BorrowedFd<'_>) -> Result<(), PortError> {
        self.detach(gsi, trigger)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(routes: &Routes) -> Vec<(u32, u32)> {
        let messages = routes.table.as_slice().iter().skip(routes.pins);
        // SAFETY: all of them are routes of messages.
        messages.map(|entry| (entry.gsi, unsafe { entry.u.msi.data })).collect()
    }

    #[test]
    fn the_table_has_the_last_message_of_each_gsi_and_none_that_was_given_back() {
        let mut routes = Routes::new(&pins()).unwrap();
        let message = |data| MsiMessage { address: 0xfee0_0000, data };
        routes.messages.extend([(24, None), (25, None), (26, None), (27, None)]);
        for (gsi, data) in [(24, 1), (26, 2), (25, 3), (26, 4), (40, 5)] {
            routes.route(gsi, message(data)).unwrap();
        }
        assert_eq!(messages(&routes), [(24, 1), (26, 4), (25, 3)]);
        routes.changed = false;
        // One that never was routed changes nothing.
        routes.release(27);
        assert!(!routes.changed);
        routes.release(24);
        // Given out anew before the table is swept.
        routes.messages.insert(24, None);
        routes.route(24, message(6)).unwrap();
        routes.sweep().unwrap();
        assert_eq!(messages(&routes), [(24, 6), (25, 3), (26, 4)]);
        routes.route(25, message(7)).unwrap();
        assert_eq!(messages(&routes), [(24, 6), (25, 7), (26, 4)]);
        let pins = pins();
        let kept = routes.table.as_slice().iter().take(pins.len()).map(|entry| entry.gsi);
        assert!(kept.eq(pins.iter().map(|entry| entry.gsi)));
    }

    #[test]
    fn neighbouring_devices_have_different_lines() {
        for device in 0..32 {
            let lines: Vec<u32> = (1..=4).map(|pin| intx_gsi(device, pin)).collect();
            assert!(lines.iter().all(|gsi| (16..24).contains(gsi)));
            assert_ne!(intx_gsi(device, 1), intx_gsi(device + 1, 1));
        }
    }

    #[test]
    fn the_timer_comes_in_at_pin_2_and_every_pin_has_one_gsi() {
        let io_apic: Vec<(u32, u32)> = pins()
            .iter()
            .map(|entry| {
                // SAFETY: all of them are routes to interrupt controllers.
                (entry.gsi, unsafe { entry.u.irqchip })
            })
            .filter(|(_, chip)| chip.irqchip == KVM_IRQCHIP_IOAPIC)
            .map(|(gsi, chip)| (gsi, chip.pin))
            .collect();
        assert!(io_apic.contains(&(0, 2)) && !io_apic.iter().any(|(gsi, _)| *gsi == 2));
        assert_eq!(io_apic.len(), 23);
    }
}

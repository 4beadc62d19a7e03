//! The floor: a bare loop around `KVM_RUN` that runs the guest and answers nothing. It is the least that KVM allows.
//!
//! One vCPU, interrupt controllers in the kernel, memory, and four things that spare exits or what follows them: a read-only
//! memory slot, a port whose writes the kernel collects, an address whose writes signal an eventfd, and one whose eventfd
//! raises an interrupt. An exit is told from others by one `match`, and what reads gets all ones.

use std::io;
use std::sync::Arc;

use kvm_bindings::{KVM_IRQ_ROUTING_MSI, KvmIrqRouting, kvm_irq_routing_entry, kvm_irq_routing_msi};
use kvm_ioctls::{Cap, IoEventAddress, NoDatamatch, VcpuExit, VcpuFd};
use passthru::ports::{Access, MemoryPort};
use vm_memory::MmapRegion;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::error::BenchError;
use super::guest_text::GuestText;
use crate::boot::Kernel;
use crate::bus::Bus;
use crate::kvm::memory::KvmMemory;
use crate::kvm::vcpu::Template;
use crate::kvm::{KvmError, Vm, call};
use crate::layout;
use crate::memory::{self, Backing, RamSize};

const PAGE: u64 = 0x1000;
/// The read-only memory slot.
const READ_ONLY: u64 = layout::WINDOW32.start;
/// Writes signal an eventfd that nobody reads.
const DOORBELL: u64 = READ_ONLY + 0x1000_0000;
/// Writes signal an eventfd that raises [`GSI`].
const INTERRUPT: u64 = DOORBELL + PAGE;
/// Writes of four bytes are collected. The same port as slotpass': what it takes KVM to find who claims a port depends on it.
const COLLECTED_PORT: u16 = layout::CONFIG_ADDRESS_PORT;
const GSI: u32 = layout::IO_APIC_PINS;
/// Processor vector of the message that the GSI has: the guest's, unless it is told otherwise.
const VECTOR: u32 = 0x60;

const LINE_STATUS: u16 = layout::SERIAL_PORT + 5;
const LINE_CONTROL: u16 = layout::SERIAL_PORT + 3;
/// Of the line control register: the first port is the divisor's lower half.
const DIVISOR: u8 = 0x80;
/// Of the line status register: the transmitter is empty.
const EMPTY: u8 = 0x60;

/// What the guest measures here. The names are those of `guest::BENCH`.
///
/// The interrupt comes last, as in the guest's own order: until the first one is delivered KVM looks for one at each entry of
/// the guest (`irr_pending` in arch/x86/kvm/lapic.c), and accesses are only alike before that.
fn words(iterations: u64, collects: bool) -> String {
    let coalesced = if collects { format!("coalesced-write={COLLECTED_PORT:#x} ") } else { String::new() };
    format!(
        "iterations={iterations} empty empty-port pio-read pio-write mmio-read mmio-write ro-read={READ_ONLY:#x} \
         ro-write={READ_ONLY:#x} ioeventfd-write={DOORBELL:#x} {coalesced}irqfd={INTERRUPT:#x} vector={VECTOR}"
    )
}

/// Runs the guest to its end, and gives what it sent by its serial port.
pub fn run(iterations: u64) -> Result<String, BenchError> {
    let vm = Vm::new()?;
    let collects = vm.fd().check_extension(Cap::CoalescedPio);
    let mut kernel = Kernel::embedded("bench", guest::BENCH, &words(iterations, collects))?;
    let size = RamSize::try_from(RamSize::MIN)?;
    let memory =
        KvmMemory::new(vm.fd().clone(), Arc::new(Bus::new()), memory::allocate(size, Backing::Transparent)?)?;
    let constant =
        MmapRegion::<()>::new(PAGE as usize).map_err(io::Error::other).map_err(BenchError::Memory)?;
    // SAFETY: the region is unmapped when this function is left, and then nobody runs the vCPU any more.
    unsafe { memory.map(READ_ONLY, constant.as_ptr(), PAGE, Access::ReadOnly)? };
    let _events = events(&vm)?;

    let template = Template::new(vm.kvm(), 1)?;
    let mut vcpu = vm.fd().create_vcpu(0).map_err(call("KVM_CREATE_VCPU"))?;
    vcpu.set_cpuid2(&template.for_vcpu(0)?).map_err(call("KVM_SET_CPUID2"))?;
    if collects {
        let port = IoEventAddress::Pio(u64::from(COLLECTED_PORT));
        vm.fd().register_coalesced_mmio(port, 4).map_err(call("KVM_REGISTER_COALESCED_MMIO"))?;
        vcpu.map_coalesced_mmio_ring().map_err(call("mmap of the ring of collected writes"))?;
    }
    let entry = kernel.load(memory.ram(), 0)?;
    let mut sregs = vcpu.get_sregs().map_err(call("KVM_GET_SREGS"))?;
    entry.apply(&mut sregs);
    vcpu.set_sregs(&sregs).map_err(call("KVM_SET_SREGS"))?;
    vcpu.set_regs(&entry.regs()).map_err(call("KVM_SET_REGS"))?;
    let mut text = GuestText::default();
    run_loop(&mut vcpu, &mut text)?;
    text.into_string()
}

/// The eventfds that writes signal, which must stay as long as the guest runs.
fn events(vm: &Vm) -> Result<[EventFd; 2], BenchError> {
    let eventfd = || EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(BenchError::Eventfd);
    let (doorbell, interrupt) = (eventfd()?, eventfd()?);
    for (event, address) in [(&doorbell, DOORBELL), (&interrupt, INTERRUPT)] {
        // Of any length, for which KVM on Intel need not decode the instruction.
        let address = IoEventAddress::Mmio(address);
        vm.fd().register_ioevent(event, &address, NoDatamatch).map_err(call("KVM_IOEVENTFD"))?;
    }
    let mut route = kvm_irq_routing_entry { gsi: GSI, type_: KVM_IRQ_ROUTING_MSI, ..Default::default() };
    route.u.msi =
        kvm_irq_routing_msi { address_lo: layout::LOCAL_APIC as u32, data: VECTOR, ..Default::default() };
    let routes = KvmIrqRouting::from_entries(&[route]).map_err(|_| KvmError::Call {
        call: "KVM_SET_GSI_ROUTING (memory for its argument)",
        source: io::Error::from_raw_os_error(libc::ENOMEM),
    })?;
    vm.fd().set_gsi_routing(&routes).map_err(call("KVM_SET_GSI_ROUTING"))?;
    vm.fd().register_irqfd(&interrupt, GSI).map_err(call("KVM_IRQFD"))?;
    Ok([doorbell, interrupt])
}

fn run_loop(vcpu: &mut VcpuFd, text: &mut GuestText) -> Result<(), BenchError> {
    let mut divisor = false;
    loop {
        match vcpu.run() {
            Ok(VcpuExit::MmioRead(_, data)) => data.fill(0xff),
            Ok(VcpuExit::MmioWrite(..)) => {}
            Ok(VcpuExit::IoIn(LINE_STATUS, data)) => data.fill(EMPTY),
            Ok(VcpuExit::IoIn(_, data)) => data.fill(0xff),
            Ok(VcpuExit::IoOut(layout::SERIAL_PORT, data)) if !divisor => text.push(data),
            Ok(VcpuExit::IoOut(LINE_CONTROL, data)) => {
                divisor = data.first().is_some_and(|value| value & DIVISOR != 0);
            }
            // The ring is full.
            Ok(VcpuExit::IoOut(COLLECTED_PORT, _)) => while let Ok(Some(_)) = vcpu.coalesced_mmio_read() {},
            Ok(VcpuExit::IoOut(layout::DEBUG_EXIT_PORT, _)) => return Ok(()),
            Ok(VcpuExit::IoOut(..)) => {}
            Ok(VcpuExit::Intr) => {}
            Ok(other) => {
                let what = format!("{other:?}");
                return Err(BenchError::FloorStopped(what));
            }
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {}
            Err(error) => return Err(call("KVM_RUN")(error).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::bench::printed::Printed;

    #[test]
    fn everything_that_is_asked_of_the_floor_is_there() {
        if let Err(error) = Vm::new() {
            // Not by eprintln, which the test harness keeps to itself.
            let test = "everything_that_is_asked_of_the_floor_is_there";
            let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {error}");
            return;
        }
        let printed = Printed::read(&run(200).unwrap()).unwrap();
        let collects = Vm::new().unwrap().fd().check_extension(Cap::CoalescedPio);
        let asked = words(200, collects);
        let names = asked.split(' ').map(|word| word.split('=').next().unwrap());
        for name in names.filter(|name| !matches!(*name, "iterations" | "vector")) {
            assert_eq!(
                printed.samples(name).map(|samples| samples.count()),
                Some(200),
                "{name}: {printed:?}"
            );
        }
    }
}

//! A host of the other kind: its kernel delivers vectors itself, all of the guest's memory is within DMA's reach from
//! attach to detach, there is no INTx and no reset in between, and a handful of mappings of whole pages. That is the
//! shape of illumos' `ppt`; the calls here are those of its `/dev/vmm` and `/dev/pptN`, written into a list.

use std::io;
use std::sync::{Arc, Mutex};

use crate::vmm::Vmm;
use passthru::attached::{Attached, Fresh};
use passthru::function::Shape;
use passthru::function::pieces::{Backing, Piece, Reason};
use passthru::host::*;
use passthru::pci::{ConfigAccess, Slot};
use passthru::ports::MsiMessage;
use passthru::space::AddressSpace;
use passthru::space::layout::Windows;

/// What the kernel is asked, in its own terms.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Call {
    MapMmio { gpa: u64, len: u64, hpa: u64 },
    UnmapMmio { gpa: u64, len: u64 },
    Msi { count: u16, message: MsiMessage },
    Msix { index: u16, message: MsiMessage, masked: bool },
    DisableMsix,
    CfgWrite { offset: u16, data: Vec<u8> },
}

/// Host-physical address of BAR 0.
const HPA: u64 = 0x38_0000_0000;

struct PptShaped {
    name: Arc<str>,
    description: Description,
    report: Report,
    calls: Mutex<Vec<Call>>,
}

impl PptShaped {
    fn new() -> PptShaped {
        let mut config = vec![0; 256];
        let mut put =
            |offset: usize, bytes: &[u8]| config[offset..offset + bytes.len()].copy_from_slice(bytes);
        put(0x00, &[0x86, 0x80, 0xd2, 0x37]);
        put(0x06, &[0x10]);
        put(0x10, &[0x0c]);
        put(0x34, &[0x50]);
        // MSI of two vectors with masks, then MSI-X of eight whose structures share BAR 0's middle.
        put(0x50, &[0x05, 0x70, 0x82, 0x01]);
        put(0x70, &[0x11, 0x00, 0x07, 0x00, 0x00, 0x80, 0, 0, 0x00, 0xc0, 0, 0]);
        let mut bars: [Region; 6] = Default::default();
        // What is mappable comes in more parts than the kernel has room for.
        let parts = (0..16).map(|n| n * 0x1_0000..n * 0x1_0000 + 0x8000).collect();
        bars[0] = Region { size: 0x10_0000, mappable: parts, accessible: false };
        PptShaped {
            name: "/dev/ppt0".into(),
            description: Description { config, bars, rom: Region::default() },
            report: Report {
                delivery: Delivery::Kernel,
                intx: false,
                msi: 2,
                msi_masking: false,
                msix: 8,
                dynamic_msix: true,
                keeps_pending: false,
                dma: DmaReach::WholeGuest,
                mappings: Some(7),
                granularity: 4096,
                reset: Some(ResetMethod::AtAttach),
                power_states: false,
                error_events: false,
                request_events: false,
            },
            calls: Mutex::default(),
        }
    }

    fn call(&self, call: Call) {
        self.calls.lock().unwrap().push(call);
    }

    fn unsupported(&self, operation: Operation) -> HostError {
        let source = io::Error::from(io::ErrorKind::Unsupported).into();
        HostError { device: self.name.clone(), operation, source }
    }

    fn take(&self) -> Vec<Call> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }
}

impl HostFunction for PptShaped {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn description(&self) -> &Description {
        &self.description
    }

    fn report(&self) -> &Report {
        &self.report
    }

    fn config_read(&self, offset: u16, data: &mut [u8]) -> Result<(), HostError> {
        let start = usize::from(offset);
        data.copy_from_slice(&self.description.config[start..start + data.len()]);
        Ok(())
    }

    fn config_write(&self, offset: u16, data: &[u8]) -> Result<(), HostError> {
        self.call(Call::CfgWrite { offset, data: data.to_vec() });
        Ok(())
    }

    fn bar_read(&self, _: u8, _: u64, data: &mut [u8]) -> Result<(), HostError> {
        data.fill(0);
        Ok(())
    }

    fn bar_write(&self, _: u8, _: u64, _: &[u8]) -> Result<(), HostError> {
        Ok(())
    }

    fn map(&self, range: BarRange, guest: u64) -> Result<(), HostError> {
        self.call(Call::MapMmio { gpa: guest, len: range.len, hpa: HPA + range.offset });
        Ok(())
    }

    fn unmap(&self, range: BarRange, guest: u64) -> Result<(), HostError> {
        self.call(Call::UnmapMmio { gpa: guest, len: range.len });
        Ok(())
    }

    fn set_vectors(&self, kind: MessageKind, count: u16, changes: &[VectorChange]) -> Vec<HostError> {
        match kind {
            // One call for all of them, whichever changed: the kernel adds the vector's number to the data.
            MessageKind::Msi => {
                if let Some(VectorChange { state: VectorState::Armed(message), .. }) = changes.first() {
                    let data = message.data & !u32::from(count - 1);
                    self.call(Call::Msi { count, message: MsiMessage { data, ..*message } });
                }
            }
            MessageKind::Msix => {
                for change in changes {
                    let (message, masked) = match change.state {
                        VectorState::Armed(message) => (message, false),
                        VectorState::Masked => (MsiMessage::default(), true),
                    };
                    self.call(Call::Msix { index: change.vector, message, masked });
                }
            }
        }
        Vec::new()
    }

    fn disable_vectors(&self, kind: MessageKind) -> Result<(), HostError> {
        self.call(match kind {
            MessageKind::Msi => Call::Msi { count: 0, message: MsiMessage::default() },
            MessageKind::Msix => Call::DisableMsix,
        });
        Ok(())
    }

    fn is_pending(&self, _: MessageKind, _: u16) -> bool {
        false
    }

    fn set_intx(&self, on: bool) -> Result<(), HostError> {
        Err(self.unsupported(Operation::Intx(on)))
    }

    fn listen(&self, _: Listener) -> Result<(), HostError> {
        Ok(())
    }

    fn reset(&self) -> Result<(), HostError> {
        Err(self.unsupported(Operation::Reset))
    }
}

fn attach() -> (Arc<PptShaped>, Attached, Arc<dyn ConfigAccess>, Arc<Vmm>) {
    attach_with(PptShaped::new())
}

fn attach_with(host: PptShaped) -> (Arc<PptShaped>, Attached, Arc<dyn ConfigAccess>, Arc<Vmm>) {
    let vmm = Vmm::new();
    let host = Arc::new(host);
    let space = Arc::new(AddressSpace::new(vmm.clone()));
    let windows = Arc::new(Windows { memory: vec![0xc000_0000..0xe000_0000], io: vec![] });
    let slot = Slot::new(0, 8, 0).unwrap();
    let function =
        Attached::new(Fresh::one(host.clone()).unwrap(), slot, Shape::default(), space, windows).unwrap();
    let config = function.config();
    (host, function, config, vmm)
}

#[test]
fn no_more_is_mapped_than_the_kernel_has_room_for() {
    let (host, function, config, vmm) = attach();
    let mapped = function.pieces().iter().filter(|p| p.backing == Backing::Mapped).count();
    let limited = function.pieces().iter().filter(|p| p.backing == Backing::Trapped(Reason::Limit)).count();
    assert_eq!((mapped, limited), (7, 9), "all 16 parts, none of which the MSI-X pages touch");
    host.take();
    function.assign(0, 0xc000_0000);
    config.config_write(0x04, &[0x2, 0]);
    let maps = host.take();
    assert_eq!(maps.len(), 7);
    assert_eq!(maps[0], Call::MapMmio { gpa: 0xc000_0000, len: 0x8000, hpa: HPA });
    assert!(vmm.book().mapped.is_empty(), "the kernel maps, not the VMM");
    drop(function);
    let unmaps = host.take();
    let exact = |call: &Call| match call {
        Call::MapMmio { gpa, len, .. } => unmaps.contains(&Call::UnmapMmio { gpa: *gpa, len: *len }),
        _ => false,
    };
    assert!(maps.iter().all(exact));
    assert!(vmm.is_empty());
}

/// It says that it does not keep them, or that it does and then does not.
#[test]
fn reads_of_pending_bits_exit_where_the_host_does_not_keep_them() {
    for promised in [false, true] {
        let mut host = PptShaped::new();
        host.report.keeps_pending = promised;
        let (_host, function, config, vmm) = attach_with(host);
        function.assign(0, 0xc000_0000);
        config.config_write(0x04, &[0x2, 0]);
        let readable: Vec<u64> = vmm.book().readable.keys().map(|(at, _)| at - 0xc000_0000).collect();
        assert_eq!(readable, [0x8000], "the table");
        let untold = |p: &&Piece| p.backing == Backing::Trapped(Reason::PendingUntold);
        let pieces = function.pieces();
        let untold: Vec<u64> = pieces.iter().filter(untold).map(|piece| piece.range.offset).collect();
        assert_eq!(untold, [0xc000]);
        drop(function);
        assert!(vmm.is_empty());
    }
}

#[test]
fn vectors_go_to_the_kernel_as_the_guest_wrote_them() {
    let (host, function, config, vmm) = attach();
    function.assign(0, 0xc000_0000);
    config.config_write(0x04, &[0x2, 0]);
    host.take();
    config.config_write(0x72, &[0, 0x80]);
    assert_eq!(host.take(), []);
    let message = MsiMessage { address: 0xfee0_1000, data: 0x55 };
    let entry = 0xc000_8000 + 3 * 16;
    vmm.write(entry, &message.address.to_le_bytes());
    vmm.write(entry + 8, &message.data.to_le_bytes());
    vmm.write(entry + 12, &[0]);
    assert_eq!(host.take(), [Call::Msix { index: 3, message, masked: false }]);
    vmm.write(entry + 12, &[1]);
    assert_eq!(host.take(), [Call::Msix { index: 3, message: MsiMessage::default(), masked: true }]);
    config.config_write(0x72, &[0, 0]);
    assert_eq!(host.take(), [Call::DisableMsix]);
    assert!(vmm.book().routes.is_empty(), "no GSI was ever needed");
}

#[test]
fn msi_comes_as_one_call_since_its_masks_are_not_shown() {
    let (host, _function, config, _vmm) = attach();
    let mut control = [0; 2];
    config.config_read(0x52, &mut control);
    assert_eq!(u16::from_le_bytes(control) & 0x100, 0);
    config.config_write(0x54, &0xfee0_0000u32.to_le_bytes());
    config.config_write(0x5c, &[0x40, 0]);
    host.take();
    config.config_write(0x52, &[0x11, 0]);
    let message = MsiMessage { address: 0xfee0_0000, data: 0x40 };
    assert_eq!(host.take(), [Call::Msi { count: 2, message }]);
    // Fewer of them: the first one's message is the same, and still all have to be told.
    config.config_write(0x52, &[0x01, 0]);
    let off = Call::Msi { count: 0, message: MsiMessage::default() };
    assert_eq!(host.take(), [off, Call::Msi { count: 1, message }]);
}

#[test]
fn the_host_resets_by_itself() {
    // The host's own reset call fails, and is not made.
    let (host, function, ..) = attach();
    function.reset();
    drop(function);
    assert!(host.take().iter().all(|call| matches!(call, Call::CfgWrite { .. })));
}

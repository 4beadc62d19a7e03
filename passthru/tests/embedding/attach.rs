//! A simulated function from attach to detach, in a VMM that only keeps book.

use std::sync::Arc;

use crate::vmm::Vmm;
use passthru::attached::{Attached, Fresh};
use passthru::function::Shape;
use passthru::host::simulated::SimulatedFunction;
use passthru::pci::Slot;
use passthru::ports::MsiMessage;
use passthru::space::AddressSpace;
use passthru::space::layout::Windows;

const BAR0: u64 = 0xc000_0000;
const BAR2: u64 = 0xc010_0000;
const BAR4: u64 = 0xc020_0000;
const TABLE: u64 = BAR4;
const PENDING: u64 = BAR4 + 0x8000;
const TRIGGER: u64 = BAR0 + 0x48;

fn attach(vmm: &Arc<Vmm>) -> Attached {
    let slot = Slot::new(0, 8, 0).unwrap();
    let host = Arc::new(SimulatedFunction::new("demo", slot, vmm.ports()).unwrap());
    let space = Arc::new(AddressSpace::new(vmm.clone()));
    let windows = Windows { memory: vec![BAR0..0xe000_0000], io: vec![0x1000..0x1_0000] };
    Attached::new(Fresh::one(host).unwrap(), slot, Shape::default(), space, Arc::new(windows)).unwrap()
}

/// With addresses in the BARs, decoding and bus mastering on.
fn started(vmm: &Arc<Vmm>) -> Attached {
    let function = attach(vmm);
    for (bar, address) in [(0, BAR0), (1, 0x1000), (2, BAR2), (4, BAR4)] {
        function.assign(bar, address);
    }
    assert!(vmm.is_empty(), "nothing answers before decoding is on");
    function.config().config_write(0x04, &[0x7, 0]);
    function
}

fn arm(vmm: &Vmm, vector: u64, data: u32, masked: bool) {
    let entry = TABLE + vector * 16;
    vmm.write(entry, &0xfee0_0000u64.to_le_bytes());
    vmm.write(entry + 8, &data.to_le_bytes());
    vmm.write(entry + 12, &u32::from(masked).to_le_bytes());
}

fn data(messages: &[MsiMessage]) -> Vec<u32> {
    messages.iter().map(|m| m.data).collect()
}

#[test]
fn bars_are_mapped_and_trapped_as_planned_and_all_goes_at_the_end() {
    let vmm = Vmm::new();
    let function = started(&vmm);
    {
        let book = vmm.book();
        let mapped: Vec<(u64, u64)> = book.mapped.keys().copied().collect();
        assert_eq!(mapped, [(BAR2, 0x10_0000), (BAR4 + 0x1000, 0x7000), (BAR4 + 0x9000, 0x7000)]);
        assert_eq!(book.trapped.len(), 4, "registers, I/O, MSI-X table and pending bits");
    }
    let mut id = [0; 4];
    vmm.read(BAR0, &mut id);
    assert_eq!(&id, b"SLTP");
    function.config().config_write(0x04, &[0, 0]);
    assert!(vmm.book().mapped.is_empty() && vmm.book().trapped.is_empty());
    vmm.read(BAR0, &mut id);
    assert_eq!(id, [0xff; 4]);
    function.config().config_write(0x04, &[0x2, 0]);
    drop(function);
    assert!(vmm.is_empty());
}

#[test]
fn a_mapping_that_fails_is_trapped_instead() {
    let vmm = Vmm::new();
    vmm.book().refuse_maps = 1;
    let function = started(&vmm);
    assert_eq!(vmm.book().mapped.len(), 2);
    vmm.write(BAR2 + 0x10, &[1, 2, 3, 4, 5, 6, 7, 8]);
    let mut back = [0; 2];
    vmm.read(BAR2 + 0x12, &mut back);
    assert_eq!(back, [3, 4]);
    drop(function);
    assert!(vmm.is_empty());
}

#[test]
fn vectors_are_delivered_masked_and_delivered_once_when_unmasked() {
    let vmm = Vmm::new();
    let function = started(&vmm);
    let config = function.config();
    // On with the function masked, programmed, then let go: one commit for all of them.
    config.config_write(0x72, &[0, 0xc0]);
    for vector in 0..4 {
        arm(&vmm, vector, 0x40 + vector as u32, false);
    }
    assert_eq!(vmm.book().commits, 0);
    config.config_write(0x72, &[0, 0x80]);
    assert_eq!(vmm.book().commits, 1);
    vmm.write(TRIGGER, &2u32.to_le_bytes());
    assert_eq!(data(&vmm.delivered()), [0x42]);

    vmm.write(TABLE + 2 * 16 + 12, &[1]);
    vmm.write(TRIGGER, &2u32.to_le_bytes());
    vmm.write(TRIGGER, &2u32.to_le_bytes());
    assert_eq!(vmm.delivered(), []);
    vmm.turn();
    let mut pending = [0];
    vmm.read(PENDING, &mut pending);
    assert_eq!(pending, [1 << 2]);
    vmm.write(TABLE + 2 * 16 + 12, &[0]);
    assert_eq!(data(&vmm.delivered()), [0x42]);
    vmm.read(PENDING, &mut pending);
    assert_eq!(pending, [0]);
    assert_eq!(vmm.book().commits, 1, "the route was there");

    arm(&vmm, 200, 0x99, false);
    vmm.write(TRIGGER, &200u32.to_le_bytes());
    assert_eq!(data(&vmm.delivered()), [0x99]);
    config.config_write(0x72, &[0, 0]);
    assert!(vmm.book().attached.is_empty() && vmm.book().routes.is_empty());
    vmm.write(TRIGGER, &2u32.to_le_bytes());
    drop(function);
    assert!(vmm.is_empty());
}

#[test]
fn without_a_gsi_only_that_vector_is_silent() {
    let vmm = Vmm::new();
    vmm.book().gsis = 2;
    let function = started(&vmm);
    function.config().config_write(0x72, &[0, 0x80]);
    for vector in 0..3 {
        arm(&vmm, vector, 0x40 + vector as u32, false);
    }
    for vector in 0..3u32 {
        vmm.write(TRIGGER, &vector.to_le_bytes());
    }
    assert_eq!(data(&vmm.delivered()), [0x40, 0x41]);
    // One that is given up makes room, as a driver does that settles for fewer.
    function.config().config_write(0x72, &[0, 0]);
    function.config().config_write(0x72, &[0, 0x80]);
    vmm.write(TRIGGER, &1u32.to_le_bytes());
    assert_eq!(data(&vmm.delivered()), [0x41]);
}

#[test]
fn a_reset_of_the_guest_leaves_nothing_behind() {
    let vmm = Vmm::new();
    let function = started(&vmm);
    function.config().config_write(0x72, &[0, 0x80]);
    arm(&vmm, 0, 0x40, false);
    vmm.write(BAR0 + 0x08, &[1, 2, 3, 4]);
    function.reset();
    assert!(vmm.is_empty());
    for (bar, address) in [(0, BAR0), (4, BAR4)] {
        function.assign(bar, address);
    }
    function.config().config_write(0x04, &[0x2, 0]);
    let (mut scratch, mut control) = ([0xff; 4], [0]);
    vmm.read(BAR0 + 0x08, &mut scratch);
    vmm.read(TABLE + 12, &mut control);
    assert_eq!((scratch, control), ([0; 4], [1]), "registers cleared, vectors masked");
}

#[test]
fn msi_delivers_what_is_enabled() {
    let vmm = Vmm::new();
    let function = started(&vmm);
    let config = function.config();
    config.config_write(0x54, &0xfee0_0000u32.to_le_bytes());
    config.config_write(0x5c, &[0x60, 0]);
    config.config_write(0x52, &[0x31, 0]);
    vmm.write(TRIGGER, &7u32.to_le_bytes());
    assert_eq!(data(&vmm.delivered()), [0x67]);
    config.config_write(0x60, &[0x80]);
    vmm.write(TRIGGER, &7u32.to_le_bytes());
    let mut pending = [0; 4];
    config.config_read(0x64, &mut pending);
    assert_eq!((vmm.delivered(), pending), (vec![], [0x80, 0, 0, 0]));
    config.config_write(0x60, &[0]);
    assert_eq!(data(&vmm.delivered()), [0x67]);
    drop(function);
    assert!(vmm.is_empty());
}

//! The expansion ROM: a BAR with an enable bit of its own, whose contents are given.

use std::sync::Arc;

use passthru::attached::{Attached, Fresh};
use passthru::function::Shape;
use passthru::host::ROM;
use passthru::host::simulated::SimulatedFunction;
use passthru::pci::Slot;
use passthru::pci::rom::RomImage;
use passthru::space::AddressSpace;
use passthru::space::layout::Windows;

use crate::vmm::Vmm;

const WINDOW: std::ops::Range<u64> = 0xc000_0000..0xc100_0000;
const AT: u64 = 0xc008_0000;

fn attach(vmm: &Arc<Vmm>, rom: Option<RomImage>) -> Attached {
    let slot = Slot::new(0, 8, 0).unwrap();
    let host = Arc::new(SimulatedFunction::new("demo", slot, vmm.ports()).unwrap());
    let space = Arc::new(AddressSpace::new(vmm.clone()));
    let windows = Arc::new(Windows { memory: vec![WINDOW], io: vec![] });
    Attached::with_rom(Fresh::one(host).unwrap(), slot, Shape::default(), rom, space, windows).unwrap()
}

fn image() -> RomImage {
    RomImage::new([0x55, 0xaa, 3, 4].into_iter().cycle().take(0x1004).collect()).unwrap()
}

fn config(function: &Attached) -> u32 {
    let mut data = [0; 4];
    function.config().config_read(0x30, &mut data);
    u32::from_le_bytes(data)
}

fn at(vmm: &Vmm, address: u64) -> [u8; 4] {
    let mut data = [0; 4];
    vmm.read(address, &mut data);
    data
}

#[test]
fn it_answers_while_both_enable_bits_are_set() {
    let vmm = Vmm::new();
    let function = attach(&vmm, Some(image()));
    assert!(function.bars().iter().any(|bar| (bar.index, bar.size) == (ROM, 0x2000)));
    let write = |offset, value: u32| function.config().config_write(offset, &value.to_le_bytes());
    write(0x30, 0xffff_fffe);
    assert_eq!(config(&function), 0xffff_e000, "the size, without the enable bit");
    function.assign(ROM, AT);
    assert_eq!(config(&function), AT as u32, "off at first");
    for (command, register, answers) in [
        (0, AT as u32, false),
        (2, AT as u32, false),
        (0, AT as u32 | 1, false),
        (2, AT as u32 | 1, true),
        (1, AT as u32 | 1, false),
        // Sizing with decoding on: nowhere, then back.
        (2, 0xffff_ffff, false),
        (2, AT as u32 | 1, true),
    ] {
        write(0x30, register);
        function.config().config_write(0x04, &[command, 0]);
        let want = if answers { [0x55, 0xaa, 3, 4] } else { [0xff; 4] };
        assert_eq!(at(&vmm, AT), want, "command {command}, ROM {register:#x}");
    }
    assert_eq!(at(&vmm, AT + 0x1000), [0x55, 0xaa, 3, 4]);
    assert_eq!(at(&vmm, AT + 0x1002), [3, 4, 0xff, 0xff], "ones behind its end");
    vmm.write(AT, &[0; 4]);
    assert_eq!(at(&vmm, AT), [0x55, 0xaa, 3, 4], "read-only");
    write(0x30, AT as u32 + 0x1_0001);
    assert_eq!((at(&vmm, AT), at(&vmm, AT + 0x1_0000)), ([0xff; 4], [0x55, 0xaa, 3, 4]), "moved");

    function.reset();
    assert_eq!(config(&function), 0);
    drop(function);
    assert!(vmm.is_empty());
}

#[test]
fn a_function_without_one_has_no_register() {
    let vmm = Vmm::new();
    let function = attach(&vmm, None);
    function.config().config_write(0x30, &[0xff; 4]);
    assert_eq!(config(&function), 0);
}

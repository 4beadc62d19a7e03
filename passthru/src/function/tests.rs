//! The guest's view of functions made of bytes.

use super::test_support::{endpoint, put, report};
use super::*;
use crate::host::{VectorChange, VectorState};
use crate::pci::Space;
use crate::ports::MsiMessage;

fn function() -> Function {
    let (mut function, problems) = Function::new(&endpoint(), &report(), Shape::default()).unwrap();
    assert_eq!(problems, []);
    function.start(&mut Vec::new());
    function
}

fn read(function: &Function, offset: u16, len: usize) -> u32 {
    let read = function.read_config(offset, len, |_, _| false);
    assert_eq!(read.live, 0, "{offset:#x} is answered by the host");
    read.value
}

fn write(function: &mut Function, offset: u16, data: &[u8]) -> Vec<Effect> {
    let mut effects = Vec::new();
    function.write_config(offset, data, &mut effects);
    effects
}

fn dword(value: u32) -> [u8; 4] {
    value.to_le_bytes()
}

/// Ids of the capabilities in the list that the guest finds.
fn capabilities(function: &Function) -> Vec<u8> {
    let mut ids = Vec::new();
    let mut next = read(function, CAPABILITIES, 1) as u16;
    while next != 0 {
        ids.push(read(function, next, 1) as u8);
        next = read(function, next + 1, 1) as u16;
        assert!(ids.len() < 64);
    }
    ids
}

#[test]
fn the_header_is_the_functions_but_for_what_is_the_hosts() {
    let function = function();
    for (name, offset, len, value) in [
        ("vendor", 0x00, 2, 0x1b36),
        ("device", 0x02, 2, 0x0010),
        ("command: decoding and DMA off", 0x04, 2, 0x0000),
        ("class and revision", 0x08, 4, 0x0108_0202),
        ("header type without the host's multi-function bit", 0x0e, 1, 0x00),
        ("subsystem", 0x2c, 4, 0x1100_1af4),
        ("no ROM", 0x30, 4, 0),
        ("no interrupt pin", 0x3d, 1, 0),
    ] {
        assert_eq!(read(&function, offset, len), value, "{name}");
    }
    let shape = Shape { multi_function: true, ..Shape::default() };
    let (function, _) = Function::new(&endpoint(), &report(), shape).unwrap();
    assert_eq!(read(&function, 0x0e, 1), 0x80, "the guest's multi-function bit");
}

#[test]
fn the_capability_list_is_linked_anew() {
    use capability_id::*;
    let function = function();
    let all = [MSIX, MSI, POWER, EXPRESS, ADVANCED_FEATURES, VENDOR, VPD];
    assert_eq!(capabilities(&function), all);
    assert_eq!(read(&function, 0x06, 1), 0x10, "status says that there is a list");

    let mut unable = report();
    (unable.msi, unable.msix, unable.reset) = (0, 0, None);
    let (function, _) = Function::new(&endpoint(), &unable, Shape::default()).unwrap();
    assert_eq!(capabilities(&function), [POWER, EXPRESS, VENDOR, VPD], "what the host cannot do");
    for offset in [0x40, 0x50, 0xc0] {
        assert_eq!(read(&function, offset, 4), 0, "bodies are gone too");
    }
}

#[test]
fn an_endpoint_on_a_root_bus_is_integrated_and_has_no_link() {
    let function = function();
    assert_eq!(read(&function, 0x82, 2) >> 4 & 0xf, 9, "root-complex integrated endpoint");
    assert_eq!(read(&function, 0x84, 4), 0x1000_8000, "function-level reset, bit 28");
    for offset in [0x8c, 0x90, 0xac, 0xb0] {
        assert_eq!(read(&function, offset, 4), 0, "Link register at {offset:#x}");
    }
    let mut legacy = endpoint();
    put(&mut legacy.config, 0x82, &[0x12]);
    let (function, _) = Function::new(&legacy, &report(), Shape::default()).unwrap();
    assert!(!capabilities(&function).contains(&capability_id::EXPRESS), "a legacy endpoint is conventional");
}

#[test]
fn only_some_extended_capabilities_show() {
    let function = function();
    assert_eq!(read(&function, 0x100, 4), 0x1401 << 16, "SR-IOV became a null capability that leads on");
    assert_eq!(read(&function, 0x104, 4), 0, "its body is gone");
    assert_eq!(read(&function, 0x140, 4), 0x2002_0001, "error reporting");
    assert_eq!(read(&function, 0x200, 4), 0x0001_0003, "serial number, last");
    assert_eq!(read(&function, 0x204, 4), 0x0403_0201);
    assert_eq!(write(&mut function.clone(), 0x148, &dword(u32::MAX)), [], "error masks are not the guest's");

    let mut conventional = endpoint();
    conventional.config.truncate(256);
    let (function, _) = Function::new(&conventional, &report(), Shape::default()).unwrap();
    assert_eq!(read(&function, 0x100, 4), u32::MAX);
}

#[test]
fn bars_are_sized_as_software_does() {
    let mut function = function();
    for (register, size) in [
        (0x10, 0xffff_c004u32),
        (0x14, 0xffff_ffff),
        (0x18, 0xffff_ffe1),
        (0x1c, 0xffff_0008),
        (0x20, 0),
        (0x24, 0),
    ] {
        assert_eq!(write(&mut function, register, &dword(u32::MAX)), [], "decoding is off");
        assert_eq!(read(&function, register, 4), size, "{register:#x}");
    }
}

#[test]
fn bars_answer_while_decoding_is_on() {
    let mut function = function();
    let place = |bar, space, size, base| Placement { bar, space, size, base };
    write(&mut function, 0x10, &dword(0x1000_4000));
    write(&mut function, 0x14, &dword(0x1));
    write(&mut function, 0x18, &dword(0xc020));
    write(&mut function, 0x1c, &dword(0xc000_0000));
    assert_eq!(
        write(&mut function, COMMAND, &[0x2, 0]),
        [Effect::Place(vec![
            place(0, Space::Memory, 0x4000, Some(0x1_1000_4000)),
            place(3, Space::Memory, 0x10000, Some(0xc000_0000)),
        ])]
    );
    assert_eq!(
        write(&mut function, COMMAND, &[0x3]),
        [Effect::Place(vec![place(2, Space::Io, 0x20, Some(0xc020))])]
    );
    assert_eq!(write(&mut function, COMMAND, &[0x3, 0, 0, 0]), [], "nothing changed");
    assert_eq!(
        write(&mut function, 0x13, &[0x20]),
        [Effect::Place(vec![place(0, Space::Memory, 0x4000, Some(0x1_2000_4000))])]
    );
    let mut effects = Vec::new();
    function.reset(&mut effects);
    let [Effect::Place(moves)] = effects.as_slice() else { panic!("{effects:?}") };
    assert!(moves.iter().all(|m| m.base.is_none()) && moves.len() == 3);
    assert_eq!(read(&function, 0x10, 4), 0x4, "no address is left");
}

#[test]
fn decoding_stays_on_in_the_function_and_bus_mastering_follows_the_guest() {
    let (mut function, _) = Function::new(&endpoint(), &report(), Shape::default()).unwrap();
    let command =
        |value| Effect::WriteHost(ConfigWrite { offset: COMMAND, len: 2, value, mask: 0xffff, clear: 0 });
    let mut effects = Vec::new();
    function.start(&mut effects);
    assert_eq!(effects, [command(0x403)]);
    assert_eq!(write(&mut function, COMMAND, &[0x4]), [command(0x407)]);
    assert_eq!(write(&mut function, COMMAND, &[0x0]), [command(0x403)]);
    assert_eq!(read(&function, COMMAND, 2), 0);
}

#[test]
fn status_errors_are_cleared_in_the_function_and_read_from_it() {
    let mut function = function();
    assert_eq!(function.read_config(0x06, 2, |_, _| false).live, 0xf900);
    assert_eq!(
        write(&mut function, 0x06, &[0, 0x20]),
        [Effect::WriteHost(ConfigWrite { offset: 6, len: 2, value: 0x2000, mask: 0x2000, clear: 0xd900 })]
    );
}

#[test]
fn vendor_and_product_data_registers_are_the_functions_own() {
    let mut function = function();
    assert_eq!(function.read_config(0xd4, 4, |_, _| false).live, u32::MAX);
    assert_eq!(function.read_config(0xe4, 4, |_, _| false).live, u32::MAX);
    assert_eq!(function.read_config(0xf0, 4, |_, _| false).live, u32::MAX, "and what is in no capability");
    let [Effect::WriteHost(forwarded)] = write(&mut function, 0xe2, &[0x10, 0x80])[..] else { panic!() };
    assert_eq!(
        (forwarded.offset, forwarded.len, forwarded.merge(0xffff)),
        (0xe2, 2, 0x0010),
        "never a write"
    );
    assert!(forwarded.is_whole());
    assert_eq!(write(&mut function, 0xe4, &[1, 2, 3, 4]), [], "nor what would be written");
}

#[test]
fn power_management_stays_with_the_guest() {
    let mut function = function();
    assert_eq!(read(&function, 0x72, 2) >> 11, 0, "no power management events");
    write(&mut function, 0x74, &[0x03, 0x81]);
    assert_eq!(read(&function, 0x74, 2), 0x0003, "D3hot, no events");
    assert_eq!(read(&function, 0x72, 2) >> 9, 0, "neither D1 nor D2");
    write(&mut function, 0x74, &[0x01]);
    assert_eq!(read(&function, 0x74, 1), 0x03, "a write that asks for D1 is discarded");
    write(&mut function, 0x74, &[0x00]);
    assert_eq!(read(&function, 0x74, 1), 0x00);
}

const MESSAGE: MsiMessage = MsiMessage { address: 0xfee0_1000, data: 0x4041 };

fn arm(function: &mut Function, vector: u64, message: MsiMessage) -> Vec<Effect> {
    let mut effects = Vec::new();
    let at = vector * 16;
    function.write_msix_table(at, &message.address.to_le_bytes(), &mut effects);
    function.write_msix_table(at + 8, &message.data.to_le_bytes(), &mut effects);
    function.write_msix_table(at + 12, &[0; 4], &mut effects);
    effects
}

fn msix_changes(effects: &[Effect]) -> Vec<VectorChange> {
    match effects {
        [] => vec![],
        [Effect::SetVectors(MessageKind::Msix, 65, changes)] => changes.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn vectors_programmed_under_the_function_mask_are_armed_in_one_batch() {
    let mut function = function();
    let on = write(&mut function, 0x42, &[0, 0xc0]);
    assert_eq!(
        on,
        [Effect::SetVectors(MessageKind::Msix, 65, vec![])],
        "the function learns that MSI-X is on"
    );
    for vector in 0..65 {
        assert_eq!(arm(&mut function, vector, MESSAGE), []);
    }
    let changes = msix_changes(&write(&mut function, 0x42, &[0, 0x80]));
    assert_eq!(changes.len(), 65);
    assert!(changes.iter().all(|c| c.state == VectorState::Armed(MESSAGE)));
    let masked = msix_changes(&write(&mut function, 0x42, &[0, 0xc0]));
    assert_eq!(masked.len(), 65);
    assert_eq!(write(&mut function, 0x42, &[0, 0]), [Effect::DisableVectors(MessageKind::Msix)]);
}

#[test]
fn a_vector_is_armed_when_it_is_unmasked_and_told_once() {
    let mut function = function();
    write(&mut function, 0x42, &[0, 0x80]);
    let armed = VectorChange { vector: 64, state: VectorState::Armed(MESSAGE) };
    assert_eq!(msix_changes(&arm(&mut function, 64, MESSAGE)), [armed]);
    assert_eq!(arm(&mut function, 64, MESSAGE), [], "the same again");
    let mut effects = Vec::new();
    function.write_msix_table(64 * 16 + 12, &[1], &mut effects);
    assert_eq!(msix_changes(&effects), [VectorChange { vector: 64, state: VectorState::Masked }]);

    let mut bits = [0; 16];
    function.read_msix_pending(0, &mut bits, |_, vector| vector == 64 || vector == 3);
    assert_eq!(bits[8], 1, "signalled while masked");
    assert_eq!(bits[0], 0, "vector 3 was never armed");
    function.write_msix_table(0x10_0000, &[0xff; 8], &mut effects);
    function.write_msix_table(u64::MAX - 3, &[0xff; 4], &mut effects);
    assert_eq!(effects.len(), 1, "beyond the table");
}

#[test]
fn the_table_reads_as_it_was_written() {
    let mut function = function();
    let mut entry = [0xaa; 16];
    function.read_msix_table(16, &mut entry);
    assert_eq!(entry, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], "masked after a reset");
    arm(&mut function, 1, MsiMessage { address: 0x1122_3344_5566_7788, data: 0x99aa_bbcc });
    let mut part = [0; 3];
    function.read_msix_table(16 + 6, &mut part);
    assert_eq!(part, [0x22, 0x11, 0xcc]);
}

#[test]
fn msi_arms_what_is_enabled() {
    let mut function = function();
    write(&mut function, 0x54, &dword(0xfee0_0000));
    write(&mut function, 0x5c, &dword(0x31));
    let [Effect::SetVectors(MessageKind::Msi, 4, ref changes)] = write(&mut function, 0x52, &[0x21, 0])[..]
    else {
        panic!()
    };
    let data: Vec<u32> = changes
        .iter()
        .map(|c| match c.state {
            VectorState::Armed(message) => message.data,
            VectorState::Masked => panic!(),
        })
        .collect();
    assert_eq!(data, [0x30, 0x31, 0x32, 0x33], "the low bits number the four vectors");

    let [Effect::SetVectors(MessageKind::Msi, 4, ref changes)] = write(&mut function, 0x60, &[0x4])[..]
    else {
        panic!()
    };
    assert_eq!(changes[..], [VectorChange { vector: 2, state: VectorState::Masked }]);
    assert_eq!(function.read_config(0x64, 4, |_, vector| vector == 2).value, 0x4, "pending");
    assert_eq!(write(&mut function, 0x64, &dword(0)), [], "pending bits cannot be written");
    assert_eq!(write(&mut function, 0x52, &[0x20]), [Effect::DisableVectors(MessageKind::Msi)]);
}

#[test]
fn msix_structures_that_are_nowhere_hide_the_capability() {
    for (name, offset, bytes) in [
        ("table beyond its BAR", 0x44, dword(0x3c00)),
        ("table in a BAR that is not there", 0x44, dword(5)),
        ("table in an I/O BAR", 0x44, dword(2)),
        ("pending bits on the table", 0x48, dword(0x2008)),
        ("pending bits in a reserved BAR", 0x48, dword(7)),
    ] {
        let mut description = endpoint();
        put(&mut description.config, offset, &bytes);
        let (function, problems) = Function::new(&description, &report(), Shape::default()).unwrap();
        assert_eq!(problems.len(), 1, "{name}");
        assert!(!capabilities(&function).contains(&capability_id::MSIX), "{name}");
        assert_eq!(function.msix_vectors(), 0);
    }
}

#[test]
fn structures_of_vectors_that_the_guest_does_not_see_are_not_mapped() {
    use crate::function::pieces::Backing;
    let mut description = endpoint();
    // A table of 256 vectors takes page 2, where the host has one vector or none.
    put(&mut description.config, 0x42, &[0xff, 0x00]);
    for vectors in [1, 0] {
        let report = crate::host::Report { msix: vectors, ..report() };
        let (mut function, problems) = Function::new(&description, &report, Shape::default()).unwrap();
        assert_eq!((problems, function.msix_vectors()), (vec![], vectors));
        let mapped = function.pieces().iter().filter(|p| p.range.bar == 0 && p.backing == Backing::Mapped);
        assert_eq!(mapped.map(|p| (p.range.offset, p.range.len)).collect::<Vec<_>>(), [(0, 0x2000)]);
        let (mut effects, mut entry) = (Vec::new(), [0xff; 16]);
        function.write_msix_table(16, &[0x55; 8], &mut effects);
        function.read_msix_table(16, &mut entry);
        assert_eq!((effects, entry), (vec![], [0; 16]), "and lead nowhere");
    }
}

#[test]
fn what_cannot_be_passed_through_is_refused() {
    let mut bridge = endpoint();
    put(&mut bridge.config, 0x0e, &[0x81]);
    let error = Function::new(&bridge, &report(), Shape::default()).unwrap_err();
    assert_eq!(error, FunctionError::NotEndpoint(1));
    let gone = crate::host::Description { config: vec![0xff; 4096], ..endpoint() };
    let error = Function::new(&gone, &report(), Shape::default()).unwrap_err();
    assert_eq!(error, FunctionError::NoAnswer);
}

#[test]
fn overlapping_capabilities_leave_the_emulated_ones_in_charge() {
    let mut description = endpoint();
    // A vendor-specific capability that claims to reach over MSI-X' registers.
    put(&mut description.config, 0x34, &[0x3c + 0x4]);
    put(&mut description.config, 0xd0, &[0x09, 0xe0, 0xff, 0x00]);
    put(&mut description.config, 0xe0, &[0x05, 0x00, 0x80, 0x00]);
    put(&mut description.config, 0x41, &[0x70]);
    put(&mut description.config, 0x50, &[0, 0]);
    let (mut function, _) = Function::new(&description, &report(), Shape::default()).unwrap();
    let found = capabilities(&function);
    assert!(found.ends_with(&[capability_id::VENDOR, capability_id::MSI]), "{found:x?}");
    let effects = write(&mut function, 0xe2, &[0x01, 0x00]);
    let forwarded = |e: &Effect| matches!(e, Effect::WriteHost(write) if write.offset != COMMAND);
    assert!(!effects.iter().any(forwarded), "{effects:?}");
}

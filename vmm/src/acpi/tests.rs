use std::path::Path;
use std::process::Command;

use super::platform::WindowKind;
use super::*;
use crate::memory::{Backing, allocate};

fn gsi(pin: IntxPin) -> u32 {
    16 + u32::from(pin.device + pin.pin) % 8
}

fn gsi_by_bus(pin: IntxPin) -> u32 {
    16 + (u32::from(pin.bus) + u32::from(pin.device) + u32::from(pin.pin)) % 8
}

fn bridge(bus: u8) -> HostBridge {
    let (bus_io, bus_memory) = (0x1000 + 0x10 * u64::from(bus), 0xc000_0000 + 0x10_0000 * u64::from(bus));
    HostBridge {
        bus,
        last_behind_ports: None,
        io: vec![bus_io..bus_io + 0x10],
        memory: vec![bus_memory..bus_memory + 0x10_0000, 1 << 40..1 << 41],
    }
}

/// Bus 0 with root ports up to that bus, and further host bridges.
fn build_with_ports(last: u8, buses: &[u8]) -> Result<Tables, Error> {
    let bus_0 = HostBridge { last_behind_ports: Some(last), ..bridge(0) };
    let host_bridges: Vec<_> = [bus_0].into_iter().chain(buses.iter().copied().map(bridge)).collect();
    Tables::build(&Platform { cpus: 1, host_bridges: &host_bridges, gsi })
}

fn build(cpus: u32, buses: &[u8], gsi: fn(IntxPin) -> u32) -> Result<Tables, Error> {
    let host_bridges: Vec<_> = buses.iter().copied().map(bridge).collect();
    Tables::build(&Platform { cpus, host_bridges: &host_bridges, gsi })
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(bytes[offset..offset + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(bytes[offset..offset + 8].try_into().unwrap())
}

/// The table at a guest address, cut to its length, its checksum right unless it is the FACS, which has none.
fn at(tables: &Tables, address: u64) -> &[u8] {
    let table = &tables.bytes()[(address - layout::ACPI_TABLES.start) as usize..];
    let table = &table[..u32_at(table, 4) as usize];
    if &table[..4] != b"FACS" {
        assert_eq!(sum(table), 0, "{:?}", String::from_utf8_lossy(&table[..4]));
    }
    table
}

#[test]
fn the_rsdp_leads_to_every_table() {
    let tables = build(2, &[0], gsi).unwrap();
    let rsdp = &tables.bytes()[..36];
    assert_eq!(&rsdp[..8], b"RSD PTR ");
    assert_eq!((rsdp[15], u32_at(rsdp, 20)), (2, 36));
    assert_eq!((sum(&rsdp[..20]), sum(rsdp)), (0, 0));
    assert_eq!(tables.rsdp() % 16, 0);

    let xsdt = at(&tables, u64_at(rsdp, 24));
    assert_eq!(&xsdt[..4], b"XSDT");
    let entries: Vec<&[u8]> = (36..xsdt.len()).step_by(8).map(|o| at(&tables, u64_at(xsdt, o))).collect();
    let names: Vec<&[u8]> = entries.iter().map(|table| &table[..4]).collect();
    assert_eq!(names, [b"FACP", b"APIC", b"MCFG"]);

    let fadt = entries[0];
    assert_eq!(fadt.len(), 276);
    assert_eq!(&at(&tables, u32_at(fadt, 36).into())[..4], b"FACS");
    assert_eq!(u32_at(fadt, 36) % 64, 0);
    assert_eq!(&at(&tables, u32_at(fadt, 40).into())[..4], b"DSDT");
    assert_eq!(u64::from(u32_at(fadt, 40)), u64_at(fadt, 140));
    for name in [b"FACP", b"APIC", b"MCFG"] {
        assert!(entries.contains(&tables.table(*name).unwrap()));
    }
    assert_eq!(tables.table(*b"SRAT"), None);
}

#[test]
fn fixed_hardware_is_where_the_layout_says() {
    let tables = build(1, &[0], gsi).unwrap();
    let fadt = tables.table(*b"FACP").unwrap();
    assert_eq!(fadt[46], layout::SCI_GSI);
    // (legacy field, generic field, port, bits, access size)
    for (legacy, generic, port, bits, access) in [
        (56, 148, layout::PM1_EVENT_PORT, 32, 2),
        (64, 172, layout::PM1_CONTROL_PORT, 16, 2),
        (76, 208, layout::PM_TIMER_PORT, 32, 3),
    ] {
        assert_eq!(u32_at(fadt, legacy), u32::from(port));
        assert_eq!(fadt[generic..generic + 4], [1, bits, 0, access]);
        assert_eq!(u64_at(fadt, generic + 4), u64::from(port));
    }
    assert_eq!((fadt[88], fadt[89], fadt[91]), (4, 2, 4));
    // SMI_CMD.
    assert_eq!(u32_at(fadt, 48), 0);
    // RESET_REG and its value.
    assert_eq!(fadt[116..120], [1, 8, 0, 1]);
    assert_eq!((u64_at(fadt, 120), fadt[128]), (u64::from(layout::RESET_PORT), layout::RESET_VALUE));
    // WBINVD, PROC_C1, SLP_BUTTON, FIX_RTC, TMR_VAL_EXT, RESET_REG_SUP; not PWR_BUTTON, which is there.
    assert_eq!(u32_at(fadt, 112), 0b101_0110_0101);
    assert_eq!(fadt[109..111], [0b1_0101, 0]);
}

/// (type, contents) of each structure of the MADT.
fn structures(madt: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut structures = Vec::new();
    let mut rest = &madt[44..];
    while !rest.is_empty() {
        let (structure, next) = rest.split_at(rest[1].into());
        structures.push((structure[0], structure[2..].to_vec()));
        rest = next;
    }
    structures
}

#[test]
fn madt_names_processors_and_controllers() {
    let tables = build(2, &[0], gsi).unwrap();
    let madt = tables.table(*b"APIC").unwrap();
    assert_eq!((u32_at(madt, 36), u32_at(madt, 40)), (0xfee0_0000, 1));
    assert_eq!(
        structures(madt),
        [
            (0, vec![0, 0, 1, 0, 0, 0]),
            (0, vec![1, 1, 1, 0, 0, 0]),
            (1, vec![0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0]),
            (2, vec![0, 0, 2, 0, 0, 0, 0, 0]),
            (2, vec![0, 9, 9, 0, 0, 0, 0b1101, 0]),
            (4, vec![0xff, 0, 0, 1]),
        ]
    );
}

#[test]
fn ids_from_255_on_are_x2apic_ids() {
    let count = |cpus: u32, kind: u8| {
        let tables = build(cpus, &[0], gsi).unwrap();
        structures(tables.table(*b"APIC").unwrap()).iter().filter(|(k, _)| *k == kind).count()
    };
    for (cpus, short, long) in [(1, 1, 0), (255, 255, 0), (256, 255, 1), (1024, 255, 769)] {
        assert_eq!((count(cpus, 0), count(cpus, 9), count(cpus, 10)), (short, long, (long > 0).into()));
    }
    let tables = build(256, &[0], gsi).unwrap();
    let structures = structures(tables.table(*b"APIC").unwrap());
    assert!(structures.contains(&(9, vec![0, 0, 255, 0, 0, 0, 1, 0, 0, 0, 255, 0, 0, 0])));
}

#[test]
fn mcfg_names_ecam_up_to_the_last_bus() {
    for (buses, last) in [(&[0][..], 0), (&[0, 3, 1], 3), (&[0, 255], 255)] {
        let tables = build(1, buses, gsi).unwrap();
        let mcfg = tables.table(*b"MCFG").unwrap();
        assert_eq!(mcfg.len(), 60);
        assert_eq!((u64_at(mcfg, 44), &mcfg[52..56]), (layout::ECAM.start, &[0, 0, 0, last][..]));
    }
    for (behind, buses, last) in [(5, &[][..], 5), (5, &[9], 9)] {
        let tables = build_with_ports(behind, buses).unwrap();
        assert_eq!(tables.table(*b"MCFG").unwrap()[55], last);
    }
}

#[test]
fn buses_that_are_wired_alike_share_a_package() {
    let dsdt_size = |buses: &[u8], gsi| build(1, buses, gsi).unwrap().table(*b"DSDT").unwrap().len();
    let all: Vec<u8> = (0..=255).collect();
    let wiring = dsdt_size(&[0, 1], gsi_by_bus) - dsdt_size(&[0, 1], gsi);
    assert!(wiring > 1024, "{wiring}");
    // Eight wirings for 256 buses; without sharing the tables would not fit.
    let difference = dsdt_size(&all, gsi_by_bus) - dsdt_size(&all, gsi);
    assert_eq!(difference, 7 * wiring);
}

#[test]
fn platforms_refused() {
    let window = |io: Vec<std::ops::Range<u64>>, memory: Vec<std::ops::Range<u64>>| {
        let bridge = HostBridge { bus: 3, last_behind_ports: None, io, memory };
        Tables::build(&Platform { cpus: 1, host_bridges: &[bridge], gsi }).map(|_| ())
    };
    let refused =
        |kind, range: std::ops::Range<u64>| Err(Error::Window { bus: 3, kind, range: range.clone() });
    use WindowKind::{Io, Memory};
    assert_eq!(window(vec![0x1000..0x1_0000], vec![0xc000_0000..1 << 32, 1 << 32..1 << 33]), Ok(()));
    for range in [0x1000..0x1000, 0xfff..0x2000, 0xf000..0x1_0001] {
        assert_eq!(window(vec![range.clone()], vec![]), refused(Io, range));
    }
    for range in [1 << 32..1 << 32, 0..0x1000, 0xf000_0000..0x1_1000_0000] {
        assert_eq!(window(vec![], vec![range.clone()]), refused(Memory, range));
    }
    assert_eq!(build(0, &[0], gsi), Err(Error::Cpus { given: 0 }));
    assert_eq!(build(4097, &[0], gsi), Err(Error::Cpus { given: 4097 }));
    assert_eq!(build(1, &[0, 3, 0], gsi), Err(Error::DuplicateBus(0)));
    assert_eq!(build_with_ports(3, &[3]), Err(Error::DuplicateBus(3)));
    assert!(build_with_ports(3, &[4]).is_ok());
    let pin = IntxPin { bus: 0, device: 0, pin: 0 };
    assert_eq!(build(1, &[0], |_| 24), Err(Error::Gsi { pin, gsi: 24 }));
    assert!(matches!(build(4096, &[0], gsi), Err(Error::TooLarge { .. })));
}

#[test]
fn tables_go_to_their_place() {
    let memory = allocate((16 << 20).try_into().unwrap(), Backing::Transparent).unwrap();
    let tables = build(4, &[0, 3], gsi).unwrap();
    tables.write(&memory).unwrap();
    let mut bytes = vec![0; tables.bytes().len()];
    memory.read_slice(&mut bytes, GuestAddress(tables.rsdp())).unwrap();
    assert_eq!(bytes, tables.bytes());
}

/// Runs a program of acpica-tools and gives what it says.
fn acpica(program: &str, directory: &Path, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(program)
        .current_dir(directory)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}, of package acpica-tools: {error}"));
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// Each table, disassembled and compiled again, is the same table, without errors or warnings.
#[test]
fn iasl_understands_every_table() {
    if !is_installed("iasl") {
        return skipped("iasl_understands_every_table", "iasl is not installed (package acpica-tools)");
    }
    let scratch = tempfile::tempdir().unwrap();
    let many: Vec<u8> = (0..=255).collect();
    for (cpus, buses) in [(1, &[0][..]), (2, &[0, 3]), (1, &[7]), (300, &[0, 1, 255]), (16, &many)] {
        let tables = build(cpus, buses, gsi_by_bus).unwrap();
        for name in ["FACS", "DSDT", "FACP", "APIC", "MCFG", "XSDT"] {
            let table = tables.table(name.as_bytes().try_into().unwrap()).unwrap();
            std::fs::write(scratch.path().join("table.dat"), table).unwrap();
            let (success, text) = acpica("iasl", scratch.path(), &["-d", "table.dat"]);
            assert!(success && !text.contains("Error") && !text.contains("Warning"), "{name}: {text}");
            let (success, text) = acpica("iasl", scratch.path(), &["-we", "-p", "again", "table.dsl"]);
            assert!(success, "{name}: {text}");
            let source = std::fs::read_to_string(scratch.path().join("table.dsl")).unwrap();
            assert!(!source.contains("Invalid") && !source.contains("Unknown"), "{name}: {source}");
            assert!(text.contains("0 Errors, 0 Warnings") || !text.contains("Errors"), "{name}: {text}");
            let again = std::fs::read(scratch.path().join("again.aml")).unwrap();
            // The compiler puts its own name and version in place of the creator's, which changes the checksum.
            let without_creator = |table: &[u8]| match name {
                "FACS" => table.to_vec(),
                _ => [&table[..9], &table[10..28], &table[36..]].concat(),
            };
            assert!(without_creator(&again) == without_creator(table), "{name}: {source}");
        }
    }
}

/// ACPICA's own interpreter runs _OSC.
#[test]
fn osc_grants_the_capability_structure_only() {
    if !is_installed("acpiexec") {
        return skipped(
            "osc_grants_the_capability_structure_only",
            "acpiexec is not installed (package acpica-tools)",
        );
    }
    let scratch = tempfile::tempdir().unwrap();
    let tables = build(1, &[0, 3], gsi).unwrap();
    std::fs::write(scratch.path().join("dsdt.dat"), tables.table(*b"DSDT").unwrap()).unwrap();
    let host_bridge = "5B 4D DB 33 F7 1F 1C 40 96 57 74 41 C0 3D D7 66";
    let other = "00 4D DB 33 F7 1F 1C 40 96 57 74 41 C0 3D D7 66";
    // (UUID, revision, buffer, answer)
    for (uuid, revision, buffer, answer) in [
        (host_bridge, 1, "01 00 00 00 1F 01 00 00 3D 00 00 00", "11 00 00 00 1F 01 00 00 10 00 00 00"),
        (host_bridge, 1, "00 00 00 00 1F 01 00 00 10 00 00 00", "00 00 00 00 1F 01 00 00 10 00 00 00"),
        (host_bridge, 1, "00 00 00 00 00 00 00 00 00 00 00 00", "00 00 00 00 00 00 00 00 00 00 00 00"),
        (host_bridge, 2, "00 00 00 00 1F 01 00 00 10 00 00 00", "08 00 00 00 1F 01 00 00 10 00 00 00"),
        (other, 1, "00 00 00 00 1F 01 00 00 10 00 00 00", "04 00 00 00 1F 01 00 00 10 00 00 00"),
        (host_bridge, 1, "00 00 00 00 1F 01 00 00", "02 00 00 00 1F 01 00 00"),
    ] {
        for bus in ["PC00", "PC03"] {
            let command = format!("execute \\_SB.{bus}._OSC ({uuid}) {revision} 3 ({buffer})");
            let (_, text) = acpica("acpiexec", scratch.path(), &["-b", &command, "dsdt.dat"]);
            assert!(text.contains(answer), "{command}: {text}");
        }
    }
}

/// _OSC of a host bridge with root ports grants their hot-plug and error reporting as well; its buses are one range.
#[test]
fn root_ports_in_the_dsdt() {
    if !is_installed("acpiexec") {
        return skipped("root_ports_in_the_dsdt", "acpiexec is not installed (package acpica-tools)");
    }
    let scratch = tempfile::tempdir().unwrap();
    let tables = build_with_ports(5, &[9]).unwrap();
    std::fs::write(scratch.path().join("dsdt.dat"), tables.table(*b"DSDT").unwrap()).unwrap();
    let host_bridge = "5B 4D DB 33 F7 1F 1C 40 96 57 74 41 C0 3D D7 66";
    let asked = "01 00 00 00 1F 01 00 00 3D 00 00 00";
    for (bus, answer) in
        [("PC00", "11 00 00 00 1F 01 00 00 19 00 00 00"), ("PC09", "11 00 00 00 1F 01 00 00 10 00 00 00")]
    {
        let command = format!("execute \\_SB.{bus}._OSC ({host_bridge}) 1 3 ({asked})");
        let (_, text) = acpica("acpiexec", scratch.path(), &["-b", &command, "dsdt.dat"]);
        assert!(text.contains(answer), "{command}: {text}");
    }
    // A word address space descriptor of buses: flags, granularity, 0 to 5.
    let dsdt = tables.table(*b"DSDT").unwrap();
    for range in [[0, 5], [9, 9]] {
        let [first, last] = range;
        let length = last - first + 1;
        let descriptor = [0x88, 13, 0, 2, 0x0c, 0, 0, 0, first, 0, last, 0, 0, 0, length, 0];
        assert!(dsdt.windows(16).any(|bytes| bytes == descriptor), "{range:?}");
    }
}

fn is_installed(tool: &str) -> bool {
    std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .any(|folder| folder.join(tool).is_file())
}

/// Not by a macro: the test harness would swallow it.
fn skipped(test: &str, why: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
}

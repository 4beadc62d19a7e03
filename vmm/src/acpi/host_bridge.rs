//! A PCI host bridge in the DSDT: bus, windows and interrupt wiring (PCI Firmware Specification 3.3 §4.1).

use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Device, EISAName, IO, Method, Name, PackageBuilder, Path,
    ResourceTemplate, Return, ZERO,
};
use acpi_tables::{Aml, AmlSink};

use super::osc::Osc;
use super::platform::{HostBridge, IntxPin};
use crate::layout;

/// The interrupt wirings of all bus numbers, each once: buses wired alike share a package, since 128 entries of each
/// of 256 buses would not fit into the space for tables.
pub(super) struct Wirings(Vec<Vec<u8>>);

impl Wirings {
    pub fn new() -> Self {
        Wirings(Vec::new())
    }

    /// The index of the package for this bus, made if there is none alike.
    pub fn index(&mut self, bridge: &HostBridge, gsi: fn(IntxPin) -> u32) -> usize {
        let package = wiring(bridge, gsi);
        match self.0.iter().position(|known| *known == package) {
            Some(index) => index,
            None => {
                self.0.push(package);
                self.0.len() - 1
            }
        }
    }

    /// `Name (RTnn, Package ...)` for each, for the scope `\_SB`.
    pub fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        for (index, package) in self.0.iter().enumerate() {
            Name::new(Path::new(&wiring_name(index)), &Bytes(package)).to_aml_bytes(sink);
        }
    }
}

/// AML that is there already.
struct Bytes<'a>(&'a [u8]);

impl Aml for Bytes<'_> {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(self.0);
    }
}

fn wiring_name(index: usize) -> String {
    format!("RT{index:02X}")
}

/// The package for _PRT (ACPI 6.5 §6.2.13): device and any function, pin, no link device, GSI.
fn wiring(bridge: &HostBridge, gsi: fn(IntxPin) -> u32) -> Vec<u8> {
    let mut package = PackageBuilder::new();
    for pin in bridge.pins() {
        let mut entry = PackageBuilder::new();
        entry.add_element(&(u32::from(pin.device) << 16 | 0xffff));
        entry.add_element(&pin.pin);
        entry.add_element(&ZERO);
        entry.add_element(&gsi(pin));
        package.add_element(&entry);
    }
    let mut bytes = Vec::new();
    package.to_aml_bytes(&mut bytes);
    bytes
}

/// `Device (PCnn)` for the scope `\_SB`, nn the bus, with the _PRT of that index.
pub(super) fn device(bridge: &HostBridge, wiring: usize, sink: &mut dyn AmlSink) {
    let bus = bridge.bus;
    let resources = resources(bridge);
    let wiring = Path::new(&wiring_name(wiring));
    Device::new(
        Path::new(&format!("PC{bus:02X}")),
        vec![
            // PCI Express host bridge, compatible with a PCI one.
            &Name::new("_HID".into(), &EISAName::new("PNP0A08")),
            &Name::new("_CID".into(), &EISAName::new("PNP0A03")),
            &Name::new("_UID".into(), &bus),
            &Name::new("_SEG".into(), &ZERO),
            &Name::new("_BBN".into(), &bus),
            &Name::new("_CRS".into(), &ResourceTemplate::new(resources.iter().map(|r| &**r).collect())),
            &Method::new("_PRT".into(), 0, false, vec![&Return::new(&wiring)]),
            &Osc { hot_plug: bridge.last_behind_ports.is_some() },
        ],
    )
    .to_aml_bytes(sink);
}

/// _CRS: what the bridge forwards.
///
/// The bus range is the one bus, and those behind its root ports. Further buses cannot appear, so any bus that the
/// range named beside them would only be searched in vain, and a range up to the next host bridge's bus would change
/// for one bus when another one comes.
fn resources(bridge: &HostBridge) -> Vec<Box<dyn Aml>> {
    let bus = u16::from(bridge.bus);
    let mut resources: Vec<Box<dyn Aml>> =
        vec![Box::new(AddressSpace::new_bus_number(bus, bridge.last_bus().into()))];
    let port_window = |start: u64, end: u64| -> Box<dyn Aml> {
        Box::new(AddressSpace::new_io(start as u16, (end - 1) as u16, None))
    };
    if bus == 0 {
        // The ports below the windows are bus 0's on a PC, but for CONFIG_ADDRESS and CONFIG_DATA, which the bridge
        // consumes itself.
        let config = layout::CONFIG_ADDRESS_PORT;
        resources.push(Box::new(IO::new(config, config, 1, 8)));
        resources.push(port_window(0, config.into()));
        resources.push(port_window(u64::from(config) + 8, layout::WINDOW_IO.start));
    }
    resources.extend(bridge.io.iter().map(|range| port_window(range.start, range.end)));
    for range in &bridge.memory {
        // Not prefetchable: Linux puts a prefetchable BAR into such a window, but not the other way round.
        let kind = AddressSpaceCacheable::NotCacheable;
        let last = range.end - 1;
        resources.push(match (u32::try_from(range.start), u32::try_from(last)) {
            (Ok(start), Ok(last)) => Box::new(AddressSpace::new_memory(kind, true, start, last, None)),
            _ => Box::new(AddressSpace::new_memory(kind, true, range.start, last, None)),
        });
    }
    resources
}

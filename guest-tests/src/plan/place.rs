use super::{Bdf, Plan};

/// A root port of the machine or a downstream port of a switch; holds one device.
#[derive(Debug)]
pub struct Port {
    id: String,
    bdf: Bdf,
    secondary_bus: u8,
}

impl Port {
    /// The port's own address.
    pub fn bdf(&self) -> &Bdf {
        &self.bdf
    }

    /// The name that QEMU has for the port.
    pub(crate) fn qemu_id(&self) -> &str {
        &self.id
    }
}

/// A conventional PCI bus of the machine, behind a bridge: all functions on it are one group.
#[derive(Debug)]
pub struct ConventionalBus {
    id: String,
    number: u8,
}

/// Where a function of the machine is.
#[derive(Clone, Copy, Debug)]
pub enum Place<'p> {
    /// `DEVICE.FUNCTION` on bus 0, in hexadecimal.
    Bus0(&'p str),
    Behind(&'p Port),
    /// `DEVICE.FUNCTION` on a conventional bus; device 0 is taken.
    OnBus(&'p ConventionalBus, &'p str),
}

impl<'p> From<&'p str> for Place<'p> {
    fn from(address: &'p str) -> Self {
        Self::Bus0(address)
    }
}

impl<'p> From<&'p Port> for Place<'p> {
    fn from(port: &'p Port) -> Self {
        Self::Behind(port)
    }
}

impl<'p> From<(&'p ConventionalBus, &'p str)> for Place<'p> {
    fn from((bus, address): (&'p ConventionalBus, &'p str)) -> Self {
        Self::OnBus(bus, address)
    }
}

impl Place<'_> {
    pub(super) fn bdf(self) -> Bdf {
        match self {
            Place::Bus0(address) => Bdf(format!("0000:00:{address:0>4}")),
            Place::Behind(port) => Bdf(format!("0000:{:02x}:00.0", port.secondary_bus)),
            Place::OnBus(bus, address) => Bdf(format!("0000:{:02x}:{address:0>4}", bus.number)),
        }
    }

    pub(super) fn qemu_properties(self) -> String {
        match self {
            Place::Bus0(address) => format!("bus=pcie.0,addr={address}"),
            Place::Behind(port) => format!("bus={}", port.id),
            Place::OnBus(bus, address) => format!("bus={},addr={address}", bus.id),
        }
    }
}

/// The firmware numbers buses depth first, in the order of the bridges' addresses: bridges must be added in that order.
impl Plan {
    pub fn root_port(&mut self, at: &str) -> Port {
        let (id, secondary_bus) = self.bus_below("port");
        let chassis = secondary_bus;
        self.bridge(Place::Bus0(at), &format!("pcie-root-port,id={id},chassis={chassis}"));
        Port { id, bdf: Place::Bus0(at).bdf(), secondary_bus }
    }

    /// A switch with so many downstream ports.
    pub fn switch(&mut self, port: &Port, downstream_ports: u8) -> Vec<Port> {
        let (upstream, bus) = self.bus_below("upstream");
        self.bridge(Place::Behind(port), &format!("x3130-upstream,id={upstream}"));
        (0..downstream_ports)
            .map(|number| {
                let (id, secondary_bus) = self.bus_below("downstream");
                self.argument(
                    "-device",
                    format!(
                        "xio3130-downstream,id={id},bus={upstream},addr={number}.0,chassis={secondary_bus}"
                    ),
                );
                Port { id, bdf: Bdf(format!("0000:{bus:02x}:{number:02x}.0")), secondary_bus }
            })
            .collect()
    }

    /// A bridge from PCI Express to conventional PCI.
    pub fn conventional_bus(&mut self, port: &Port) -> ConventionalBus {
        let (id, number) = self.bus_below("conventional");
        self.bridge(Place::Behind(port), &format!("pcie-pci-bridge,id={id}"));
        ConventionalBus { id, number }
    }

    fn bus_below(&mut self, kind: &str) -> (String, u8) {
        self.buses += 1;
        (format!("{kind}{}", self.buses), self.buses)
    }

    fn bridge(&mut self, at: Place<'_>, device: &str) {
        let multifunction = self.multifunction_property(at);
        self.argument("-device", format!("{device},{}{multifunction}", at.qemu_properties()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Iommu;

    #[test]
    fn buses_are_numbered_depth_first() {
        let mut plan = Plan::new(Iommu::Intel48);
        let first = plan.root_port("4.0");
        let below = plan.switch(&first, 2);
        let second = plan.root_port("5.0");
        let conventional = plan.conventional_bus(&second);
        let bdfs: Vec<String> = below.iter().map(|port| Place::from(port).bdf().to_string()).collect();
        assert_eq!(bdfs, ["0000:03:00.0", "0000:04:00.0"]);
        assert_eq!(Place::from(&second).bdf().as_str(), "0000:05:00.0");
        assert_eq!(Place::from((&conventional, "a.1")).bdf().as_str(), "0000:06:0a.1");
        assert_eq!(Place::from("1e.0").bdf().as_str(), "0000:00:1e.0");
    }
}

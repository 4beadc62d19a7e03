//! A guest that has the function: it sits in a VMM whose ports only keep book.

use std::sync::Arc;

use passthru::attached::{Attached, Fresh};
use passthru::function::Shape;
use passthru::pci::{Slot, Space};
use passthru::space::AddressSpace;
use passthru::space::layout::Windows;
use ppt_over_vfio::Options;

use crate::vmm::Vmm;
use crate::world::World;

/// Where the guest has its BARs.
pub const REGISTERS: u64 = 0xc000_0000;
pub const PORTS: u64 = 0x1000;
pub const MEMORY: u64 = 0xc010_0000;
pub const TABLE: u64 = 0xc020_0000;
/// Registers of BAR 0: a scratch register, and one that raises a vector.
pub const SCRATCH: u64 = 0x08;
const RAISE: u64 = 0x48;
/// Control of MSI and of MSI-X.
pub const MSI_CONTROL: u16 = 0x52;
pub const MSIX_CONTROL: u16 = 0x72;
pub const ON: [u8; 2] = [0, 0x80];

/// The host, and the function in a guest. It is detached before the host goes.
pub struct Guest {
    pub function: Attached,
    pub world: World,
}

impl Guest {
    /// With addresses in its BARs and nothing on.
    pub fn new(options: Options) -> Guest {
        Guest::of(World::new(options))
    }

    pub fn of(world: World) -> Guest {
        let function = attach(&world);
        for (bar, address) in [(0, REGISTERS), (1, PORTS), (2, MEMORY), (4, TABLE)] {
            function.assign(bar, address);
        }
        Guest { function, world }
    }

    /// Decoding and bus mastering on.
    pub fn started(options: Options) -> Guest {
        let guest = Guest::new(options);
        guest.config_write(0x04, &[0x07, 0]);
        guest
    }

    pub fn vmm(&self) -> &Arc<Vmm> {
        &self.world.vmm
    }

    pub fn config<const LEN: usize>(&self, offset: u16) -> [u8; LEN] {
        let mut data = [0xee; LEN];
        self.function.config().config_read(offset, &mut data);
        data
    }

    pub fn config_write(&self, offset: u16, data: &[u8]) {
        self.function.config().config_write(offset, data);
    }

    pub fn read<const LEN: usize>(&self, address: u64) -> [u8; LEN] {
        let mut data = [0xee; LEN];
        self.vmm().read(address, &mut data);
        data
    }

    pub fn port_read<const LEN: usize>(&self, port: u64) -> [u8; LEN] {
        let mut data = [0xee; LEN];
        if let Some((trap, offset)) = self.port(port) {
            trap.target.bar_read(trap.bar, offset, &mut data);
        }
        data
    }

    pub fn port_write(&self, port: u64, data: &[u8]) {
        let (trap, offset) = self.port(port).unwrap();
        trap.target.bar_write(trap.bar, offset, data);
    }

    fn port(&self, port: u64) -> Option<(passthru::ports::Trap, u64)> {
        let book = self.vmm().book();
        let trap = book.trapped.iter().find(|t| t.space == Space::Io && t.range.contains(&port))?;
        Some((trap.clone(), trap.offset + port - trap.range.start))
    }

    /// Guest addresses and bytes of what the VMM's memory port has mapped.
    pub fn mapped(&self) -> Vec<(u64, u64)> {
        self.vmm().book().mapped.keys().copied().collect()
    }

    /// Memory, or ports, and first addresses of what is trapped.
    pub fn trapped(&self) -> Vec<(Space, u64)> {
        let mut trapped: Vec<_> =
            self.vmm().book().trapped.iter().map(|t| (t.space, t.range.start)).collect();
        trapped.sort_by_key(|(_, start)| *start);
        trapped
    }

    /// Writes an entry of the MSI-X table.
    pub fn arm(&self, vector: u64, data: u32, masked: bool) {
        let entry = TABLE + vector * 16;
        self.vmm().write(entry, &0xfee0_1000u64.to_le_bytes());
        self.vmm().write(entry + 8, &data.to_le_bytes());
        self.mask(vector, masked);
    }

    pub fn mask(&self, vector: u64, masked: bool) {
        self.vmm().write(TABLE + vector * 16 + 12, &u32::from(masked).to_le_bytes());
    }

    /// The function signals a vector; gives the messages that have come to the guest.
    pub fn raise(&self, vector: u32) -> Vec<(u64, u32)> {
        self.vmm().write(REGISTERS + RAISE, &vector.to_le_bytes());
        self.delivered()
    }

    pub fn delivered(&self) -> Vec<(u64, u32)> {
        self.vmm().turn();
        self.vmm().delivered().iter().map(|message| (message.address, message.data)).collect()
    }

    /// It is detached; gives the host.
    pub fn detach(self) -> World {
        drop(self.function);
        self.world
    }
}

/// `/dev/ppt0` in the virtual machine "a" and its guest.
pub fn attach(world: &World) -> Attached {
    let host = Fresh::one(Arc::new(world.function())).unwrap();
    let space = Arc::new(AddressSpace::new(world.vmm.clone()));
    let windows = Arc::new(Windows { memory: vec![REGISTERS..0xe000_0000], io: vec![PORTS..0x1_0000] });
    Attached::new(host, Slot::new(0, 8, 0).unwrap(), Shape::default(), space, windows).unwrap()
}

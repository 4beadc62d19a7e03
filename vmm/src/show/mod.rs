//! What a guest would see of a function, beside what the host has: for a person, and as JSON (`vmm/SHOW.md`).
//!
//! The guest's view is made by the same core as a running guest's, from what sysfs tells. Nothing is opened through VFIO.

mod fields;
mod meaning;
pub(crate) mod names;
mod quirks;
mod refused;
mod registers;
mod subject;
mod text;

#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;

use passthru::function::pieces::{Backing, Reason};
use passthru::function::{Function, FunctionError, Place as Standing, Shape};
use passthru::host::BarRange;
use passthru::host::simulated::SimulatedError;
use passthru::host::vfio::OpenError;
use passthru::pci::bar;
use passthru::pci::capability::{
    Capability as Listed, ExtendedCapability as ListedExtended, read_u16, read_u32,
};
use passthru::pci::registers::{DEVICE_ID, REVISION_ID, VENDOR_ID, capability_id};
use serde::Serialize;

use crate::host::physical_path::PathError;
use crate::machine::BEHIND_PORT;
use crate::slot_map::DeviceName;
use crate::slot_map::msix_page::MsixPage;
use crate::wording;
use refused::Refused;
pub use registers::{Access, Register};
use registers::{Comparison, lists};
pub use subject::{Group, Member};
use subject::{RESOURCES, Subject};
pub(crate) use subject::{alone, sharing_bus};

/// Version of the JSON form.
pub const SCHEMA: u32 = 1;

const SUBSYSTEM_VENDOR: u16 = 0x2c;
const SUBSYSTEM: u16 = 0x2e;
const INTERRUPT_PIN: u16 = 0x3d;

/// Why a function cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum ShowError {
    /// No such function in this host.
    #[error(transparent)]
    Host(#[from] OpenError),
    /// Nothing at a physical path.
    #[error(transparent)]
    Path(#[from] PathError),
    /// No such simulated function.
    #[error(transparent)]
    Simulated(#[from] SimulatedError),
    /// One of its files in sysfs.
    #[error("{}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// errno.
        source: io::Error,
    },
    /// It cannot be a guest's.
    #[error("{device}: {error}")]
    Function {
        /// The function, as the host names it.
        device: String,
        /// What is in the way.
        error: FunctionError,
    },
}

/// A function, shown.
#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    schema: u32,
    version: &'static str,
    device: String,
    stands: Stands,
    identity: Identity,
    driver: Option<String>,
    config_bytes: usize,
    notes: Vec<String>,
    problems: Vec<String>,
    refused: Vec<Refused>,
    bars: Vec<Bar>,
    interrupts: Interrupts,
    reset: Reset,
    group: Option<Group>,
    quirks: Vec<String>,
    capabilities: Vec<Capability>,
    registers: Vec<Register>,
}

/// Where in the guest a function is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stands {
    /// On a root bus, as an integrated endpoint.
    RootBus,
    /// Behind a root port, with a link to it.
    BehindPort,
}

impl From<Stands> for Standing {
    fn from(stands: Stands) -> Standing {
        match stands {
            Stands::RootBus => Standing::RootBus,
            Stands::BehindPort => BEHIND_PORT,
        }
    }
}

#[derive(Clone, Debug, Serialize)]
struct Identity {
    vendor: u16,
    device: u16,
    subsystem_vendor: u16,
    subsystem: u16,
    class: u32,
    revision: u8,
    vendor_name: Option<&'static str>,
    device_name: Option<&'static str>,
    class_name: Option<String>,
}

/// A BAR that the guest sees, or the expansion ROM.
#[derive(Clone, Debug, Serialize)]
struct Bar {
    /// 0 to 5; 6 is the expansion ROM.
    bar: u8,
    kind: &'static str,
    prefetchable: bool,
    size: u64,
    host_address: Option<u64>,
    /// The guest has it.
    guest: bool,
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, Serialize)]
struct Piece {
    offset: u64,
    size: u64,
    mapped: bool,
    /// Reads take no exit.
    read_only: bool,
    reason: Option<Reason>,
    #[serde(skip)]
    backing: Backing,
}

#[derive(Clone, Debug, Serialize)]
struct Interrupts {
    intx: Option<Intx>,
    msi: Option<Vectors>,
    msix: Option<Vectors>,
}

#[derive(Clone, Debug, Serialize)]
struct Intx {
    /// `A` to `D`.
    pin: char,
    /// The guest has it.
    guest: bool,
}

#[derive(Clone, Debug, Serialize)]
struct Vectors {
    /// Where its capability is.
    offset: u16,
    vectors: u16,
    guest_vectors: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    table: Option<Place>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pending: Option<Place>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Place {
    bar: u8,
    offset: u64,
    size: u64,
}

#[derive(Clone, Debug, Serialize)]
struct Reset {
    /// What applies, in words.
    method: Option<String>,
    /// The kernel's words for all there are.
    kernel: Vec<String>,
}

/// A capability of the function's, of the guest's, or of both.
#[derive(Clone, Debug, Serialize)]
struct Capability {
    id: u16,
    extended: bool,
    name: String,
    physical: Option<u16>,
    guest: Option<u16>,
    /// What its first register says.
    physical_meaning: Option<String>,
    guest_meaning: Option<String>,
    /// The guest does not see it, or one of its registers reads something else there.
    differs: bool,
    /// Why the guest does not see it.
    hidden_because: Option<&'static str>,
}

impl Shown {
    /// What a guest would see of the function that a user names so, where it would stand.
    pub fn of(device: &DeviceName, stands: Stands, msix_page: MsixPage) -> Result<Shown, ShowError> {
        Shown::new(Subject::find(device)?, stands, msix_page)
    }

    fn new(subject: Subject, stands: Stands, msix_page: MsixPage) -> Result<Shown, ShowError> {
        let trap_msix = msix_page == MsixPage::Trap;
        let shape = Shape { place: stands.into(), trap_msix, ..Shape::default() };
        let (function, problems) = Function::new(&subject.description, &subject.report, shape)
            .map_err(|error| ShowError::Function { device: subject.name.clone(), error })?;
        let physical = subject.physical.as_slice();
        let comparison = Comparison::new(physical, &function);
        let guest = comparison.guest();
        let (list, extended) = lists(&subject.description.config);
        let (guest_list, guest_extended) = lists(&guest);
        let registers = comparison.registers(&list, &extended);
        let identity = Identity::new(physical);

        let (physical_ids, guest_ids) = (ids(&list, &extended), ids(&guest_list, &guest_extended));
        let only_guest = guest_ids.iter().filter(|id| !physical_ids.contains(id));
        let mut capabilities: Vec<Capability> = physical_ids
            .iter()
            .map(|id| Capability::new(*id, true, guest_ids.contains(id), &registers))
            .chain(only_guest.map(|id| Capability::new(*id, false, true, &registers)))
            .collect();
        capabilities.sort_by_key(|capability| capability.physical.or(capability.guest));
        Ok(Shown {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            config_bytes: physical.len(),
            stands,
            problems: problems.iter().map(ToString::to_string).collect(),
            refused: refused::of(&subject.name, identity.vendor, identity.class),
            bars: bars(&subject, &function),
            interrupts: interrupts(&subject, &function, &guest, &list),
            reset: Reset {
                method: subject.report.reset.as_ref().map(ToString::to_string),
                kernel: subject.reset_methods,
            },
            quirks: quirks::sentences(identity.vendor, identity.device, identity.class),
            identity,
            capabilities,
            registers,
            device: subject.name,
            driver: subject.driver,
            notes: subject.notes,
            group: subject.group,
        })
    }
}

/// What others than a person want to know.
impl Shown {
    /// Vendor and device by name, or by number.
    pub(crate) fn label(&self) -> String {
        let Identity { vendor, device, vendor_name, device_name, .. } = &self.identity;
        match (vendor_name, device_name) {
            (Some(vendor), Some(device)) => format!("{vendor} {device}"),
            _ => format!("{vendor:04x}:{device:04x}"),
        }
    }

    /// BAR, offset and size of each part that the guest has and that is not mapped, and how it reaches the guest.
    pub(crate) fn trapped(&self) -> impl Iterator<Item = (u8, u64, u64, Backing)> {
        self.bars.iter().flat_map(|bar| {
            let pieces = bar.pieces.iter().filter(|piece| !piece.mapped);
            pieces.map(|piece| (bar.bar, piece.offset, piece.size, piece.backing))
        })
    }

    /// How many parts of BARs are mapped.
    pub(crate) fn mapped_parts(&self) -> u64 {
        self.bars.iter().flat_map(|bar| &bar.pieces).filter(|piece| piece.mapped).count() as u64
    }

    /// The most message vectors that the guest can have on at a time.
    pub(crate) fn guest_vectors(&self) -> u64 {
        let kinds = [&self.interrupts.msi, &self.interrupts.msix];
        kinds.into_iter().flatten().map(|kind| u64::from(kind.guest_vectors)).max().unwrap_or(0)
    }

    /// What does not make sense of the function, and is left out.
    pub(crate) fn problems(&self) -> &[String] {
        &self.problems
    }
}

/// What tells capabilities apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct CapabilityId {
    id: u16,
    offset: u16,
    extended: bool,
}

fn ids(list: &[Listed], extended: &[ListedExtended]) -> Vec<CapabilityId> {
    let list = list.iter().map(|c| CapabilityId { id: u16::from(c.id), offset: c.offset, extended: false });
    let extended = extended.iter().map(|c| CapabilityId { id: c.id, offset: c.offset, extended: true });
    list.chain(extended).collect()
}

impl Identity {
    fn new(config: &[u8]) -> Identity {
        let (vendor, device) = (read_u16(config, VENDOR_ID), read_u16(config, DEVICE_ID));
        let class = read_u32(config, REVISION_ID) >> 8;
        Identity {
            vendor,
            device,
            subsystem_vendor: read_u16(config, SUBSYSTEM_VENDOR),
            subsystem: read_u16(config, SUBSYSTEM),
            class,
            revision: read_u16(config, REVISION_ID) as u8,
            vendor_name: names::vendor(vendor),
            device_name: names::device(vendor, device),
            class_name: names::class(class),
        }
    }
}

impl Capability {
    fn new(
        CapabilityId { id, offset, extended }: CapabilityId,
        is_physical: bool,
        is_guests: bool,
        registers: &[Register],
    ) -> Capability {
        let (name, why) = match u8::try_from(id) {
            Ok(id) if !extended => (fields::capability_name(id), fields::why_hidden(id)),
            _ => (fields::extended_name(id), fields::why_extended_hidden(id)),
        };
        // Its pointer differs when a neighbour is hidden, which says nothing of this one.
        let own = registers.iter().filter(|r| r.capability == Some(offset) && r.offset != offset);
        let told = own.clone().find(|register| register.physical_meaning.is_some());
        Capability {
            id,
            extended,
            name,
            physical: is_physical.then_some(offset),
            guest: is_guests.then_some(offset),
            physical_meaning: told.and_then(|register| register.physical_meaning.clone()),
            guest_meaning: told.filter(|_| is_guests).and_then(|register| register.guest_meaning.clone()),
            differs: is_physical != is_guests || own.clone().any(|register| register.differs),
            hidden_because: (!is_guests).then_some(why),
        }
    }
}

fn bars(subject: &Subject, function: &Function) -> Vec<Bar> {
    let mut shown: Vec<Bar> = function
        .bars()
        .iter()
        .map(|bar| Bar {
            bar: bar.index,
            kind: if bar.index == bar::ROM { "rom" } else { wording::kind_name(bar.kind) },
            prefetchable: bar.kind.is_prefetchable(),
            size: bar.size,
            host_address: address(subject, bar.index),
            guest: true,
            pieces: pieces(function, bar.index),
        })
        .collect();
    let rom = subject.description.rom.size;
    if rom != 0 && !shown.iter().any(|shown| shown.bar == bar::ROM) {
        shown.push(Bar {
            bar: bar::ROM,
            kind: "rom",
            prefetchable: false,
            size: rom,
            host_address: address(subject, bar::ROM),
            guest: false,
            pieces: Vec::new(),
        });
    }
    shown
}

fn address(subject: &Subject, bar: u8) -> Option<u64> {
    let addresses: &[Option<u64>; RESOURCES] = &subject.addresses;
    addresses.get(usize::from(bar)).copied().flatten()
}

fn pieces(function: &Function, bar: u8) -> Vec<Piece> {
    let own = function.pieces().iter().filter(|piece| piece.range.bar == bar);
    own.map(|piece| Piece {
        offset: piece.range.offset,
        size: piece.range.len,
        mapped: piece.backing == Backing::Mapped,
        read_only: piece.backing.is_read_only(),
        reason: piece.backing.reason(),
        backing: piece.backing,
    })
    .collect()
}

fn interrupts(subject: &Subject, function: &Function, guest: &[u8], list: &[Listed]) -> Interrupts {
    let pin = |config: &[u8]| read_u16(config, INTERRUPT_PIN - 1) >> 8;
    let find = |id| list.iter().find(|c| c.id == id);
    let guest_list = lists(guest).0;
    let is_guests = |id| guest_list.iter().any(|c| c.id == id);
    let control = |config: &[u8], offset: u16| read_u16(config, offset + 2);
    let messages = |config: &[u8], offset| 1u16 << (control(config, offset) >> 1 & 0x7).min(5);
    let msi = find(capability_id::MSI).map(|c| Vectors {
        offset: c.offset,
        vectors: messages(&subject.physical, c.offset),
        guest_vectors: if is_guests(capability_id::MSI) { messages(guest, c.offset) } else { 0 },
        table: None,
        pending: None,
    });
    let place = |range: &BarRange| Place { bar: range.bar, offset: range.offset, size: range.len };
    let msix = find(capability_id::MSIX).map(|c| Vectors {
        offset: c.offset,
        vectors: (control(&subject.physical, c.offset) & 0x7ff) + 1,
        guest_vectors: function.msix_vectors(),
        table: function.msix_structures().map(|m| place(&m.table)),
        pending: function.msix_structures().map(|m| place(&m.pending)),
    });
    let letter = match pin(&subject.physical) {
        pin @ 1..=4 => Some(char::from(b'A' + (pin - 1) as u8)),
        _ => None,
    };
    let intx = letter.map(|letter| Intx { pin: letter, guest: pin(guest) != 0 });
    Interrupts { intx, msi, msix }
}

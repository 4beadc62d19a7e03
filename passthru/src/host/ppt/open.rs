//! How a function is opened: what can be known is looked at, then it is bound, and then it is what it is.

use std::io;
use std::path::Path;
use std::sync::Arc;

use log::{info, warn};
use parking_lot::Mutex;

use super::PptFunction;
use super::abi::{MAX_MMIO_SEGMENTS, PAGE};
use super::device::{Device, HostBar};
use super::error::OpenError;
use super::filter::{self, Filter};
use super::function::Bound;
use super::sys::Sys;
use super::table_bar::TableBar;
use super::vm::{GuestMemory, Interface, Vm};
use crate::host::{BARS, Delivery, Description, DmaReach, Region, Report, ResetMethod};
use crate::pci::Space;
use crate::pci::capability::read_u16;
use crate::pci::registers::{CONVENTIONAL_SIZE, VENDOR_ID};

impl<S: Sys> PptFunction<S> {
    /// Opens the function behind `path`, `/dev/pptN`, and binds it to a virtual machine, which resets it. Whatever can be
    /// known without that is checked before.
    pub fn open(vm: &Arc<Vm<S>>, path: &Path) -> Result<PptFunction<S>, OpenError> {
        let device = Device::open(vm.sys().clone(), path)?;
        let name = device.name().clone();
        let look = |call| {
            let device = name.clone();
            move |source| OpenError::Look { device, call, source }
        };
        if vm.memory() == GuestMemory::Pageable {
            return Err(OpenError::NotWired { device: name });
        }
        look_at_bars(&device)?;
        let before = read_config(&device).map_err(look("PPT_CFG_READ"))?;
        if read_u16(&before, VENDOR_ID) == 0xffff {
            return Err(OpenError::NoAnswer { device: name });
        }
        if filter::needs_line(&before) {
            return Err(OpenError::NoMessages { device: name });
        }
        let refused = |source| OpenError::Bind { device: name.clone(), source };
        vm.bind(&device).map_err(refused)?;
        let bound = Bound { vm: vm.clone(), device };
        let (msi, msix) = bound.vm.limits(&bound.device).map_err(refused)?;
        // What was looked at before may have changed until it was bound; from here on it is this VM's.
        let bars = look_at_bars(&bound.device)?;
        let config = read_config(&bound.device).map_err(look("PPT_CFG_READ"))?;
        let table_bar = map_table_bar(&bound, &config, &bars);
        let report = Report {
            delivery: Delivery::Kernel,
            intx: false,
            msi: msi.unwrap_or(0),
            msi_masking: false,
            msix: msix.unwrap_or(0),
            dynamic_msix: true,
            keeps_pending: false,
            dma: DmaReach::WholeGuest,
            mappings: Some(MAX_MMIO_SEGMENTS),
            granularity: PAGE,
            power_states: false,
            reset: filter::has_flr(&config).then_some(ResetMethod::AtAttach),
            error_events: false,
            request_events: false,
        };
        if report.reset.is_none() {
            warn!(
                "{name}: it has no FLR, so illumos does not reset it; the guest finds it as its last user left it"
            );
        }
        if (msi, msix) == (None, None) && filter::has_messages(&config) {
            warn!("{name}: the host has no vectors left for it: it cannot interrupt the guest");
        }
        if bound.vm.interface() == Interface::First {
            info!(
                "{name}: this host's kernel unmaps no BAR before the guest ends: it stays where it was as well"
            );
        }
        let region = |(index, bar): (usize, &Option<HostBar>)| match bar {
            None => Region::default(),
            Some(HostBar { space: Space::Io, size, .. }) => {
                Region { size: *size, mappable: Vec::new(), accessible: true }
            }
            Some(HostBar { space: Space::Memory, size, .. }) => Region {
                size: *size,
                mappable: vec![0..*size],
                accessible: table_bar.as_ref().is_some_and(|table| usize::from(table.bar()) == index),
            },
        };
        let mut regions: [Region; BARS] = Default::default();
        for (slot, found) in regions.iter_mut().zip(bars.iter().enumerate()) {
            *slot = region(found);
        }
        let filter = Filter::new(&config);
        let pending = filter::pending_bits(&config)
            .filter(|(bar, _)| table_bar.as_ref().is_some_and(|table| table.bar() == *bar))
            .map(|(_, offset)| offset);
        let description = Description { config, bars: regions, rom: Region::default() };
        let (first, armed) = (Mutex::default(), Mutex::default());
        Ok(PptFunction { table_bar, bound, bars, filter, pending, description, report, first, armed })
    }
}

/// The BARs, all of which can be mapped.
fn look_at_bars<S: Sys>(device: &Device<S>) -> Result<[Option<HostBar>; BARS], OpenError> {
    let name = device.name();
    let mut bars = [None; BARS];
    for (bar, found) in (0u8..).zip(&mut bars) {
        let look = |source| OpenError::Look { device: name.clone(), call: "PPT_BAR_QUERY", source };
        *found = device.bar(bar).map_err(look)?;
        let Some(HostBar { space: Space::Memory, base, size }) = *found else { continue };
        if base % PAGE != 0 || size % PAGE != 0 {
            return Err(OpenError::Unaligned { device: name.clone(), bar, base, size });
        }
    }
    Ok(bars)
}

fn read_config<S: Sys>(device: &Device<S>) -> io::Result<Vec<u8>> {
    let mut config = Vec::with_capacity(CONVENTIONAL_SIZE);
    for offset in (0..CONVENTIONAL_SIZE as u16).step_by(4) {
        config.extend(device.config_read(offset, 4)?.to_le_bytes());
    }
    Ok(config)
}

fn map_table_bar<S: Sys>(bound: &Bound<S>, config: &[u8], bars: &[Option<HostBar>]) -> Option<TableBar<S>> {
    let bar = filter::table_bar(config)?;
    let HostBar { space: Space::Memory, size, .. } = bars.get(usize::from(bar)).copied().flatten()? else {
        return None;
    };
    let mapped = TableBar::map(bound.device.sys().clone(), bound.device.fd(), bar, size);
    mapped
        .inspect_err(|error| {
            let name = bound.device.name();
            info!("{name}: BAR {bar}: mmap: {error}; registers beside the MSI-X table are out of reach");
        })
        .ok()
}

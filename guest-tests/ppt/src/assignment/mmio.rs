//! Parts of a function's BARs in the guest's address space: at most seven, of any pages inside one memory BAR.
//!
//! A host may not map all of a BAR (VFIO: the pages of the MSI-X table in older kernels, registers that share a page with
//! others). Such pages are trapped, and each access is carried out by the host.

use std::ops::Range;
use std::sync::Arc;

use log::{debug, warn};
use passthru::host::{BarRange, HostFunction};
use passthru::pci::Space;
use passthru::ports::{BarAccess, Trap};

use super::Assignment;
use crate::abi::{MAX_SEGMENTS, PAGE};
use crate::device::Device;
use crate::errno::{Errno, Result};
use crate::ports::KernelPorts;

/// Where a guest's addresses end, whatever the processor (52 bits).
const GUEST_END: u64 = 1 << 52;

/// What one `VM_MAP_PPTDEV_MMIO` has mapped.
pub struct Segment {
    gpa: u64,
    range: BarRange,
    /// What of it is there, from below.
    parts: Vec<Part>,
}

/// Part of a segment that the guest reaches in one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    gpa: u64,
    range: BarRange,
    mapped: bool,
}

impl Segment {
    /// Where it is, and what.
    pub fn place(&self) -> (u64, BarRange) {
        (self.gpa, self.range)
    }

    fn overlaps(&self, gpa: u64, len: u64) -> bool {
        gpa < self.gpa + self.range.len && self.gpa < gpa + len
    }

    fn map(&mut self, device: &Device, ports: &KernelPorts) -> Result<()> {
        let mappable = device.host().description().bars.get(usize::from(self.range.bar));
        let mappable = mappable.map_or(&[][..], |region| &region.mappable);
        for part in split(self.gpa, self.range, mappable) {
            if let Err(errno) = part.map(device, ports) {
                if self.unmap(device, ports).is_err() {
                    warn!("{}: {} stays in the guest", device.host().name(), self.range);
                }
                return Err(errno);
            }
            self.parts.push(part);
        }
        Ok(())
    }

    /// After an error some of it is there still.
    fn unmap(&mut self, device: &Device, ports: &KernelPorts) -> Result<()> {
        while let Some(part) = self.parts.last() {
            part.unmap(device, ports)?;
            self.parts.pop();
        }
        Ok(())
    }
}

impl Part {
    fn addresses(&self) -> Range<u64> {
        self.gpa..self.gpa + self.range.len
    }

    fn map(&self, device: &Device, ports: &KernelPorts) -> Result<()> {
        if self.mapped {
            return device.host().map(self.range, self.gpa).map_err(super::failed(Errno::ENOMEM));
        }
        let trap = Trap {
            space: Space::Memory,
            range: self.addresses(),
            target: Arc::new(Accessed(device.host().clone())),
            slot: device.function().slot,
            bar: self.range.bar,
            offset: self.range.offset,
        };
        ports.memory().trap(&[], &[trap]).map_err(|error| {
            debug!("{error}");
            Errno::ENOMEM
        })
    }

    fn unmap(&self, device: &Device, ports: &KernelPorts) -> Result<()> {
        if self.mapped {
            return device.host().unmap(self.range, self.gpa).map_err(super::failed(Errno::EIO));
        }
        ports.memory().trap(&[(Space::Memory, self.addresses())], &[]).map_err(|error| {
            debug!("{error}");
            Errno::EIO
        })
    }
}

/// A BAR whose accesses the host carries out one by one.
struct Accessed(Arc<dyn HostFunction>);

impl BarAccess for Accessed {
    fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]) {
        if let Err(error) = self.0.bar_read(bar, offset, data) {
            debug!("{error}");
            data.fill(0xff);
        }
    }

    fn bar_write(&self, bar: u8, offset: u64, data: &[u8]) {
        if let Err(error) = self.0.bar_write(bar, offset, data) {
            debug!("{error}");
        }
    }
}

/// The parts of a range, at `gpa`, that lie inside of what can be mapped, and those between.
fn split(gpa: u64, range: BarRange, mappable: &[Range<u64>]) -> Vec<Part> {
    let end = range.offset + range.len;
    let part = |from: u64, to: u64, mapped| Part {
        gpa: gpa + (from - range.offset),
        range: BarRange { bar: range.bar, offset: from, len: to - from },
        mapped,
    };
    let (mut parts, mut at) = (Vec::new(), range.offset);
    for area in mappable {
        let (from, to) = (area.start.clamp(at, end), area.end.clamp(at, end));
        if from < to {
            if at < from {
                parts.push(part(at, from, false));
            }
            parts.push(part(from, to, true));
            at = to;
        }
    }
    if at < end {
        parts.push(part(at, end, false));
    }
    parts
}

/// What `VM_MAP_PPTDEV_MMIO` checks before it looks at whose function it is: whole pages, at least one, that do not wrap.
pub fn are_pages(gpa: u64, hpa: u64, len: u64) -> bool {
    let whole = (gpa | hpa | len).is_multiple_of(PAGE);
    len > 0 && whole && gpa.checked_add(len).is_some() && hpa.checked_add(len).is_some()
}

impl Assignment {
    /// Makes these host addresses of one of its memory BARs appear in the guest, unless a function is there already.
    pub fn map_mmio(&mut self, gpa: u64, hpa: u64, len: u64, taken: bool, ports: &KernelPorts) -> Result<()> {
        let range = self.device.locate(hpa, len).ok_or(Errno::EINVAL)?;
        if self.segments.len() >= MAX_SEGMENTS {
            return Err(Errno::ENOSPC);
        }
        if taken {
            return Err(Errno::ENOMEM);
        }
        self.map_segment(gpa, range, ports)
    }

    pub(super) fn map_segment(&mut self, gpa: u64, range: BarRange, ports: &KernelPorts) -> Result<()> {
        if gpa > GUEST_END || gpa + range.len > GUEST_END {
            return Err(Errno::ENOMEM);
        }
        let mut segment = Segment { gpa, range, parts: Vec::new() };
        segment.map(&self.device, ports)?;
        self.segments.push(segment);
        Ok(())
    }

    /// Takes away what was made to appear at exactly these addresses.
    pub fn unmap_mmio(&mut self, gpa: u64, len: u64, ports: &KernelPorts) -> Result<()> {
        let is_it = |segment: &Segment| (segment.gpa, segment.range.len) == (gpa, len);
        let index = self.segments.iter().position(is_it).ok_or(Errno::ENOENT)?;
        let segment = self.segments.get_mut(index).ok_or(Errno::ENOENT)?;
        segment.unmap(&self.device, ports)?;
        self.segments.remove(index);
        Ok(())
    }

    /// Whether some of it is at these addresses.
    pub fn is_at(&self, gpa: u64, len: u64) -> bool {
        self.segments.iter().any(|segment| segment.overlaps(gpa, len))
    }

    pub(super) fn unmap_all(&mut self, ports: &KernelPorts) -> Result<()> {
        while let Some(segment) = self.segments.last_mut() {
            segment.unmap(&self.device, ports)?;
            self.segments.pop();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_mapped_is_and_what_lies_between_is_trapped() {
        let range = |offset, len| BarRange { bar: 4, offset, len };
        let one_page_hidden = [0..0x1000, 0x2000..0x8000];
        type Case<'a> = (&'a [Range<u64>], BarRange, &'a [(u64, u64, bool)]);
        let cases: [Case<'_>; 8] = [
            (&[0..0x8000], range(0, 0x8000), &[(0, 0x8000, true)]),
            (&[], range(0x1000, 0x2000), &[(0x1000, 0x2000, false)]),
            (
                &one_page_hidden,
                range(0, 0x8000),
                &[(0, 0x1000, true), (0x1000, 0x1000, false), (0x2000, 0x6000, true)],
            ),
            (&one_page_hidden, range(0x1000, 0x1000), &[(0x1000, 0x1000, false)]),
            (&one_page_hidden, range(0x3000, 0x1000), &[(0x3000, 0x1000, true)]),
            (&one_page_hidden, range(0, 0x2000), &[(0, 0x1000, true), (0x1000, 0x1000, false)]),
            (&[0..0x2000], range(0x1000, 0x3000), &[(0x1000, 0x1000, true), (0x2000, 0x2000, false)]),
            (&[0x5000..0x6000], range(0, 0x1000), &[(0, 0x1000, false)]),
        ];
        for (mappable, whole, expected) in cases {
            let gpa = 0x10_0000 + whole.offset;
            let parts = split(gpa, whole, mappable);
            let found: Vec<_> = parts.iter().map(|p| (p.range.offset, p.range.len, p.mapped)).collect();
            assert_eq!(found, expected, "{whole} of {mappable:?}");
            assert!(parts.iter().all(|p| p.gpa == 0x10_0000 + p.range.offset && p.range.bar == 4));
        }
    }

    #[test]
    fn only_whole_pages_that_do_not_wrap_can_be_mapped() {
        let last = u64::MAX - 0xfff;
        for (gpa, hpa, len, expected) in [
            (0, 0, 0x1000, true),
            (0x1000, 0x2000, 0x3000, true),
            (0, 0, 0, false),
            (1, 0, 0x1000, false),
            (0, 0x800, 0x1000, false),
            (0, 0, 0x1800, false),
            (last, 0, 0x1000, false),
            (0, last, 0x1000, false),
            (last - 0x1000, 0, 0x1000, true),
            (0x1000, 0, last, false),
        ] {
            assert_eq!(are_pages(gpa, hpa, len), expected, "{gpa:#x} {hpa:#x} {len:#x}");
        }
    }
}

//! The form for a person: a heading for each topic, columns below it.

use std::fmt::{self, Formatter};

use passthru::pci::registers::CONVENTIONAL_SIZE;

use super::{Access, Bar, Capability, Interrupts, Register, Shown, Stands, Vectors};
use crate::wording;

/// Everything, or only what differs between the function and the guest's view of it.
pub struct Text<'a> {
    shown: &'a Shown,
    only_differences: bool,
}

impl Shown {
    /// For a person; with `only_differences` registers and capabilities that read the same in the guest are left out, and
    /// everything that is not configuration space.
    pub fn text(&self, only_differences: bool) -> Text<'_> {
        Text { shown: self, only_differences }
    }

    /// What is said where there is no capability: that there is none, or that it cannot be told.
    fn none(&self) -> &'static str {
        if self.config_bytes < CONVENTIONAL_SIZE { "not known without root" } else { "none" }
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let shown = self.shown;
        identity(f, shown)?;
        if self.only_differences {
            return differences(f, shown);
        }
        bars(f, &shown.bars)?;
        interrupts(f, &shown.interrupts, shown.none())?;
        belonging(f, shown)?;
        writeln!(f, "\n{:<34} {:<7} {:<7} what", "Capabilities", "host", "guest")?;
        if shown.capabilities.is_empty() {
            writeln!(f, "  {}", shown.none())?;
        }
        for capability in &shown.capabilities {
            capability_row(f, capability)?;
        }
        writeln!(f, "\n{:<38} {:<12} {:<12} {:<28} what", "Registers", "host", "guest", "access")?;
        let mut of = "";
        // What nobody has and nobody can write is not told.
        for register in shown.registers.iter().filter(|register| !register.access.is_empty()) {
            if register.of != of || register.capability == Some(register.offset) {
                of = &register.of;
                writeln!(f, "  {}", if of.is_empty() { "in no capability" } else { of })?;
            }
            register_row(f, register, &register.access)?;
        }
        Ok(())
    }
}

fn identity(f: &mut Formatter<'_>, shown: &Shown) -> fmt::Result {
    let id = &shown.identity;
    let class = id.class_name.as_deref().unwrap_or("a function of unknown class");
    writeln!(f, "{}: {class} [{:04x}.{:02x}]", shown.device, id.class >> 8, id.class & 0xff)?;
    writeln!(
        f,
        "  {}, {} [{:04x}:{:04x}], subsystem {:04x}:{:04x}, revision {:02x}",
        id.vendor_name.unwrap_or("unknown vendor"),
        id.device_name.unwrap_or("unknown device"),
        id.vendor,
        id.device,
        id.subsystem_vendor,
        id.subsystem,
        id.revision
    )?;
    if shown.stands == Stands::BehindPort {
        writeln!(f, "  as the guest sees it behind a root port")?;
    }
    for refused in &shown.refused {
        writeln!(f, "  refused: {}", refused.why)?;
    }
    for problem in &shown.problems {
        writeln!(f, "  problem: {problem}")?;
    }
    for note in &shown.notes {
        writeln!(f, "  note: {note}")?;
    }
    Ok(())
}

fn bars(f: &mut Formatter<'_>, bars: &[Bar]) -> fmt::Result {
    writeln!(f, "\nBARs")?;
    if bars.is_empty() {
        writeln!(f, "  none")?;
    }
    for bar in bars {
        let name = if bar.kind == "rom" { "ROM".to_owned() } else { format!("BAR {}", bar.bar) };
        let kind = match bar.kind {
            "memory32" => "memory, 32 bits",
            "memory64" => "memory, 64 bits",
            "io" => "I/O",
            _ => "memory",
        };
        let prefetchable = if bar.prefetchable { ", prefetchable" } else { "" };
        write!(f, "  {name}  {}, {kind}{prefetchable}", wording::size(bar.size))?;
        if let Some(address) = bar.host_address {
            write!(f, ", in the host at {address:#x}")?;
        }
        writeln!(f, "{}", if bar.guest { "" } else { "; the guest does not see it" })?;
        for piece in &bar.pieces {
            let range = format!("{:#x}..{:#x}", piece.offset, piece.offset.saturating_add(piece.size));
            writeln!(f, "    {range:<28} {}", wording::how(piece.backing, piece.size))?;
        }
    }
    Ok(())
}

fn interrupts(f: &mut Formatter<'_>, interrupts: &Interrupts, none: &str) -> fmt::Result {
    writeln!(f, "\nInterrupts")?;
    match &interrupts.intx {
        None => writeln!(f, "  INTx   none")?,
        Some(intx) => {
            let guest = if intx.guest { "the guest has it" } else { "the guest does not see it" };
            writeln!(f, "  INTx   INT{}; {guest}", intx.pin)?;
        }
    }
    let vectors = |f: &mut Formatter<'_>, name: &str, vectors: &Option<Vectors>| match vectors {
        None => writeln!(f, "  {name:<6} {none}"),
        Some(vectors) => {
            let plural = if vectors.vectors == 1 { "" } else { "s" };
            write!(f, "  {name:<6} {} vector{plural}; the guest has ", vectors.vectors)?;
            match vectors.guest_vectors {
                0 => write!(f, "none")?,
                count if count == vectors.vectors => {
                    f.write_str(if count == 1 { "it" } else { "them all" })?
                }
                count => write!(f, "{count}")?,
            }
            for (name, place) in [("table", vectors.table), ("pending bits", vectors.pending)] {
                if let Some(place) = place {
                    let end = place.offset.saturating_add(place.size);
                    write!(f, "; {name} in BAR {} {:#x}..{end:#x}", place.bar, place.offset)?;
                }
            }
            writeln!(f)
        }
    };
    vectors(f, "MSI", &interrupts.msi)?;
    vectors(f, "MSI-X", &interrupts.msix)
}

/// Reset, group, quirks.
fn belonging(f: &mut Formatter<'_>, shown: &Shown) -> fmt::Result {
    writeln!(f, "\nReset")?;
    match &shown.reset.method {
        None => writeln!(f, "  none of its own: the guest finds it as its last user left it")?,
        Some(method) => writeln!(f, "  {method}")?,
    }
    if !shown.reset.kernel.is_empty() {
        writeln!(f, "  the kernel knows: {}", shown.reset.kernel.join(", "))?;
    }
    if let Some(group) = &shown.group {
        writeln!(f, "\nIOMMU group {}", group.number)?;
        for member in &group.members {
            writeln!(f, "  {}  {}", member.address, member.driver.as_deref().unwrap_or("no driver"))?;
        }
    }
    if !shown.quirks.is_empty() {
        writeln!(f, "\nQuirks")?;
        for quirk in &shown.quirks {
            writeln!(f, "  {quirk}")?;
        }
    }
    Ok(())
}

fn differences(f: &mut Formatter<'_>, shown: &Shown) -> fmt::Result {
    let capabilities = || shown.capabilities.iter().filter(|c| c.differs);
    writeln!(f, "\n{:<34} {:<7} {:<7} why", "Capabilities that differ", "host", "guest")?;
    if capabilities().next().is_none() {
        writeln!(f, "  none")?;
    }
    for capability in capabilities() {
        match capability.physical_meaning == capability.guest_meaning && capability.guest.is_some() {
            true => capability_line(f, capability, "its registers, below")?,
            false => capability_row(f, capability)?,
        }
    }
    // What is gone as a whole needs no line for each of its registers.
    let is_hidden =
        |offset: u16| shown.capabilities.iter().any(|c| c.physical == Some(offset) && c.guest.is_none());
    let registers = || shown.registers.iter().filter(|r| r.differs && !r.capability.is_some_and(is_hidden));
    writeln!(f, "\n{:<38} {:<12} {:<12} {:<28} what", "Registers that differ", "host", "guest", "why")?;
    if registers().next().is_none() {
        writeln!(f, "  none")?;
    }
    for register in registers() {
        register_row(f, register, &register.reason)?;
    }
    Ok(())
}

fn capability_row(f: &mut Formatter<'_>, capability: &Capability) -> fmt::Result {
    let what = match capability.hidden_because {
        Some(why) => format!("hidden: {why}"),
        None if capability.physical.is_none() => "only to lead on to the next".to_owned(),
        None => change(&capability.physical_meaning, &capability.guest_meaning),
    };
    capability_line(f, capability, &what)
}

fn capability_line(f: &mut Formatter<'_>, capability: &Capability, what: &str) -> fmt::Result {
    let offset = |offset: Option<u16>| offset.map_or("-".to_owned(), |offset| format!("{offset:#x}"));
    let (physical, guest) = (offset(capability.physical), offset(capability.guest));
    line(f, &format!("  {:<32} {physical:<7} {guest:<7} {what}", capability.name))
}

fn register_row(f: &mut Formatter<'_>, register: &Register, access: &[Access]) -> fmt::Result {
    let name = format!("{:#05x} {}", register.offset, register.name.unwrap_or("(no name)"));
    let (physical, guest) = match register.size {
        0..=4 => (register.physical.clone(), register.guest.clone()),
        bytes => (format!("{bytes} bytes"), if register.differs { "other" } else { "the same" }.to_owned()),
    };
    let access: Vec<&str> = access.iter().map(|access| access.word()).collect();
    let what = match register.reason.as_slice() {
        // Of what is gone only what it was tells something.
        [Access::Hidden] if register.guest.chars().all(|digit| matches!(digit, '0' | 'x')) => {
            register.physical_meaning.clone().unwrap_or_default()
        }
        _ => change(&register.physical_meaning, &register.guest_meaning),
    };
    line(f, &format!("  {name:<36} {physical:<12} {guest:<12} {:<28} {what}", access.join(", ")))
}

fn change(physical: &Option<String>, guest: &Option<String>) -> String {
    match (physical, guest) {
        (Some(physical), Some(guest)) if physical != guest => format!("{physical} -> {guest}"),
        (Some(meaning), _) | (None, Some(meaning)) => meaning.clone(),
        (None, None) => String::new(),
    }
}

/// Without the blanks that fill up an empty last column.
fn line(f: &mut Formatter<'_>, text: &str) -> fmt::Result {
    writeln!(f, "{}", text.trim_end())
}

//! Why a function is not reserved or released.

use std::path::PathBuf;

use passthru::host::vfio::OpenError;
use passthru::pci::HostAddress;
use ppt_files::file_text::{ReadError, quoted};
use ppt_files::replace_file::WriteError;

use super::change::EditError;
use super::meaning::Place;
use super::uses::Use;
use crate::host::holders::Holder;
use crate::host::physical_path::PathError;

/// What stands in the way. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// A name that no function has.
    #[error(transparent)]
    Unknown(#[from] OpenError),
    /// A physical path at which there is nothing.
    #[error(transparent)]
    NoPath(#[from] PathError),
    /// The functions cannot be listed.
    #[error("cannot list the functions of this host: {0}")]
    Devices(std::io::Error),
    /// It leads to others.
    #[error("{address}: it is a bridge: what is behind it can be reserved, itself never")]
    Bridge {
        /// The function.
        address: HostAddress,
    },
    /// A part of the host.
    #[error(
        "{address}: its class ({class:06x}) is that of a part of the host, such as an ISA bridge; --force takes it all the same"
    )]
    Platform {
        /// The function.
        address: HostAddress,
        /// Its class code.
        class: u32,
    },
    /// The host needs it.
    #[error("{address}: {found}; --force takes it all the same")]
    Used {
        /// The function.
        address: HostAddress,
        /// For what.
        found: Use,
    },
    /// Nothing keeps its DMA in bounds.
    #[error(
        "{address}: it has no IOMMU group: turn VT-d or AMD-Vi on in the firmware, and on an Intel processor boot with \
         intel_iommu=on"
    )]
    NoGroup {
        /// The function.
        address: HostAddress,
    },
    /// It cannot be named in a file.
    #[error(
        "{address}: it is below no root bus, so that it has no physical path; --by-id names it by its ids"
    )]
    NoPhysicalPath {
        /// The function.
        address: HostAddress,
    },
    /// It would stand in the way.
    #[error(
        "{address}: {} of the same IOMMU group {} with {}: a guest can have no function of a group while the host uses \
         another; --group reserves {} as well",
        names(others), if others.len() == 1 { "is" } else { "are" }, drivers(others),
        if others.len() == 1 { "it" } else { "them" }
    )]
    Group {
        /// The function.
        address: HostAddress,
        /// The others, and who has them.
        others: Vec<(HostAddress, String)>,
    },
    /// It is in use by a guest.
    #[error("{address}: {holder} has it open; stop that first")]
    Held {
        /// The function.
        address: HostAddress,
        /// Who.
        holder: Holder,
    },
    /// One alias means several.
    #[error(
        "{address}: line {} of {} means {} too: {}; --by-id removes the line and releases all of them",
        place.line, file.display(), others.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "), quoted(&place.alias)
    )]
    Shared {
        /// The function.
        address: HostAddress,
        /// The file.
        file: PathBuf,
        /// The line.
        place: Place,
        /// What else it means.
        others: Vec<HostAddress>,
    },
    /// Ids are those of others as well.
    #[error(
        "{address}: {other} has the same ids and would be taken in the initramfs too, but {found}; do without --initramfs"
    )]
    SameIds {
        /// The function.
        address: HostAddress,
        /// The one that the host needs.
        other: HostAddress,
        /// For what.
        found: Use,
    },
    /// A file cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A file cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A file cannot be edited.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// Neither kind of initramfs is there.
    #[error("{}: there is neither initramfs-tools nor dracut; an initramfs of another kind has to be set up by hand", .0.display())]
    NoInitramfs(PathBuf),
}

fn names(others: &[(HostAddress, String)]) -> String {
    others.iter().map(|(address, _)| address.to_string()).collect::<Vec<_>>().join(", ")
}

fn drivers(others: &[(HostAddress, String)]) -> String {
    let mut drivers: Vec<&str> = others.iter().map(|(_, driver)| driver.as_str()).collect();
    drivers.dedup();
    drivers.join(", ")
}

//! Functions of a host with illumos' `ppt` driver.

use std::fmt;
use std::sync::Arc;

use passthru::host::ppt::sys::Sys;
use passthru::host::ppt::{OpenError, Vm};
use passthru::pci::bar::Bar;
use passthru::ports::Ports;

/// A host that has `/dev/pptN`. This program runs on Linux, which has not: another that links this library can bring one.
pub trait PptHost: fmt::Debug + Send + Sync {
    /// The BARs of the function behind a path, which is not taken by that.
    fn bars(&self, path: &str) -> Result<Vec<Bar>, OpenError>;

    /// The virtual machine that a guest's functions are given to; asked for once for each guest that has any. `ports` are
    /// the VMM's, for a host that reaches the guest through them.
    fn vm(&self, ports: &Ports) -> Result<Arc<PptVm>, OpenError>;
}

/// A virtual machine of such a host.
pub type PptVm = Vm<Arc<dyn Sys>>;

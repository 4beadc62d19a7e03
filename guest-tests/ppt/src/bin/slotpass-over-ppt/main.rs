//! slotpass, but that `/dev/pptN` are functions of this machine: those that `SLOTPASS_PPT` lists, by address and with commas
//! between. They reach the guest through `passthru`'s ppt host and the kernel of this crate, and otherwise nothing is
//! different. `SLOTPASS_PPT_TRACE` names a file to which each system call of that host is written.

mod host;
mod trace;

use std::process::ExitCode;
use std::sync::Arc;

use host::OverVfio;

fn main() -> ExitCode {
    let named = std::env::var("SLOTPASS_PPT").unwrap_or_default();
    match OverVfio::new(&named, std::env::var_os("SLOTPASS_PPT_TRACE")) {
        Ok(host) => vmm::cli::main(std::env::args_os(), Some(Arc::new(host))),
        Err(error) => {
            eprintln!("slotpass-over-ppt: {error}");
            ExitCode::FAILURE
        }
    }
}

//! VMs that have a name: descriptions that are kept, and processes of their own that run them. `vmm/VMS.md` documents it.
//!
//! [`description`] is what is kept of a VM, [`changes`] makes one of what a user asks for, [`store`] has all of them on disk.
//! [`process`] runs one, [`launch`] starts and [`stop`] ends that process. [`running`] knows whether there is one. By
//! [`start_pipe`] it says what the user is to know until its guest runs.

pub mod changes;
pub mod console_client;
pub mod console_server;
pub mod description;
pub mod device_states;
pub mod folders;
pub mod launch;
pub mod log_reader;
pub mod process;
pub mod rotating_file;
pub mod running;
pub mod slots;
pub mod start_pipe;
pub mod stop;
pub mod store;

pub use device_states::{DeviceState, DeviceStates, device_state};
pub use folders::Folders;

//! Doorbells, watches and VFIO files.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;

use kvm_bindings::{
    KVM_DEV_VFIO_FILE, KVM_DEV_VFIO_FILE_ADD, KVM_DEV_VFIO_FILE_DEL, kvm_create_device, kvm_device_attr,
    kvm_device_type_KVM_DEV_TYPE_VFIO,
};
use kvm_ioctls::{DeviceFd, IoEventAddress, NoDatamatch, VmFd};
use log::debug;
use parking_lot::Mutex;
use passthru::pci::Space;
use passthru::ports::{EventPort, PortError, PortOperation, WatchId};
use vmm_sys_util::eventfd::EventFd;

use super::interrupts::with_eventfd;
use crate::event_loop::Watches;

/// File descriptors that KVM or the event loop must know.
pub struct KvmEvents {
    vm: Arc<VmFd>,
    watches: Watches,
    /// KVM's VFIO device, made with the first file.
    vfio: Mutex<Option<DeviceFd>>,
}

impl KvmEvents {
    /// Nothing is registered.
    pub fn new(vm: Arc<VmFd>, watches: Watches) -> KvmEvents {
        KvmEvents { vm, watches, vfio: Mutex::default() }
    }

    fn set_attribute(
        device: &DeviceFd,
        attribute: u32,
        file: BorrowedFd<'_>,
    ) -> Result<(), kvm_ioctls::Error> {
        let fd = file.as_raw_fd();
        let attribute = kvm_device_attr {
            group: KVM_DEV_VFIO_FILE,
            attr: u64::from(attribute),
            addr: &raw const fd as u64,
            flags: 0,
        };
        device.set_device_attr(&attribute)
    }
}

/// `call` with the address and value in the forms that kvm-ioctls tells apart by type.
fn doorbell(
    space: Space,
    address: u64,
    len: u8,
    value: Option<u64>,
    event: &EventFd,
    vm: &VmFd,
    attach: bool,
) -> Result<(), kvm_ioctls::Error> {
    let address = match space {
        Space::Memory => IoEventAddress::Mmio(address),
        Space::Io => IoEventAddress::Pio(address),
    };
    macro_rules! call {
        ($value:expr) => {
            if attach {
                vm.register_ioevent(event, &address, $value)
            } else {
                vm.unregister_ioevent(event, &address, $value)
            }
        };
    }
    match (value, len) {
        (Some(value), 1) => call!(value as u8),
        (Some(value), 2) => call!(value as u16),
        (Some(value), 4) => call!(value as u32),
        (Some(value), 8) => call!(value),
        (None, 0) => call!(NoDatamatch),
        // kvm-ioctls takes the length from the value's type, and has none for a length without a value.
        _ => Err(kvm_ioctls::Error::new(libc::EINVAL)),
    }
}

impl EventPort for KvmEvents {
    fn attach_doorbell(
        &self,
        space: Space,
        address: u64,
        len: u8,
        value: Option<u64>,
        event: BorrowedFd<'_>,
    ) -> Result<(), PortError> {
        with_eventfd(event, |event| doorbell(space, address, len, value, event, &self.vm, true))
            .map_err(PortOperation::Doorbell { space, address, len }.failed())
    }

    fn detach_doorbell(
        &self,
        space: Space,
        address: u64,
        len: u8,
        value: Option<u64>,
        event: BorrowedFd<'_>,
    ) -> Result<(), PortError> {
        with_eventfd(event, |event| doorbell(space, address, len, value, event, &self.vm, false))
            .map_err(PortOperation::Doorbell { space, address, len }.failed())
    }

    fn watch(&self, fd: BorrowedFd<'_>, ready: Arc<dyn Fn() + Send + Sync>) -> Result<WatchId, PortError> {
        self.watches.add(fd, ready).map_err(PortOperation::Watch.failed())
    }

    fn unwatch(&self, watch: WatchId) {
        self.watches.remove(watch);
    }

    fn register_file(&self, file: BorrowedFd<'_>) -> Result<(), PortError> {
        let mut vfio = self.vfio.lock();
        let device = match &mut *vfio {
            Some(device) => device,
            none => {
                let mut request =
                    kvm_create_device { type_: kvm_device_type_KVM_DEV_TYPE_VFIO, fd: 0, flags: 0 };
                let device =
                    self.vm.create_device(&mut request).map_err(PortOperation::RegisterFile.failed())?;
                none.insert(device)
            }
        };
        Self::set_attribute(device, KVM_DEV_VFIO_FILE_ADD, file).map_err(PortOperation::RegisterFile.failed())
    }

    fn unregister_file(&self, file: BorrowedFd<'_>) {
        if let Some(device) = &*self.vfio.lock()
            && let Err(error) = Self::set_attribute(device, KVM_DEV_VFIO_FILE_DEL, file)
        {
            debug!("KVM_DEV_VFIO_FILE_DEL: {}", io::Error::from(error));
        }
    }
}

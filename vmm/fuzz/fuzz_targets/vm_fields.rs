//! VMs by name: what `create` and `update` are given, and what is kept.
#![no_main]

use libfuzzer_sys::fuzz_target;
use passthru::pci::HostAddress;
use vmm::vms::changes;
use vmm::vms::description::{Fields, VmDescription};
use vmm::vms::running::VmState;
use vmm::vms::slots::Functions;

/// A host whose functions are at the addresses that texts begin with.
struct AnyHost;

impl Functions for AnyHost {
    fn find(&self, path: &str) -> Option<HostAddress> {
        path.get(..12)?.parse().ok()
    }
}

fuzz_target!(|texts: (&str, &str)| {
    let (create, update) = texts;
    let _ = VmDescription::parse(create);
    let Ok(fields) = serde_json::from_str::<Fields>(create) else { return };
    let Ok(vm) = changes::create(fields, &AnyHost) else { return };
    let kept = vm.to_json().to_string();
    let read = VmDescription::parse(&kept).expect("what is kept can be read");
    assert_eq!(read.to_json(), vm.to_json());
    let Ok(change) = serde_json::from_str::<Fields>(update) else { return };
    if let Ok(changed) = changes::update(&vm, change, VmState::Stopped { crashed: false }, &AnyHost) {
        assert_eq!(changed.uuid, vm.uuid);
        VmDescription::parse(&changed.to_json().to_string()).expect("what is kept can be read");
    }
});

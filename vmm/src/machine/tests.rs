use std::io::Write;

use super::*;
use crate::control_socket::protocol::Command;
use crate::memory::Backing;
use crate::port_options::PortOptions;
use crate::vcpu_options::VcpuOptions;

fn description(slots: &[&str]) -> Description {
    Description {
        image: Image::Embedded { name: "demo", bytes: guest::DEMO },
        command_line: String::new(),
        memory: "64M".parse().unwrap(),
        backing: Backing::Transparent,
        cpus: 2,
        vcpu_options: VcpuOptions::default(),
        assignments: slots.iter().map(|slot| slot.parse().unwrap()).collect(),
        ports: PortOptions { empty: vec![2], ..PortOptions::default() },
        require_reset: false,
        ppt: None,
        iommufd: UseIommufd::Auto,
        no_reboot: true,
        events: EventPolicy::default(),
        control: None,
        page_times: false,
        console: None,
        records: None,
        running: None,
    }
}

/// Machines need KVM; without it a test says that it did nothing.
fn has_kvm(test: &str) -> bool {
    let kvm = Vm::new();
    if let Err(error) = &kvm {
        let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {error}");
    }
    kvm.is_ok()
}

#[test]
fn nothing_of_a_machine_is_left_when_it_is_dropped() {
    if !has_kvm("nothing_of_a_machine_is_left_when_it_is_dropped") {
        return;
    }
    let mut machine = Machine::new(&description(&["0:8:0=sim:demo", "1:0:0=sim:demo,port"])).unwrap();
    machine.boot().unwrap();
    let bus = Arc::downgrade(&machine.bus);
    let memory = Arc::downgrade(&machine.memory);
    let interrupts = Arc::downgrade(&machine.interrupts);
    let hosts: Vec<_> = machine.functions.lock().iter().map(|f| Arc::downgrade(f.host())).collect();
    assert_eq!((hosts.len(), memory.strong_count() > 1), (2, true));
    drop(machine);
    assert_eq!(hosts.iter().map(|host| host.strong_count()).collect::<Vec<_>>(), [0, 0]);
    assert_eq!([bus.strong_count(), memory.strong_count(), interrupts.strong_count()], [0; 3]);
}

#[test]
fn what_is_plugged_in_has_addresses_after_a_reset_and_is_closed_when_it_is_taken() {
    if !has_kvm("what_is_plugged_in_has_addresses_after_a_reset_and_is_closed_when_it_is_taken") {
        return;
    }
    let mut machine = Machine::new(&description(&["1:0:0=sim:demo,port"])).unwrap();
    machine.boot().unwrap();
    let bar_0 = |machine: &Machine| {
        let mut data = [0; 4];
        let functions = machine.functions.lock();
        let function = functions.iter().find(|function| function.slot().bus() == 2).unwrap();
        function.config().config_read(0x10, &mut data);
        u32::from_le_bytes(data) & !0xf
    };
    let functions = vec!["2:0:0=sim:demo".parse().unwrap()];
    machine.hotplug.ask(Command::Add { functions }).unwrap();
    assert_eq!(bar_0(&machine), 0);
    machine.reset().unwrap();
    machine.boot().unwrap();
    let window = machine.map.plan.ports()[1].1.memory.clone().unwrap();
    assert!(window.contains(&u64::from(bar_0(&machine))), "{:#x}", bar_0(&machine));

    let host = Arc::downgrade(machine.functions.lock()[1].host());
    let slots = vec!["2:0:0".parse().unwrap()];
    machine.hotplug.ask(Command::Remove { slots, force: true, timeout: Duration::ZERO }).unwrap();
    assert_eq!((host.strong_count(), machine.functions.lock().len()), (0, 1));
}

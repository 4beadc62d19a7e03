//! `slotpass reserve`, `release` and `apply`: functions go from their drivers to vfio-pci and back.

pub mod apply;
pub mod both_ways;
pub mod group;
pub mod killed;
pub mod refusals;
pub mod undone;

use guest_tests::{Bdf, Failure, GuestReport, GuestRun, Machine, expect};

/// Where the aliases are that count at every boot, and until the machine is switched off.
pub const AT_BOOT: &str = "/etc/ppt_aliases";
pub const UNTIL_OFF: &str = "/run/slotpass/ppt_aliases";

pub fn slotpass(machine: &mut Machine<'_>, name: &str, arguments: &[&str]) -> Result<GuestReport, Failure> {
    machine.run(name, &GuestRun::slotpass(arguments))
}

/// The same, which has to succeed; what it printed.
pub fn done(machine: &mut Machine<'_>, name: &str, arguments: &[&str]) -> Result<String, Failure> {
    let report = slotpass(machine, name, arguments)?;
    report.expect_code(0)?;
    Ok(report.serial().to_owned())
}

/// Driver and override of every function of the machine, and the alias files.
pub fn state(machine: &mut Machine<'_>) -> Result<String, Failure> {
    machine.command(
        "look at all functions",
        &format!(
            "cd /sys/bus/pci/devices\n\
             for function in *; do\n\
               driver=$(readlink $function/driver || true)\n\
               echo $function ${{driver##*/}} $(<$function/driver_override)\n\
             done\n\
             for file in {AT_BOOT} {UNTIL_OFF}; do if [ -e $file ]; then echo $file; cat $file; fi; done\n"
        ),
    )
}

pub fn driver(machine: &mut Machine<'_>, function: &Bdf) -> Result<String, Failure> {
    let script = format!("basename $(readlink /sys/bus/pci/devices/{function}/driver || echo none)");
    Ok(machine.command("who has it", &script)?.trim().to_owned())
}

pub fn expect_drivers(machine: &mut Machine<'_>, expected: &[(&Bdf, &str)]) -> Result<(), Failure> {
    for (function, expected) in expected {
        let found = driver(machine, function)?;
        expect!(found == *expected, "{function} is with {found}, not with {expected}");
    }
    Ok(())
}

/// The physical path of a function 0 on bus 0, from its subsystem's ids.
pub fn path_of(machine: &mut Machine<'_>, function: &Bdf) -> Result<String, Failure> {
    let script = format!(
        "cd /sys/bus/pci/devices/{function}\n\
         device={function} device=${{device#0000:00:}} device=${{device%.0}}\n\
         printf '/pci@0,0/pci%x,%x@%x' $(<subsystem_vendor) $(<subsystem_device) 0x$device\n"
    );
    Ok(machine.command("its path", &script)?.trim().to_owned())
}

//! What happens to a function of the machine from outside: it is wanted back, unplugged, plugged in, or reports an error.

use std::time::Duration;

use crate::{Bdf, Failure, Machine, Port};

impl Machine<'_> {
    /// Takes a function away from vfio-pci without waiting for it: that takes as long as somebody has it open.
    pub fn start_unbinding(&mut self, function: &Bdf) -> Result<(), Failure> {
        self.command(
            "unbind from vfio-pci",
            &format!(
                "exec 3>&-\n\
                 rm -f /run/unbound-{function}\n\
                 (echo {function} >/sys/bus/pci/drivers/vfio-pci/unbind; : >/run/unbound-{function}) >/dev/null 2>&1 &\n"
            ),
        )?;
        Ok(())
    }

    /// Waits until a function that [`Self::start_unbinding`] was called for is free. Its link in the driver's folder says
    /// nothing of that: it goes before the driver is asked to let go.
    pub fn await_unbound(&mut self, function: &Bdf, seconds: u32) -> Result<(), Failure> {
        self.command(
            "wait until it is unbound",
            &format!(
                "for ((i = 0; i < {tenths}; i++)); do\n\
                   [ ! -e /run/unbound-{function} ] || exit 0\n\
                   sleep 0.1\n\
                 done\n\
                 echo '{function} is still bound to vfio-pci' >&2\n\
                 exit 1\n",
                tenths = seconds * 10
            ),
        )?;
        Ok(())
    }

    /// Asks the machine to let go of the function behind a port, as pressing the port's attention button does.
    /// [`Self::await_unplugged`] waits until it is gone.
    pub fn start_unplugging(&mut self, function: &Bdf) -> Result<(), Failure> {
        self.scenario.step("unplug")?;
        self.monitor.human(&format!("device_del {}", function.qemu_id()))
    }

    pub fn await_unplugged(&mut self, function: &Bdf, limit: Duration) -> Result<(), Failure> {
        self.scenario.step("wait until it is unplugged")?;
        self.monitor.await_event("DEVICE_DELETED", &function.qemu_id(), limit)
    }

    /// Plugs a function in again that was unplugged.
    pub fn plug_in(&mut self, function: &Bdf) -> Result<(), Failure> {
        self.scenario.step("plug in")?;
        let device =
            self.functions.iter().find(|(bdf, _)| bdf == function).map(|(_, device)| device.as_str());
        self.monitor.human(&format!("device_add {}", device.unwrap_or_default()))
    }

    /// The root port reports an error by Advanced Error Reporting, and the machine's kernel tells the drivers of all that
    /// is behind it. `error` is QEMU's name for it; uncorrectable are `COMP_TIME`, `POISON_TLP` and, fatal, `MALF_TLP`.
    ///
    /// Not one of the functions reports it: QEMU's have a Device Control register that enables none.
    pub fn inject_error(&mut self, port: &Port, error: &str) -> Result<(), Failure> {
        // Firmware lets the port pass error messages on (SERR# Enable of the Bridge Control register, PCIe 6.0
        // §7.5.1.3.13); QEMU's does not.
        self.command(
            "let the port pass errors on",
            &format!(
                "config=/sys/bus/pci/devices/{}/config\n\
                 control=$(od -An -tu1 -j62 -N1 $config)\n\
                 printf \"\\\\x$(printf %x $((control | 2)))\" | dd of=$config bs=1 seek=62 conv=notrunc status=none\n",
                port.bdf()
            ),
        )?;
        self.scenario.step("inject an error")?;
        self.monitor.human(&format!("pcie_aer_inject_error {} {error}", port.qemu_id()))
    }
}

//! Which driver of the machine holds a function.

use crate::{Bdf, Failure, Machine, expect};

impl Machine<'_> {
    /// Binds the functions to vfio-pci, away from whatever driver has them.
    pub fn give_to_vfio(&mut self, functions: &[&Bdf]) -> Result<(), Failure> {
        let mut script = String::new();
        for bdf in functions {
            script.push_str(&format!(
                "cd /sys/bus/pci/devices/{bdf}\n\
                 echo vfio-pci >driver_override\n\
                 if [ -e driver ]; then echo {bdf} >driver/unbind; fi\n\
                 echo {bdf} >/sys/bus/pci/drivers_probe\n\
                 [[ $(readlink driver) == */vfio-pci ]]\n"
            ));
        }
        self.command("bind to vfio-pci", &script)?;
        Ok(())
    }

    /// Binds functions (each with the driver expected to take it) back to the machine's own drivers.
    /// The drivers start them from scratch, so a function left in a bad state shows here.
    pub fn give_to_drivers(&mut self, functions: &[(&Bdf, &str)]) -> Result<(), Failure> {
        let mut script = String::new();
        for (bdf, driver) in functions {
            script.push_str(&format!(
                "while read -r module; do insmod /run/modules/$module 2>/dev/null || true; done </run/modules/{driver}\n\
                 cd /sys/bus/pci/devices/{bdf}\n\
                 echo >driver_override\n\
                 if [ -e driver ]; then echo {bdf} >driver/unbind; fi\n\
                 echo {bdf} >/sys/bus/pci/drivers_probe\n\
                 [[ $(readlink driver) == */{driver} ]]\n"
            ));
        }
        self.command("bind to the machine's own drivers", &script)?;
        Ok(())
    }

    /// Lets a NIC that a driver of the machine has make so many virtual functions, which no driver gets.
    pub fn virtual_functions(&mut self, physical: &Bdf, count: u8) -> Result<Vec<Bdf>, Failure> {
        let out = self.command(
            "make virtual functions",
            &format!(
                "cd /sys/bus/pci/devices/{physical}\n\
                 echo 0 >sriov_drivers_autoprobe\n\
                 echo {count} >sriov_numvfs\n\
                 # The driver answers its virtual functions only while its own interface is up.\n\
                 for interface in net/*; do busybox ip link set ${{interface#net/}} up; done\n\
                 for function in virtfn*; do basename $(readlink $function); done\n"
            ),
        )?;
        let functions: Vec<Bdf> = out.lines().map(Bdf::found).collect();
        expect!(
            functions.len() == usize::from(count),
            "of {count} virtual functions there are {functions:?}"
        );
        Ok(functions)
    }

    /// SHA-256 of the expansion ROM of a function that nobody uses, as the machine reads it.
    pub fn sha256_of_rom(&mut self, function: &Bdf) -> Result<String, Failure> {
        let out = self.command(
            "read the ROM in the machine",
            &format!(
                "cd /sys/bus/pci/devices/{function}\n\
                 echo 1 >enable; echo 1 >rom\n\
                 sha256sum <rom\n\
                 echo 0 >rom; echo 0 >enable\n"
            ),
        )?;
        Ok(out.split_whitespace().next().unwrap_or_default().to_owned())
    }

    /// SHA-256 of the first `mib` MiB of the drive at `bdf`, read by the machine's own nvme driver.
    pub fn sha256_through_nvme_driver(&mut self, bdf: &Bdf, mib: u32) -> Result<String, Failure> {
        let out = self.command(
            "read the drive in the machine",
            &format!(
                "for i in {{1..100}}; do node=$(ls -d /sys/bus/pci/devices/{bdf}/nvme/nvme*/nvme*n1 2>/dev/null) && break; sleep 0.1; done\n\
                 dd if=/dev/${{node##*/}} bs=1M count={mib} iflag=direct status=none | sha256sum\n"
            ),
        )?;
        Ok(out.split_whitespace().next().unwrap_or_default().to_owned())
    }

    /// Fails if a VFIO group, container or KVM VM is still open anywhere in the machine, or memory still locked.
    pub fn expect_nothing_left(&mut self) -> Result<(), Failure> {
        let out = self.command(
            "look for leftovers",
            "find /proc/[0-9]*/fd '(' -lname '/dev/vfio/*' -o -lname /dev/kvm -o -lname '*kvm-v*' -o -lname '*vfio*' ')' \
               -printf '%p -> %l\\n' 2>/dev/null || true\n\
             awk '/^VmPin|^VmLck/ && $2 > 0 {print FILENAME, $0}' /proc/[0-9]*/status 2>/dev/null || true\n",
        )?;
        expect!(out.trim().is_empty(), "left behind in the machine: {}", out.trim());
        Ok(())
    }
}

//! Everything that somebody does to get two functions into a VM, from the first file to the last line of its log, and the
//! undoing of all of it.

use guest_tests::{Bdf, Failure, Iommu, LINUX_WORDS, Machine, Plan, Scenario, expect};

/// The machine's own /var/lib cannot be written.
const STATE: &str = "/run/vms";

/// A script in which `slotpass` is the program under test; it has to succeed.
fn shell(machine: &mut Machine<'_>, name: &str, script: &str) -> Result<String, Failure> {
    let program = machine.scenario().provisioned().slotpass().display().to_string();
    let functions = format!("export SLOTPASS_STATE_DIR={STATE}\nslotpass() {{ '{program}' \"$@\"; }}\n");
    machine.command(name, &format!("{functions}{script}"))
}

/// All that the host side changes: drivers, overrides, and files, but for the lock of those who change them.
fn everything(machine: &mut Machine<'_>) -> Result<String, Failure> {
    machine.command(
        "look at everything",
        "cd /sys/bus/pci/devices\n\
         for f in *; do echo $f $(readlink $f/driver || true) $(<$f/driver_override); done\n\
         cd /; find /etc -newer /run/begin -type f | sort; find /run/slotpass /run/vms -type f ! -name reserving 2>/dev/null | sort || true\n",
    )
}

/// Vendor and device as pptadm writes them.
const NVME_IDS: &str = "1b36:10";
const NIC_IDS: &str = "8086:10d3";

/// What SmartOS' users do by hand for `0:8:0` and `0:8:1`, each step with one command.
pub fn from_files_to_log(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let image = scenario.blank_image("nvme.img", 64)?;
    let mut plan = Plan::new(iommu);
    let nvme = plan.nvme("4.0", &image);
    let nic = plan.e1000e("5.0");
    let mut machine = Machine::boot(&plan, scenario)?;
    machine.own_etc()?;
    machine.give_to_drivers(&[(&nvme, "nvme"), (&nic, "e1000e")])?;
    machine.command("the beginning", "sleep 1; touch /run/begin")?;
    let before = everything(&mut machine)?;

    // Which functions could be passed through, and what they are called.
    shell(
        &mut machine,
        "ppt_matches",
        "printf '# what guests may have\\npciex1b36,10\\npci8086,10d3\\n' >/etc/ppt_matches",
    )?;
    let listed = shell(&mut machine, "list what could be", "slotpass list -a -o dev,vendor,device,path")?;
    expect_columns(&listed, false)?;
    let nvme_path = path_of(&listed, "1b36")?;
    let nic_path = path_of(&listed, "8086")?;

    // Which are, from the next boot on; and that boot.
    let aliases = format!("ppt \"{nvme_path}\"\nppt \"{nic_path}\"\n");
    shell(&mut machine, "ppt_aliases", &format!("printf '%s' '{aliases}' >/etc/ppt_aliases"))?;
    shell(&mut machine, "apply", "slotpass apply")?;
    let listed = shell(&mut machine, "list what is reserved", "slotpass list -a -o dev,vendor,device,path")?;
    expect_columns(&listed, true)?;
    let parsable = shell(&mut machine, "the same for programs", "slotpass list -p -o vendor,device,path")?;
    for (ids, path) in [(NVME_IDS, &nvme_path), (NIC_IDS, &nic_path)] {
        let row = format!("{ids}:{}", path.replace(':', "\\:"));
        expect!(parsable.lines().any(|line| line == row), "no {row:?} in:\n{parsable}");
    }

    // A VM without them, then with them, as vmadm has it.
    let provisioned = machine.scenario().provisioned();
    let (kernel, initrd) =
        (provisioned.vmlinux().display().to_string(), provisioned.guest_initramfs().display().to_string());
    let vm = format!(
        "{{ \"alias\": \"web\", \"kernel\": \"{kernel}\", \"initrd\": \"{initrd}\",\n\
           \"cmdline\": \"{LINUX_WORDS} check=pci,nvme,nic,poweroff\" }}"
    );
    let uuid = shell(&mut machine, "create", &format!("slotpass create <<'EOF'\n{vm}\nEOF\n"))?;
    let uuid = uuid.trim().to_owned();
    let update = format!(
        "{{ \"add_pci_devices\": [\n\
           {{ \"path\": \"/devices{nvme_path}\", \"pci_slot\": \"0:8:0\" }},\n\
           {{ \"path\": \"/devices{nic_path}\", \"pci_slot\": \"0:8:1\" }} ] }}"
    );
    shell(&mut machine, "update", &format!("slotpass update {uuid} <<'EOF'\n{update}\nEOF\n"))?;
    let shown = shell(&mut machine, "get", &format!("slotpass get {uuid}"))?;
    for part in [&*format!("/devices{nic_path}"), "0:8:1", "passthru", "stopped"] {
        expect!(shown.contains(part), "no {part:?} in:\n{shown}");
    }
    shell(&mut machine, "doctor", "slotpass doctor web")?;

    shell(&mut machine, "start", "slotpass start web")?;
    let script = "for i in {1..1100}; do [ $(slotpass vms -p -o state) = running ] || break; sleep 0.1; done\n\
                  slotpass vms -p -o state; slotpass log --console web";
    let program = machine.scenario().provisioned().slotpass().display().to_string();
    let output = machine.attempt(
        "until the guest ends",
        &format!("export SLOTPASS_STATE_DIR={STATE}\nslotpass() {{ '{program}' \"$@\"; }}\n{script}"),
        200,
    )?;
    let said = output.out;
    for part in ["stopped", "check pci ok", "check nvme ok", "check nic ok"] {
        expect!(said.contains(part), "no {part:?} in:\n{said}");
    }
    for slot in ["0000:00:08.0", "0000:00:08.1"] {
        expect!(said.contains(slot), "the guest does not say what is at {slot}:\n{said}");
    }
    let log = shell(&mut machine, "log", "slotpass log web")?;
    for part in ["0:8:0", "0:8:1", &nvme_path, &nic_path, "the guest switched itself off"] {
        expect!(log.contains(part), "no {part:?} in the log:\n{log}");
    }
    machine.expect_nothing_left()?;

    // The undoing.
    let removal =
        format!("{{ \"remove_pci_devices\": [ \"/devices{nvme_path}\", \"/devices{nic_path}\" ] }}");
    shell(&mut machine, "remove", &format!("slotpass update web <<'EOF'\n{removal}\nEOF\n"))?;
    shell(&mut machine, "delete", "slotpass delete web")?;
    shell(&mut machine, "release", &format!("slotpass release {nvme_path} /devices{nic_path}"))?;
    shell(
        &mut machine,
        "no files",
        "rm /etc/ppt_matches; [ ! -s /etc/ppt_aliases ]; rm -f /etc/ppt_aliases",
    )?;
    let after = everything(&mut machine)?;
    expect!(after == before, "before:\n{before}\nafter:\n{after}");
    expect_drive_works(&mut machine, &nvme, &image.sha256_of_first(64)?)?;
    machine.power_off()
}

/// pptadm's default columns, the two functions in them, with a node each when they are bound.
fn expect_columns(listed: &str, bound: bool) -> Result<(), Failure> {
    let mut lines = listed.lines();
    expect!(lines.next() == Some("DEV        VENDOR DEVICE PATH"), "the heading:\n{listed}");
    let rows: Vec<Vec<&str>> = lines.map(|line| line.split_whitespace().collect()).collect();
    expect!(rows.len() == 2, "two functions:\n{listed}");
    for row in rows {
        let [dev, _, _, path] = row.as_slice() else {
            return Err(Failure::NotAsExpected(format!("four columns:\n{listed}")));
        };
        expect!(dev.starts_with("/dev/vfio/") == bound && (bound || *dev == "--"), "DEV:\n{listed}");
        expect!(path.starts_with("/pci@0,0/pci"), "PATH:\n{listed}");
    }
    Ok(())
}

/// The path of the function with this vendor id.
fn path_of(listed: &str, vendor: &str) -> Result<String, Failure> {
    let rows = listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let found =
        rows.filter(|row| row.get(1) == Some(&vendor)).find_map(|row| row.get(3).map(|p| (*p).to_owned()));
    found.ok_or_else(|| Failure::NotAsExpected(format!("no function of {vendor} in:\n{listed}")))
}

fn expect_drive_works(machine: &mut Machine<'_>, nvme: &Bdf, expected: &str) -> Result<(), Failure> {
    let read = machine.sha256_through_nvme_driver(nvme, 64)?;
    expect!(read == expected, "the machine's own driver reads other data than the guest wrote");
    Ok(())
}

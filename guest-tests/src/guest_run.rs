use std::time::Duration;

use crate::{Bdf, Failure, Machine, expect};

/// The program that runs the guests of a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vmm {
    Slotpass,
    /// The machine's own QEMU with its vfio-pci: shows whether a failure is ours or the test machine's.
    Qemu,
}

/// Kernel command line words of every Linux guest: the console, and what saves emulated time.
///
/// A guest that uses the TSC deadline timer sometimes stalls under QEMU's processor emulation.
const LINUX_WORDS: &str = "console=ttyS0 panic=-1 quiet lapic=notscdeadline mitigations=off nokaslr rodata=off \
     cryptomgr.notests no_timer_check \
     initcall_blacklist=bpf_tcp_ca_kfunc_init,bpf_dummy_struct_ops_init,jent_mod_init,load_system_certificate_list";

/// One run of the VMM under test: a guest, its devices, and the VMM's options.
#[derive(Clone, Debug)]
pub struct GuestRun {
    arguments: Vec<String>,
    before: String,
    wrapper: String,
    limit: Duration,
}

impl GuestRun {
    /// slotpass with exactly these arguments.
    pub fn slotpass(arguments: &[&str]) -> Self {
        Self {
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
            before: String::new(),
            wrapper: String::new(),
            limit: Duration::from_secs(150),
        }
    }

    /// The distribution's kernel as packaged, with the initramfs whose /init carries out `words` (`check=nvme,poweroff`).
    pub fn linux(machine: &Machine<'_>, words: &str) -> Self {
        let kernel = machine.scenario().provisioned().bzimage();
        Self::linux_kernel(machine, &kernel.display().to_string(), words)
    }

    /// The same kernel as an ELF file, entered through PVH: boots faster.
    pub fn linux_elf(machine: &Machine<'_>, words: &str) -> Self {
        let kernel = machine.scenario().provisioned().vmlinux();
        Self::linux_kernel(machine, &kernel.display().to_string(), words)
    }

    fn linux_kernel(machine: &Machine<'_>, kernel: &str, words: &str) -> Self {
        let initramfs = machine.scenario().provisioned().guest_initramfs();
        Self::slotpass(&["run", "--kernel", kernel])
            .option("--initrd", &initramfs.display().to_string())
            .option("--cmdline", &format!("{LINUX_WORDS} {words}"))
    }

    /// A bare-metal guest from package `guest`: `kernel` is its path in the machine.
    pub fn bare_metal(kernel: &str, words: &str) -> Self {
        Self::slotpass(&["run", "--kernel", kernel]).option("--cmdline", words)
    }

    /// `slot` as the command line takes it, `0:8:0`.
    pub fn slot(self, slot: &str, function: &Bdf) -> Self {
        self.option("--slot", &format!("{slot}={function}"))
    }

    pub fn option(mut self, name: &str, value: &str) -> Self {
        self.arguments.extend([name.to_owned(), value.to_owned()]);
        self
    }

    pub fn flag(mut self, name: &str) -> Self {
        self.arguments.push(name.to_owned());
        self
    }

    /// Runs a line of bash first, in the same shell.
    pub fn after(mut self, script: &str) -> Self {
        self.before.push_str(script);
        self.before.push('\n');
        self
    }

    /// Starts the VMM through another program: `setpriv --reuid 1000`.
    pub fn through(mut self, wrapper: &str) -> Self {
        wrapper.clone_into(&mut self.wrapper);
        self
    }

    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    fn command_line(&self, machine: &Machine<'_>) -> Result<String, Failure> {
        let words = match machine.scenario().vmm() {
            Vmm::Slotpass => {
                let program = machine.scenario().provisioned().slotpass().display().to_string();
                [vec![program], self.arguments.clone()].concat()
            }
            Vmm::Qemu => self.qemu_words()?,
        };
        let quoted: Vec<String> = words.iter().map(|word| quote(word)).collect();
        Ok(format!("{} {}", self.wrapper, quoted.join(" ")).trim_start().to_owned())
    }

    fn qemu_words(&self) -> Result<Vec<String>, Failure> {
        let mut words: Vec<String> =
            "qemu-system-x86_64 -accel kvm -cpu host,-tsc-deadline -machine q35,sata=off,smbus=off \
             -m 512M -nodefaults -display none -serial stdio -device isa-debug-exit,iobase=0xf4"
                .split_whitespace()
                .map(str::to_owned)
                .collect();
        let mut arguments = self.arguments.iter().skip(1);
        while let Some(name) = arguments.next() {
            if name == "--no-reboot" {
                words.push("-no-reboot".to_owned());
                continue;
            }
            let value = arguments.next().cloned().unwrap_or_default();
            let option = match name.as_str() {
                "--kernel" => "-kernel",
                "--initrd" => "-initrd",
                "--cmdline" => "-append",
                "--memory" => "-m",
                "--cpus" => "-smp",
                "--slot" => {
                    let device = qemu_vfio_device(&value).ok_or_else(|| {
                        Failure::NotAsExpected(format!("QEMU cannot be given the slot {value}"))
                    })?;
                    words.extend(["-device".to_owned(), device]);
                    continue;
                }
                other => return Err(Failure::NotAsExpected(format!("no counterpart of {other} in QEMU"))),
            };
            words.extend([option.to_owned(), value]);
        }
        Ok(words)
    }
}

/// `0:8:1=0000:00:05.0` as QEMU takes it; only bus 0 has such slots there.
fn qemu_vfio_device(slot: &str) -> Option<String> {
    let (place, function) = slot.split_once('=')?;
    let (device, number) = place.strip_prefix("0:")?.split_once(':')?;
    let device: u8 = device.parse().ok()?;
    let multifunction = if number == "0" { ",multifunction=on" } else { "" };
    Some(format!("vfio-pci,host={function},addr={device:x}.{number}{multifunction}"))
}

fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

impl Machine<'_> {
    /// Runs the VMM until it ends.
    pub fn run(&mut self, name: &str, run: &GuestRun) -> Result<GuestReport, Failure> {
        let command_line = run.command_line(self)?;
        let script = format!("{}exec {command_line}\n", run.before);
        let output = self.attempt(name, &script, self.seconds_for(run))?;
        Ok(GuestReport {
            name: name.to_owned(),
            code: output.code,
            serial: output.out.replace('\r', ""),
            messages: output.err,
        })
    }

    fn seconds_for(&self, run: &GuestRun) -> u32 {
        let limit = run.limit * self.scenario().provisioned().patience();
        u32::try_from(limit.as_secs()).unwrap_or(u32::MAX)
    }

    /// Starts the VMM and returns as soon as the guest's serial output holds a line with `line` in it.
    pub fn start_until(&mut self, name: &str, run: &GuestRun, line: &str) -> Result<RunningGuest, Failure> {
        let command_line = run.command_line(self)?;
        let script = format!(
            "{before}exec 3>&-\n\
             {command_line} >/run/running.serial 2>/run/running.messages &\n\
             pid=$!\n\
             for ((i = 0; i < {tenths}; i++)); do\n\
               if grep -q {line} /run/running.serial; then echo $pid; exit 0; fi\n\
               if [ ! -e /proc/$pid ]; then break; fi\n\
               sleep 0.1\n\
             done\n\
             cat /run/running.serial /run/running.messages >&2\n\
             kill -9 $pid\n\
             exit 1\n",
            before = run.before,
            tenths = self.seconds_for(run) * 10,
            line = quote(line),
        );
        let output = self.attempt(name, &script, self.seconds_for(run))?;
        let pid = output.out.trim().parse().ok();
        match pid {
            Some(pid) if output.code == 0 => Ok(RunningGuest { pid }),
            _ => Err(Failure::NotAsExpected(format!("{name}: the guest never printed {line:?}"))),
        }
    }
}

/// A VMM that was started with [`Machine::start_until`].
#[derive(Clone, Copy, Debug)]
pub struct RunningGuest {
    pub pid: u32,
}

/// What a run of the VMM left behind.
#[derive(Clone, Debug)]
pub struct GuestReport {
    name: String,
    code: i32,
    serial: String,
    messages: String,
}

impl GuestReport {
    pub fn code(&self) -> i32 {
        self.code
    }

    /// The guest's serial output.
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// What the VMM itself said, on standard error.
    pub fn messages(&self) -> &str {
        &self.messages
    }

    pub fn expect_code(&self, code: i32) -> Result<(), Failure> {
        expect!(
            self.code == code,
            "{}: exit code {} instead of {code}; it said: {}",
            self.name,
            self.code,
            self.messages.lines().last().unwrap_or("nothing")
        );
        Ok(())
    }

    pub fn expect_serial_line(&self, line: &str) -> Result<(), Failure> {
        expect!(
            self.serial.lines().any(|l| l.trim() == line),
            "{}: no line {line:?} from the guest",
            self.name
        );
        Ok(())
    }

    pub fn expect_serial_start(&self, start: &str) -> Result<&str, Failure> {
        self.serial.lines().map(str::trim).find(|line| line.starts_with(start)).ok_or_else(|| {
            Failure::NotAsExpected(format!("{}: no line {start:?}… from the guest", self.name))
        })
    }

    /// All of these words are in what the VMM said.
    pub fn expect_message(&self, words: &[&str]) -> Result<(), Failure> {
        for word in words {
            expect!(
                self.messages.contains(word),
                "{}: {word:?} is not in what the VMM said: {}",
                self.name,
                self.messages.trim()
            );
        }
        Ok(())
    }

    /// Refused: exit code 1, nothing from a guest, and one message of one line with all of these words in it. A command
    /// line that cannot be parsed may be followed by a hint at the usage.
    pub fn expect_refusal(&self, words: &[&str]) -> Result<(), Failure> {
        self.expect_code(1)?;
        expect!(self.serial.is_empty(), "{}: the guest was started: {}", self.name, self.serial.trim());
        let lines: Vec<&str> = self
            .messages
            .lines()
            .filter(|line| !line.trim().is_empty())
            .filter(|line| !["Usage:", "For more information"].iter().any(|hint| line.starts_with(hint)))
            .collect();
        expect!(lines.len() == 1, "{}: {} lines instead of one message: {:?}", self.name, lines.len(), lines);
        self.expect_message(words)
    }

    /// The result line of a check in the Linux guest's /init, which must have passed.
    pub fn check(&self, name: &str) -> Result<Check, Failure> {
        let line = self.expect_serial_start(&format!("check {name} "))?;
        let words: Vec<String> = line.split_whitespace().skip(2).map(str::to_owned).collect();
        expect!(words.first().is_some_and(|word| word == "ok"), "{}: {line}", self.name);
        Ok(Check { name: name.to_owned(), words })
    }
}

/// A passed check: its words are pairs of a name and a value.
#[derive(Clone, Debug)]
pub struct Check {
    name: String,
    words: Vec<String>,
}

impl Check {
    pub fn value(&self, name: &str) -> Result<&str, Failure> {
        self.words
            .iter()
            .position(|word| word == name)
            .and_then(|at| self.words.get(at + 1))
            .map(String::as_str)
            .ok_or_else(|| Failure::NotAsExpected(format!("check {} says nothing of {name}", self.name)))
    }

    pub fn number(&self, name: &str) -> Result<u64, Failure> {
        let value = self.value(name)?;
        value.parse().map_err(|_| {
            Failure::NotAsExpected(format!("check {}: {name} is {value}, not a number", self.name))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_of_bus_0_have_a_counterpart_in_qemu() {
        for (slot, device) in [
            ("0:8:0=0000:00:04.0", Some("vfio-pci,host=0000:00:04.0,addr=8.0,multifunction=on")),
            ("0:30:1=0000:01:00.0", Some("vfio-pci,host=0000:01:00.0,addr=1e.1")),
            ("3:0:0=0000:00:04.0", None),
            ("0:8=0000:00:04.0", None),
            ("0:8:0", None),
        ] {
            assert_eq!(qemu_vfio_device(slot).as_deref(), device, "{slot}");
        }
    }

    fn report(code: i32, serial: &str, messages: &str) -> GuestReport {
        GuestReport { name: "run".to_owned(), code, serial: serial.to_owned(), messages: messages.to_owned() }
    }

    #[test]
    fn a_check_counts_only_if_it_passed() {
        let report = report(0, "guest: up\ncheck nvme ok mib 64 sha256 aa\ncheck nic FAILED no answer\n", "");
        let nvme = report.check("nvme").unwrap();
        assert_eq!(nvme.number("mib").unwrap(), 64);
        assert_eq!(nvme.value("sha256").unwrap(), "aa");
        assert!(nvme.number("sha256").is_err() && nvme.value("interrupts").is_err());
        assert!(report.check("nic").is_err() && report.check("memory").is_err());
    }

    #[test]
    fn a_refusal_is_one_message_and_no_guest() {
        let message = "slotpass: 0000:00:04.0: no\n";
        for (refusal, right) in [
            (report(1, "", message), true),
            (report(1, "", &format!("{message}\nFor more information, try '--help'.\n")), true),
            (report(0, "", message), false),
            (report(1, "guest: up", message), false),
            (report(1, "", &message.repeat(2)), false),
            (report(1, "", "slotpass: no\n"), false),
            (report(1, "", ""), false),
        ] {
            assert_eq!(refusal.expect_refusal(&["0000:00:04.0", "no"]).is_ok(), right, "{refusal:?}");
        }
    }
}

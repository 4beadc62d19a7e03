use std::time::Duration;

use crate::{Bdf, Failure, GuestReport, Machine};

/// The program that runs the guests of a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vmm {
    Slotpass,
    /// slotpass, with every function as `/dev/pptN` of an illumos host that is made of it.
    SlotpassOverPpt,
    /// The machine's own QEMU with its vfio-pci: shows whether a failure is ours or the test machine's.
    Qemu,
}

/// Kernel command line words of every Linux guest: the console, and what saves emulated time.
///
/// A guest that uses the TSC deadline timer sometimes stalls under QEMU's processor emulation. And one whose processor has
/// CMPXCHG16B seldom dies: QEMU 7.2 computes that instruction's flags from others that are not up to date, so an interrupt right
/// behind it puts some of an address into EFLAGS.
pub const LINUX_WORDS: &str = "console=ttyS0 panic=-1 quiet lapic=notscdeadline clearcpuid=cx16 mitigations=off nokaslr rodata=off \
     cryptomgr.notests no_timer_check \
     initcall_blacklist=bpf_tcp_ca_kfunc_init,bpf_dummy_struct_ops_init,jent_mod_init,load_system_certificate_list";

/// In the scenario's directory: what [`Vmm::SlotpassOverPpt`] asked of the illumos host's kernel in its last run, a call a line.
pub const PPT_TRACE: &str = "ppt.trace";

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

    /// As [`Self::linux_elf`], for a guest that can load the drivers of more functions than the NVMe drive and e1000e.
    pub fn linux_with_more_drivers(machine: &Machine<'_>, words: &str) -> Self {
        let provisioned = machine.scenario().provisioned();
        let (kernel, initramfs) = (provisioned.vmlinux(), provisioned.guest_initramfs_with_more_drivers());
        Self::slotpass(&["run", "--kernel", &kernel.display().to_string()])
            .option("--initrd", &initramfs.display().to_string())
            .option("--cmdline", &format!("{LINUX_WORDS} {words}"))
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
            Vmm::SlotpassOverPpt => {
                let program = machine.scenario().provisioned().slotpass_over_ppt()?.display().to_string();
                self.over_ppt_words(program)
            }
            Vmm::Qemu => self.qemu_words()?,
        };
        let quoted: Vec<String> = words.iter().map(|word| quote(word)).collect();
        Ok(format!("{} {}", self.wrapper, quoted.join(" ")).trim_start().to_owned())
    }

    fn over_ppt_words(&self, program: String) -> Vec<String> {
        let mut functions = Vec::new();
        let mut arguments = Vec::new();
        let mut is_slot = false;
        for argument in &self.arguments {
            let named = argument.split_once('=').filter(|_| is_slot);
            is_slot = argument == "--slot";
            let Some((slot, rest)) = named else {
                arguments.push(argument.clone());
                continue;
            };
            let (function, options) = rest.split_once(',').map_or((rest, None), |(f, o)| (f, Some(o)));
            let options = options.map(|options| format!(",{options}")).unwrap_or_default();
            arguments.push(format!("{slot}=/dev/ppt{}{options}", functions.len()));
            functions.push(function.to_owned());
        }
        let variables = [
            format!("SLOTPASS_PPT={}", functions.join(",")),
            format!("SLOTPASS_PPT_TRACE=/run/scenario/{PPT_TRACE}"),
        ];
        [vec!["env".to_owned()], variables.to_vec(), vec![program], arguments].concat()
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

    /// Runs the VMM until it ends. Gives the nanoseconds of the machine's clock, to the microsecond, from its start to the
    /// first byte of the guest's serial output, or to the end of the first line with `line` in it. The guest is to end by
    /// switching itself off, or by writing 1 to the exit port, which is the exit code 3 of both VMMs.
    pub fn time_of_start(&mut self, name: &str, run: &GuestRun, line: Option<&str>) -> Result<u64, Failure> {
        let command_line = run.command_line(self)?;
        let (read, is_seen) = match line {
            None => ("IFS= read -r -N1 -u $out byte".to_owned(), "[ -n \"$byte\" ]".to_owned()),
            Some(line) => {
                let is_seen = format!("[[ $byte == *{}* ]]", quote(line));
                (format!("while IFS= read -r -u $out byte && ! {is_seen}; do :; done"), is_seen)
            }
        };
        let script = format!(
            "{before}exec 3>&-\n\
             rm -f /run/starting\n\
             mkfifo /run/starting\n\
             start=$EPOCHREALTIME\n\
             {command_line} >/run/starting &\n\
             exec {{out}}</run/starting\n\
             {read}\n\
             end=$EPOCHREALTIME\n\
             {is_seen} || exit 1\n\
             cat <&$out >/dev/null\n\
             wait $!\n\
             case $? in 0|3) ;; *) exit 1;; esac\n\
             echo $((${{end/./}} - ${{start/./}}))\n",
            before = run.before,
        );
        let output = self.attempt(name, &script, self.seconds_for(run))?;
        let microseconds: Option<u64> = output.out.trim().parse().ok().filter(|_| output.code == 0);
        let nothing =
            || Failure::NotAsExpected(format!("{name}: nothing was seen of the guest: {}", output.err));
        microseconds.map(|microseconds| microseconds * 1000).ok_or_else(nothing)
    }

    /// Starts the VMM and returns as soon as the guest's serial output holds a line with `line` in it.
    pub fn start_until(&mut self, name: &str, run: &GuestRun, line: &str) -> Result<RunningGuest, Failure> {
        let command_line = run.command_line(self)?;
        let script = format!(
            "{before}exec 3>&-\n\
             rm -f /run/running.*\n\
             {{ {command_line} & echo $! >/run/running.pid; wait $!; echo $? >/run/running.code; }} \
               >/run/running.serial 2>/run/running.messages &\n\
             until [ -s /run/running.pid ]; do sleep 0.1; done\n\
             pid=$(</run/running.pid)\n\
             SECONDS=0\n\
             while ((SECONDS < {seconds})); do\n\
               if grep -q {line} /run/running.serial; then echo $pid; exit 0; fi\n\
               if [ ! -e /proc/$pid ]; then break; fi\n\
               sleep 0.1\n\
             done\n\
             cat /run/running.serial /run/running.messages >&2\n\
             kill -9 $pid\n\
             exit 1\n",
            before = run.before,
            seconds = self.seconds_for(run),
            line = quote(line),
        );
        let output = self.attempt(name, &script, self.seconds_for(run).saturating_add(10))?;
        let pid = output.out.trim().parse().ok();
        match pid {
            Some(pid) if output.code == 0 => Ok(RunningGuest { pid }),
            _ => Err(Failure::NotAsExpected(format!("{name}: the guest never printed {line:?}"))),
        }
    }

    /// Waits until the guest of a VMM that was started with [`Machine::start_until`] has printed a line with `line` in it.
    /// What it printed instead is kept with the step's output.
    pub fn await_serial_line(&mut self, line: &str, limit: Duration) -> Result<(), Failure> {
        let seconds = (limit * self.scenario().provisioned().patience()).as_secs();
        let script = format!(
            "SECONDS=0\n\
             while ((SECONDS < {seconds})); do\n\
               if grep -q {line} /run/running.serial; then exit 0; fi\n\
               [ -e /proc/$(</run/running.pid) ] || break\n\
               sleep 0.1\n\
             done\n\
             cat /run/running.serial\n\
             cat /run/running.messages >&2\n\
             exit 1\n",
            line = quote(line),
        );
        let seconds = u32::try_from(seconds + 10).unwrap_or(u32::MAX);
        let output = self.attempt("wait for the guest", &script, seconds)?;
        match output.code {
            0 => Ok(()),
            _ => Err(Failure::NotAsExpected(format!("the guest never printed {line:?}"))),
        }
    }

    /// Waits until a VMM that was started with [`Machine::start_until`] ends, and kills it when `limit` is over.
    pub fn finish(
        &mut self,
        name: &str,
        running: RunningGuest,
        limit: Duration,
    ) -> Result<GuestReport, Failure> {
        let seconds = (limit * self.scenario().provisioned().patience()).as_secs();
        let script = format!(
            "SECONDS=0\n\
             while ((SECONDS < {seconds})); do [ ! -s /run/running.code ] || break; sleep 0.1; done\n\
             cat /run/running.serial\n\
             cat /run/running.messages >&2\n\
             if [ -s /run/running.code ]; then exit $(</run/running.code); fi\n\
             kill -9 {pid}\n\
             exit 124\n",
            pid = running.pid,
        );
        let seconds = u32::try_from(seconds + 20).unwrap_or(u32::MAX);
        let output = self.attempt(name, &script, seconds)?;
        Ok(GuestReport {
            name: name.to_owned(),
            code: output.code,
            serial: output.out.replace('\r', ""),
            messages: output.err,
        })
    }
}

/// A VMM that was started with [`Machine::start_until`].
#[derive(Clone, Copy, Debug)]
pub struct RunningGuest {
    pub pid: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_is_one_of_the_illumos_host() {
        let run = GuestRun::slotpass(&["run", "--kernel", "k=1"])
            .option("--slot", "0:8:0=0000:00:04.0")
            .option("--slot", "1:0:0=0000:00:05.0,port");
        let words = run.over_ppt_words("/bin/over".to_owned());
        assert_eq!(
            words,
            [
                "env",
                "SLOTPASS_PPT=0000:00:04.0,0000:00:05.0",
                "SLOTPASS_PPT_TRACE=/run/scenario/ppt.trace",
                "/bin/over",
                "run",
                "--kernel",
                "k=1",
                "--slot",
                "0:8:0=/dev/ppt0",
                "--slot",
                "1:0:0=/dev/ppt1,port"
            ]
        );
    }

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
}

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use crate::monitor::Monitor;
use crate::plan::MONITOR_SOCKET;
use crate::{Bdf, Emulator, Failure, Plan, Scenario, Vmm, expect};

/// From power-on to the first command; some fifteen times what an idle host takes.
const BOOT_LIMIT: Duration = Duration::from_secs(90);
/// The same with several processors, which take their turns.
const BOOT_LIMIT_OF_SEVERAL: Duration = Duration::from_secs(400);
/// The same for a whole Debian, with its services.
const DEBIAN_BOOT_LIMIT: Duration = Duration::from_secs(400);
/// What the machine gets beyond a command's own limit to report that the command was killed.
const GRACE: Duration = Duration::from_secs(20);

/// Where instructions are the clock it leaps whenever the processor waits, even if only for a file of this host.
const HASTE: u32 = 10_000;

/// A machine that is switched on; dropping it switches it off.
#[derive(Debug)]
pub struct Machine<'s> {
    pub(crate) scenario: &'s mut Scenario,
    qemu: Child,
    requests: ChildStdin,
    answers: Receiver<String>,
    pub(crate) monitor: Monitor,
    power_off_limit: Duration,
    /// Seconds of its clock in one second of a limit, at most.
    haste: u32,
    /// What can be plugged in again.
    pub(crate) functions: Vec<(Bdf, String)>,
}

/// What a command in the machine left behind.
#[derive(Clone, Debug)]
pub struct CommandOutput {
    /// As a shell sees it: 124 if its time was up, 128 + N if signal N ended it.
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl<'s> Machine<'s> {
    /// Switches the machine on and waits until it takes commands.
    pub fn boot(plan: &Plan, scenario: &'s mut Scenario) -> Result<Self, Failure> {
        scenario.step("boot the machine")?;
        let boot_limit = match plan.is_debian() {
            true => DEBIAN_BOOT_LIMIT,
            false if plan.has_several_cpus() => BOOT_LIMIT_OF_SEVERAL,
            false => BOOT_LIMIT,
        };
        let log_path = scenario.directory().join("qemu.log");
        let log = File::create(&log_path).map_err(Failure::io("create", &log_path))?;
        let mut command = plan.qemu(scenario)?;
        scenario.file_for_machine("qemu.command", format!("{command:?}\n").as_bytes())?;
        let mut qemu = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(Failure::io("start", "setpriv"))?;
        let (Some(requests), Some(stdout)) = (qemu.stdin.take(), qemu.stdout.take()) else {
            return Err(Failure::Gone);
        };
        let (sender, answers) = mpsc::channel();
        // Ends with QEMU, when its standard output closes.
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line.trim().to_owned()).is_err() {
                    break;
                }
            }
        });
        if let Err(failure) = await_answer(&answers, "ready", boot_limit) {
            end(&mut qemu);
            return Err(failure);
        }
        let connected = Monitor::connect(scenario.directory(), MONITOR_SOCKET);
        match connected {
            Ok(monitor) => {
                let power_off_limit = if plan.is_debian() { DEBIAN_BOOT_LIMIT } else { GRACE };
                let functions = plan.functions().to_vec();
                let haste = if plan.counts_instructions() { HASTE } else { 1 };
                Ok(Self { scenario, qemu, requests, answers, monitor, power_off_limit, haste, functions })
            }
            Err(failure) => {
                end(&mut qemu);
                Err(failure)
            }
        }
    }

    pub fn scenario(&self) -> &Scenario {
        self.scenario
    }

    /// Lets another program than slotpass run the guests from here on.
    pub fn set_vmm(&mut self, vmm: Vmm) {
        self.scenario.set_vmm(vmm);
    }

    /// Runs a bash script as root in the machine. `name` becomes part of the names of its files, which stay in the
    /// scenario's directory; a script that runs longer than `seconds` is killed.
    pub fn attempt(&mut self, name: &str, script: &str, seconds: u32) -> Result<CommandOutput, Failure> {
        let step = self.scenario.step(name)?;
        let label: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let file = format!("{step:02}-{label}");
        self.scenario.file_for_machine(&format!("{file}.sh"), script.as_bytes())?;
        let of_machine = seconds.saturating_mul(self.haste);
        writeln!(self.requests, "{file} {of_machine}").map_err(|_| Failure::Gone)?;
        let limit = Duration::from_secs(seconds.into()) + GRACE;
        let code = await_answer(&self.answers, &format!("done {file} "), limit)?;
        Ok(CommandOutput {
            code: code
                .parse()
                .map_err(|_| Failure::Protocol { answer: code, expected: "an exit code".into() })?,
            out: self.scenario.text_of(&format!("{file}.out"))?,
            err: self.scenario.text_of(&format!("{file}.err"))?,
        })
    }

    /// Like [`Self::attempt`], for a script that must succeed; returns its standard output.
    pub fn command(&mut self, name: &str, script: &str) -> Result<String, Failure> {
        let output = self.attempt(name, &format!("set -eu\n{script}"), 60)?;
        expect!(
            output.code == 0,
            "{name}: exit code {}: {}",
            output.code,
            output.err.lines().last().unwrap_or("(nothing on standard error)")
        );
        Ok(output.out)
    }

    /// What figures depend on: slotpass, kernel, processor and QEMU, which is both what emulates the machine and the VMM to
    /// compare with. A line each, as items of a list.
    pub fn describe(&mut self) -> Result<String, Failure> {
        let provisioned = self.scenario.provisioned();
        let processor = provisioned.processor(Emulator::Installed)?;
        let slotpass = provisioned.slotpass().display().to_string();
        self.command(
            "describe the machine",
            &format!(
                "echo \"- slotpass: $({slotpass} --version)\"\n\
                 echo \"- kernel of the machine: $(uname -r)\"\n\
                 echo \"- processor of the machine: $(nproc --all) of QEMU's {processor}\"\n\
                 echo \"- QEMU: $(qemu-system-x86_64 --version | head -n 1)\"\n"
            ),
        )
    }

    /// Starts the machine's system anew, as somebody does who types `reboot`. Only a whole Debian does that.
    pub fn reboot(&mut self) -> Result<(), Failure> {
        // The answer to the command that reboots may be the last thing that is heard, or not be heard any more.
        self.attempt("reboot", "systemctl reboot --no-block", 60)?;
        await_answer(&self.answers, "ready", DEBIAN_BOOT_LIMIT)?;
        Ok(())
    }

    /// Asks the machine to switch itself off, which a kernel that hangs or a leaked reference would prevent.
    pub fn power_off(mut self) -> Result<(), Failure> {
        self.scenario.step("power the machine off")?;
        writeln!(self.requests, "poweroff").map_err(|_| Failure::Gone)?;
        match self.answers.recv_timeout(self.power_off_limit) {
            Err(RecvTimeoutError::Disconnected) => Ok(()),
            Err(RecvTimeoutError::Timeout) => Err(Failure::NoAnswer { limit: self.power_off_limit }),
            Ok(answer) => Err(Failure::Protocol { answer, expected: "silence".into() }),
        }
    }
}

fn await_answer(answers: &Receiver<String>, expected: &str, limit: Duration) -> Result<String, Failure> {
    let answer = match answers.recv_timeout(limit) {
        Ok(answer) => answer,
        Err(RecvTimeoutError::Timeout) => return Err(Failure::NoAnswer { limit }),
        Err(RecvTimeoutError::Disconnected) => return Err(Failure::Gone),
    };
    match answer.strip_prefix(expected) {
        Some(rest) => Ok(rest.trim().to_owned()),
        None => Err(Failure::Protocol { answer, expected: expected.to_owned() }),
    }
}

fn end(qemu: &mut Child) {
    // Already gone after power_off; there is nobody to tell if it cannot be ended.
    let _ = qemu.kill();
    let _ = qemu.wait();
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        end(&mut self.qemu);
    }
}

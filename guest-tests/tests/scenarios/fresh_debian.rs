//! What somebody does who has a Debian, the package, and the README that is in it.

use guest_tests::{Bdf, Failure, Iommu, Kernel, Machine, Plan, Scenario, SystemDrive, expect};

/// The function that README's commands name.
const OF_README: &str = "0000:01:00.0";
/// Where the package puts it.
const README: &str = "/usr/share/doc/slotpass/README.md";
/// Heading of the commands.
const HEADING: &str = "### From a fresh Debian";
const CONSOLE: &str = "console=ttyS0";
/// A guest that uses the TSC deadline timer sometimes stalls under QEMU's processor emulation.
const CONSOLE_AND_TIMER: &str = "console=ttyS0 lapic=notscdeadline";
/// A guest that boots with the machine's own initramfs, twice emulated.
pub const GUEST_SECONDS: u32 = 400;

/// README's own commands, in its order, with the address of the function that there is; and that they do what is said beside
/// them.
pub fn from_readme(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let token = format!("token-{}", std::process::id());
    let drive = SystemDrive::make(scenario, &token)?;
    scenario.copy_for_machine("slotpass.deb", scenario.provisioned().package()?)?;
    let mut plan = Plan::new(iommu);
    plan.memory_mib(3072);
    plan.kernel(Kernel::Debian);
    let nvme = plan.nvme("4.0", drive.image());

    let mut machine = Machine::boot(&plan, scenario)?;
    let before = drivers(&mut machine)?;
    machine.command("fetch the package", "cp /run/scenario/slotpass.deb /root/slotpass_0.1.0-1_amd64.deb")?;
    let mut done = Vec::new();
    let mut commands = vec!["apt install ./slotpass_0.1.0-1_amd64.deb".to_owned()];
    while !commands.is_empty() {
        let command = as_typed_here(&commands.remove(0), &nvme);
        let output = machine.attempt(&title(&command), &command, GUEST_SECONDS)?;
        let words: Vec<&str> = command.split_whitespace().collect();
        match words.as_slice() {
            ["apt", ..] => {
                expect!(output.code == 0, "{command}: {}", output.err);
                commands = commands_of_readme(&mut machine)?;
            }
            // The function is its driver's still; what is to be done comes next in README too.
            ["slotpass", "doctor", ..] if !done.contains(&"reserve".to_owned()) => {
                expect!(output.code == 1, "doctor found nothing to do: {}", output.out);
                let remedy = format!("slotpass reserve {nvme}");
                expect!(output.out.contains(&remedy), "doctor does not say '{remedy}': {}", output.out);
            }
            ["slotpass", "run", ..] => {
                expect!(output.code == 0, "{command}: exit code {}: {}", output.code, output.err);
                expect!(output.out.contains(&format!("guest has {token}")), "the guest: {}", output.out);
            }
            _ => expect!(output.code == 0, "{command}: exit code {}: {}", output.code, output.err),
        }
        // Kept for good: the driver of the machine does not get the function at the next boot.
        if words.get(1) == Some(&"reserve") {
            machine.reboot()?;
            let held = drivers(&mut machine)?;
            expect!(
                held.lines().any(|line| line.starts_with(&format!("{nvme} vfio-pci"))),
                "after a reboot: {held}"
            );
        }
        done.extend(words.get(1).map(|&word| word.to_owned()));
    }
    for step in ["list", "doctor", "reserve", "run", "release"] {
        expect!(done.iter().any(|done| done == step), "README says nothing of slotpass {step}");
    }
    expect!(drivers(&mut machine)? == before, "not everything is as it was before");
    machine.power_off()?;
    let written = drive.written()?;
    expect!(written == token, "the drive has '{written}' where the guest wrote '{token}'");
    Ok(())
}

/// A name for a command's files.
fn title(command: &str) -> String {
    command.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

/// README's command that runs a guest, with this function.
pub fn run_command(machine: &mut Machine<'_>, function: &Bdf) -> Result<String, Failure> {
    let commands = commands_of_readme(machine)?;
    let run = commands.iter().find(|command| command.starts_with("slotpass run "));
    let run = run.ok_or_else(|| Failure::NotAsExpected(format!("{README} runs no guest")))?;
    Ok(as_typed_here(run, function))
}

fn as_typed_here(command: &str, function: &Bdf) -> String {
    command.replace(OF_README, function.as_str()).replace(CONSOLE, CONSOLE_AND_TIMER)
}

/// The commands below the heading, up to the next one: lines indented by four, joined where a backslash ends them.
fn commands_of_readme(machine: &mut Machine<'_>) -> Result<Vec<String>, Failure> {
    let text = machine.command("read README", &format!("cat {README}"))?;
    let section = text.lines().skip_while(|line| *line != HEADING).skip(1);
    let section = section.take_while(|line| !line.starts_with('#'));
    let mut commands: Vec<String> = Vec::new();
    let mut goes_on = false;
    for line in section.filter_map(|line| line.strip_prefix("    ")) {
        let (words, more) = match line.strip_suffix('\\') {
            Some(words) => (words, true),
            None => (line, false),
        };
        match commands.last_mut().filter(|_| goes_on) {
            Some(command) => command.push_str(words.trim_start()),
            None => commands.push(words.to_owned()),
        }
        goes_on = more;
    }
    // The package is installed already.
    commands.retain(|command| !command.starts_with("apt "));
    expect!(!commands.is_empty(), "{README} has no commands below '{HEADING}'");
    Ok(commands)
}

/// Each function and the driver that holds it, and what overrides the choice of one.
pub fn drivers(machine: &mut Machine<'_>) -> Result<String, Failure> {
    machine.command(
        "look at all drivers",
        "cd /sys/bus/pci/devices\n\
         for f in *; do echo $f $(basename $(readlink $f/driver || echo none)) $(sed '/(null)/d' $f/driver_override); done\n",
    )
}

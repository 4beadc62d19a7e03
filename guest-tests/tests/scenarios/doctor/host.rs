//! What the machine's IOMMU does, or does not.

use guest_tests::{Failure, GuestRun, Iommu, Kernel, Machine, Plan, Scenario, expect};

use super::told::{Told, run_commands};
use super::{Subject, WITHOUT_IPC_LOCK};

/// A machine without an IOMMU, and one whose kernel was told not to use it: boot without the parameter that doctor names, and
/// doctor is content.
pub fn without_iommu(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let exit = scenario.file_for_machine("exit.elf", guest::EXIT)?;
    let mut plan = Plan::new(iommu);
    let edu = plan.edu("4.0", None);
    let run = GuestRun::bare_metal(&exit, "poweroff").slot("0:8:0", &edu);
    let subject = Subject { function: &edu, before: "", wrapper: "" };

    plan.iommu(false);
    let mut machine = Machine::boot(&plan, scenario)?;
    // VFIO takes no function without an IOMMU, and run finds that before it looks for a driver.
    let words = ["no ACPI table DMAR or IVRS", "what runs it gives it no IOMMU"];
    subject.refused(&mut machine, &run, "iommu", &words)?;
    machine.power_off()?;

    plan.iommu(true);
    plan.iommu_words("intel_iommu=off");
    let mut machine = Machine::boot(&plan, scenario)?;
    let told = subject.refused(&mut machine, &run, "iommu", &["no IOMMU groups"])?;
    told.expect_parameter_to_leave_out("intel_iommu=off")?;
    machine.power_off()?;

    // What is left of the command line says nothing of the IOMMU.
    plan.iommu_words("");
    let mut machine = Machine::boot(&plan, scenario)?;
    machine.own_etc()?;
    let told = subject.refused(&mut machine, &run, "driver", &["no driver holds it"])?;
    expect!(!told.text.contains("problem  iommu"), "the IOMMU is still off: {}", told.text);
    run_commands(&mut machine, "give it to vfio-pci", &told)?;
    subject.starts(&mut machine, &run)?;
    machine.power_off()
}

/// Without interrupt remapping functions are refused, unless VFIO is told to do without, by the command that doctor prints.
pub fn interrupt_remapping(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    interrupt_remapping_on(Kernel::Usual, iommu, scenario)
}

/// The same where functions are opened by their own files: iommufd is told then.
pub fn interrupt_remapping_by_iommufd(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    interrupt_remapping_on(Kernel::Iommufd, iommu, scenario)
}

fn interrupt_remapping_on(kernel: Kernel, iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let exit = scenario.file_for_machine("exit.elf", guest::EXIT)?;
    let mut plan = Plan::new(iommu);
    plan.kernel(kernel);
    plan.iommu_words("intel_iommu=on intremap=off");
    let edu = plan.edu("4.0", None);
    let run = GuestRun::bare_metal(&exit, "poweroff").slot("0:8:0", &edu);
    let subject = Subject { function: &edu, before: "", wrapper: "" };

    let mut machine = Machine::boot(&plan, scenario)?;
    machine.give_to_vfio(&[&edu])?;
    let told = subject.refused(&mut machine, &run, "interrupt remapping", &["VFIO refuses functions"])?;
    told.expect_parameter_to_leave_out("intremap=off")?;
    run_commands(&mut machine, "do without", &told.second_remedy())?;
    let told = subject.starts(&mut machine, &run)?;
    told.section("note", "", "interrupt remapping", &["allow_unsafe_interrupts"])?;
    machine.expect_nothing_left()?;
    machine.power_off()
}

/// Doctor and run agree on how much of a guest the IOMMU reaches, and doctor says how much that is.
pub fn io_addresses(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let exit = scenario.file_for_machine("exit.elf", guest::EXIT)?;
    let mut plan = Plan::new(iommu);
    let edu = plan.edu("4.0", None);

    let mut machine = Machine::boot(&plan, scenario)?;
    machine.give_to_vfio(&[&edu])?;
    let run =
        |memory: &str| GuestRun::bare_metal(&exit, "poweroff").slot("0:8:0", &edu).option("--memory", memory);
    // Or the machine refuses the guest's memory before anybody looks at its addresses.
    machine.command("promise more memory than there is", "echo 1 >/proc/sys/vm/overcommit_memory\n")?;
    let doctor = |memory: &str| GuestRun::slotpass(&["doctor", "--memory", memory, edu.as_str()]);
    // What the IOMMU would reach must not be taken from the machine, which has not that much.
    let limited = |run: &GuestRun| run.clone().after("ulimit -l 8192").through(WITHOUT_IPC_LOCK);
    let told = Told::of(&mut machine, "600 GiB", &doctor("600G"))?;
    expect!(told.code == 1, "a guest of 600 GiB in a machine of two: {}", told.text);
    let refused = machine.run("run with 600 GiB", &limited(&run("600G")))?;
    refused.expect_code(1)?;
    let of_iommu = refused.messages().contains("is not within what the IOMMU translates");
    expect!(
        told.text.contains("problem  io addresses") == of_iommu && of_iommu == (iommu == Iommu::Intel39),
        "doctor says:\n{}\nand run:\n{}",
        told.text,
        refused.messages()
    );
    let mut memory = "600G".to_owned();
    if of_iommu {
        memory = told.section("problem", "", "io addresses", &["39 bits"])?.argument("--memory")?;
        let told = Told::of(&mut machine, "as much as the IOMMU reaches", &doctor(&memory))?;
        expect!(!told.text.contains("problem  io addresses"), "{memory} is still too much: {}", told.text);
        let refused = machine.run("run with as much as the IOMMU reaches", &limited(&run(&memory)))?;
        refused.expect_code(1)?;
        expect!(
            refused.messages().contains("the memory lock limit is"),
            "{memory} is too much not only for the limit: {}",
            refused.messages()
        );
    }
    let told = Told::of(&mut machine, "what the machine has", &doctor(&memory))?;
    let memory = told.section("problem", "", "memory", &["the host has free"])?.argument("--memory")?;
    let told = Told::of(&mut machine, "as much as the machine has", &doctor(&memory))?;
    expect!(told.code == 0, "{memory} is still too much: {}", told.text);
    machine.run("run with as much as the machine has", &run(&memory))?.expect_code(0)?;
    machine.expect_nothing_left()?;
    machine.power_off()
}

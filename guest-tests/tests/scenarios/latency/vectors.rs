//! All 2048 vectors of one function: what it costs to make them live, and how that grows with their number.

use guest_tests::{Bdf, Failure, Figure, Figures, GuestRun, Iommu, Machine, Plan, Scenario, Table};

use super::{LIMIT, beside_qemu, measure};

use Figure::{Count, CountAtMost, Ratio, RatioAtMost};

const VECTORS: u64 = 2048;
/// QEMU takes all vectors back and arms them anew for each further one, which takes four times as long for twice as many: for
/// all 2048 it would be hours. They take it more than these, so what holds beside these holds beside all.
const OF_QEMU: u64 = 256;
const MEASUREMENTS: [&str; 2] = ["enable-at-once", "enable-one-by-one"];
const TO_QEMU: f64 = 0.8;

/// Twice as many each time.
const GROWING: [u64; 3] = [512, 1024, VECTORS];
/// Vectors that become live in one run whose instructions are taken, all passes together: Linux loses up to 4 ms of a thread's time
/// in user mode when it ends (`vtime_account_user`), which should be little of all.
const TIMED: u64 = 8192;
/// The same where calls are counted, which is exact: once to warm up, and once.
const COUNTED_PASSES: u64 = 2;
/// System calls for each vector, beyond what they were for half as many.
const MORE_CALLS: f64 = 0.1;
/// The same of instructions in user space, as a ratio: what is lost of each of the runs.
const MORE_INSTRUCTIONS: f64 = 1.1;

/// The host has a vector for each on so many processors.
const CPUS: u8 = 12;
/// On those of `nohz_full=` Linux reads the clock whenever a thread enters the kernel and leaves it (CONFIG_VIRT_CPU_ACCOUNTING_GEN),
/// so times in user mode and in the kernel are exact. Processor 0 cannot be one of them.
const KERNEL_WORDS: &str = "intel_iommu=on nohz_full=1-11";
const EXACT_CPUS: &str = "taskset -c 1-11";

pub fn all_2048(iommu: Iommu, scenario: &mut Scenario) -> Result<(), Failure> {
    let image = scenario.blank_image("nvme.img", 16)?;
    scenario.file_for_machine("bench.elf", guest::BENCH)?;
    let mut plan = Plan::new(iommu);
    plan.cpus(CPUS);
    plan.count_instructions();
    plan.iommu_words(KERNEL_WORDS);
    let nvme = plan.nvme_with("4.0", &image, &format!(",msix_qsize={VECTORS}"));
    let mut machine = Machine::boot(&plan, scenario)?;
    machine.give_to_vfio(&[&nvme])?;
    let mut figures = Figures::default();
    figures.add(&beside_fewer_of_qemu(&mut machine, &nvme)?);
    figures.add(&growth(&mut machine, &nvme)?);
    figures.hold(&mut machine)?;
    machine.expect_nothing_left()?;
    machine.power_off()
}

fn beside_fewer_of_qemu(machine: &mut Machine<'_>, nvme: &Bdf) -> Result<Table<3>, Failure> {
    let slot = || [format!("0:8:0={nvme}")];
    let once = ["--iterations", "1"];
    let fewer = MEASUREMENTS.map(|name| format!("{name}={OF_QEMU}"));
    let names: Vec<&str> = fewer.iter().map(String::as_str).collect();
    let beside = [&once[..], &["--against", "qemu"]].concat();
    let both = measure(machine, &format!("bench of {OF_QEMU} vectors"), &beside, &names, slot())?;
    let all = measure(machine, "bench of all vectors", &once, &MEASUREMENTS, slot())?;
    let mut table = Table::new(
        "Vectors of a drive that has 2048 made live, so many as the name says. Of all 2048 slotpass' figure stands beside that of \
         QEMU for 256: QEMU takes four times as long for twice as many.",
        ["slotpass", "QEMU", "/ QEMU"],
    );
    for (name, fewer) in MEASUREMENTS.into_iter().zip(&fewer) {
        table.row(fewer, beside_qemu(&both, fewer, Some(TO_QEMU))?);
        let (own, qemus) = (all.median("slotpass", name)?, both.median("qemu", fewer)?);
        let ratio = RatioAtMost(own as f64 / qemus as f64, TO_QEMU);
        table.row(format!("{name}={VECTORS}"), [Count(own), Count(qemus), ratio]);
    }
    Ok(table)
}

/// Twice as many vectors take twice as many system calls, and twice as many instructions in user space. In the kernel they take
/// more: KVM_SET_GSI_ROUTING is the only call that routes a message, it takes the whole table, of which KVM makes every entry anew
/// (`kvm_set_irq_routing`, virt/kvm/irqchip.c), and then goes through all irqfds, as KVM_IRQFD does too (virt/kvm/eventfd.c). Each
/// vector that becomes live by itself needs both, so this part grows with the square; those that become live together need the
/// table once.
fn growth(machine: &mut Machine<'_>, nvme: &Bdf) -> Result<Table<3>, Failure> {
    // Each access to the scenario's directory asks the host, which takes time.
    machine.command("fetch the guest", &format!("cp /run/scenario/bench.elf /run\n{TIMES}"))?;
    let mut table = Table::new(
        "System calls of slotpass' and instructions for each vector, so many of which are made live one by one and taken back. \
         Instructions in user space include the guest's. In the kernel KVM_SET_GSI_ROUTING takes a table of all vectors whenever \
         one is added, and KVM_IRQFD looks through all that there are.",
        ["system calls", "instructions in user space", "in the kernel"],
    );
    // What a run takes that has but one vector.
    let (without, calls_without) = (times(machine, nvme, 1, COUNTED_PASSES)?, calls(machine, nvme, 1)?);
    let mut before: Option<(f64, u64)> = None;
    for vectors in GROWING {
        let times = times(machine, nvme, vectors, TIMED / vectors)?;
        let calls = calls(machine, nvme, vectors)?.saturating_sub(calls_without) as f64;
        let calls = calls / (COUNTED_PASSES * vectors) as f64;
        let [user, kernel] = [(times.user, without.user), (times.kernel, without.kernel)]
            .map(|(all, none)| all.saturating_sub(none) / TIMED);
        let figures = match before {
            None => [Ratio(calls), Count(user)],
            Some((calls_before, user_before)) => [
                RatioAtMost(calls, calls_before + MORE_CALLS),
                CountAtMost(user, (user_before as f64 * MORE_INSTRUCTIONS) as u64),
            ],
        };
        let [of_calls, of_user] = figures;
        table.row(format!("{vectors} vectors"), [of_calls, of_user, Count(kernel)]);
        before = Some((calls, user));
    }
    Ok(table)
}

/// Instructions of a whole run.
#[derive(Clone, Copy, Debug)]
struct Times {
    user: u64,
    kernel: u64,
}

fn times(machine: &mut Machine<'_>, nvme: &Bdf, vectors: u64, passes: u64) -> Result<Times, Failure> {
    let run = run(nvme, vectors, passes).through(&format!("{EXACT_CPUS} perl /run/times"));
    let report = machine.run(&format!("times of {vectors} vectors"), &run)?;
    report.expect_code(0)?;
    let said = report.messages().lines().find_map(|line| line.strip_prefix("times ")).unwrap_or_default();
    let times: Vec<u64> = said.split(' ').map_while(|word| word.parse().ok()).collect();
    match *times {
        [user, kernel] => Ok(Times { user, kernel }),
        _ => Err(Failure::NotAsExpected(format!("no times: {}", report.messages()))),
    }
}

/// System calls of a whole run, of all threads. Counting them takes instructions, so this is a run of its own.
fn calls(machine: &mut Machine<'_>, nvme: &Bdf, vectors: u64) -> Result<u64, Failure> {
    let run = run(nvme, vectors, COUNTED_PASSES).after(BEGIN_COUNTING);
    machine.run(&format!("calls of {vectors} vectors"), &run)?.expect_code(0)?;
    let counted = machine.command("what was counted", COUNTED)?;
    let calls = counted.lines().find_map(|line| line.trim().strip_prefix("Hits: ")?.parse().ok());
    calls.ok_or_else(|| Failure::NotAsExpected(format!("no system calls counted: {counted}")))
}

/// The guest makes them live and takes them back so many times, the first to warm up; at least twice.
fn run(nvme: &Bdf, vectors: u64, passes: u64) -> GuestRun {
    let repeats = passes.saturating_sub(1).max(1);
    let words = format!("slot=0:8:0 iterations=1 repeats={repeats} enable-one-by-one={vectors}");
    let run = GuestRun::bare_metal("/run/bench.elf", &words).option("--memory", "64M");
    run.slot("0:8:0", nvme).limit(LIMIT)
}

/// A program that runs another, and says what it took in user mode and in the kernel: getrusage(2) of children, of which the
/// first four numbers are seconds and microseconds of each. A shell knows milliseconds only.
const TIMES: &str = r#"cat >/run/times <<'END'
my $child = fork;
if (!$child) { exec @ARGV; exit 127 }
wait;
my $code = $? >> 8;
my $usage = "\0" x 144;
syscall(98, -1, $usage);
my @times = unpack('q4', $usage);
print STDERR "times ", join(' ', map { 1000 * (1000000 * $times[$_] + $times[$_ + 1]) } 0, 2), "\n";
exit $code;
END
"#;

/// Counts system calls by this shell, which becomes slotpass, and of all its threads.
const BEGIN_COUNTING: &str = "mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing\n\
     cd /sys/kernel/tracing\n\
     echo 1 >options/event-fork\n\
     echo $$ >set_event_pid\n\
     echo hist:keys=id >events/raw_syscalls/sys_enter/trigger";
const COUNTED: &str = "cd /sys/kernel/tracing\n\
     cat events/raw_syscalls/sys_enter/hist\n\
     echo '!hist:keys=id' >events/raw_syscalls/sys_enter/trigger\n\
     echo >set_event_pid\n";

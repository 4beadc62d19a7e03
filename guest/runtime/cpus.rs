//! Further vCPUs: started by INIT and start-up IPIs, then each waits for work.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::boot::Boot;
use crate::time::{Deadline, sleep_microseconds};
use crate::window::Window;
use crate::{apic, interrupt};

/// As many as the shim has stacks for.
const MOST: usize = 64;
/// Where the trampoline goes: a page of real-mode memory that no firmware claims.
const TRAMPOLINE_PAGE: u8 = 0x08;
const PATIENCE: u64 = 1_000_000;

/// What a vCPU is to run; 0 if nothing.
static WORK: [AtomicUsize; MOST] = [const { AtomicUsize::new(0) }; MOST];
/// Address of what all of them run at once; 0 if nothing.
static SHARED: [AtomicUsize; MOST] = [const { AtomicUsize::new(0) }; MOST];
/// Local APIC id of each vCPU that has come up, plus 1.
static STARTED: [AtomicU64; MOST] = [const { AtomicU64::new(0) }; MOST];

unsafe extern "C" {
    static trampoline: u8;
    static trampoline_end: u8;
}

/// Starts all further vCPUs that the MADT lists, or, with `cpus=N` on the command line, those with local APIC ids
/// below N. Returns how many run now, the first one included.
pub fn start(boot: &Boot) -> usize {
    let begin = &raw const trampoline;
    let length = (&raw const trampoline_end) as usize - begin as usize;
    let page = Window::ram(u64::from(TRAMPOLINE_PAGE) << 12, 4096);
    for offset in 0..length {
        // SAFETY: between the two symbols are the bytes of the trampoline.
        page.write8(offset as u64, unsafe { begin.add(offset).read() });
    }
    match (boot.command_line.number("cpus"), &boot.acpi) {
        (Some(count), _) => start_each(boot, (0..=u8::MAX).take(usize::try_from(count).unwrap_or(MOST))),
        (None, Some(acpi)) => start_each(boot, acpi.processors()),
        (None, None) => {}
    }
    1 + (1..MOST).filter(|&index| STARTED[index].load(Ordering::Acquire) != 0).count()
}

fn start_each(boot: &Boot, ids: impl Iterator<Item = u8>) {
    for id in ids.filter(|&id| id != boot.apic_id).take(MOST - 1) {
        let started = || (1..MOST).any(|index| STARTED[index].load(Ordering::Acquire) == u64::from(id) + 1);
        apic::send_init(id);
        sleep_microseconds(10_000);
        apic::send_start_up(id, TRAMPOLINE_PAGE);
        sleep_microseconds(200);
        if !started() {
            apic::send_start_up(id, TRAMPOLINE_PAGE);
        }
        let deadline = Deadline::after_microseconds(PATIENCE);
        while !started() && !deadline.passed() {
            core::hint::spin_loop();
        }
    }
}

/// Local APIC id of the further vCPU with that number, from 1.
#[must_use]
pub fn apic_id(index: usize) -> Option<u8> {
    match STARTED.get(index)?.load(Ordering::Acquire) {
        0 => None,
        id => Some((id - 1) as u8),
    }
}

/// Lets a further vCPU run `work` once. Whether it is done within a second.
#[must_use]
pub fn run(index: usize, work: fn()) -> bool {
    let Some(id) = apic_id(index) else { return false };
    WORK[index].store(work as usize, Ordering::Release);
    apic::send(id, interrupt::WAKE);
    let deadline = Deadline::after_microseconds(PATIENCE);
    while WORK[index].load(Ordering::Acquire) != 0 {
        if deadline.passed() {
            return false;
        }
        core::hint::spin_loop();
    }
    true
}

/// What [`on_all`] runs.
type Shared<'a> = &'a (dyn Fn(usize) + Sync);

/// Runs `work` on the first `running` vCPUs at once, this one among them, each with its number; returns when all are
/// done.
pub fn on_all(running: usize, work: Shared<'_>) {
    let others = || (1..running.min(MOST)).filter_map(|index| Some((index, apic_id(index)?)));
    let address = (&raw const work) as usize;
    for (index, id) in others() {
        SHARED[index].store(address, Ordering::Release);
        apic::send(id, interrupt::WAKE);
    }
    work(0);
    for (index, _) in others() {
        while SHARED[index].load(Ordering::Acquire) != 0 {
            core::hint::spin_loop();
        }
    }
}

/// The life of a further vCPU.
pub(crate) fn serve(index: u32) -> ! {
    let index = index as usize;
    apic::set_up();
    STARTED[index].store(u64::from(apic::id()) + 1, Ordering::Release);
    loop {
        let seen = interrupt::count(interrupt::WAKE);
        let shared = SHARED[index].load(Ordering::Acquire) as *const Shared<'_>;
        if !shared.is_null() {
            // SAFETY: `on_all` waits for the store below, so what it stored the address of is there until then.
            let work = unsafe { *shared };
            work(index);
            SHARED[index].store(0, Ordering::Release);
            continue;
        }
        let work = WORK[index].load(Ordering::Acquire);
        if work == 0 {
            interrupt::halt_while(interrupt::WAKE, seen);
            continue;
        }
        // SAFETY: `run` stored a function of this type.
        let work: fn() = unsafe { core::mem::transmute::<usize, fn()>(work) };
        work();
        WORK[index].store(0, Ordering::Release);
    }
}

//! `config-race`: the one pair of configuration ports, used by many vCPUs at once as an operating system does: under a lock.

use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use runtime::config::{ConfigSpace, Ports, PortsConfig};
use runtime::slot::Slot;
use runtime::{Boot, Check, Text, cpus, ensure, port};

/// Functions that are read; buses that they are looked for on.
const MOST: usize = 8;
const BUSES: u16 = 4;
/// Ids, class, BAR 0, subsystem, interrupt line and pin.
const REGISTERS: [u16; 5] = [0x00, 0x08, 0x10, 0x2c, 0x3c];
/// Writes to CF8 in a row, without an access to CFC; more than any ring that collects them holds.
const FLOOD: u32 = 1000;
/// Reads by each vCPU for one such flood.
const READS: u64 = 16;

const CONFIG_ADDRESS: u16 = 0xcf8;

#[derive(Clone, Copy)]
struct Known {
    config: PortsConfig,
    values: [u32; REGISTERS.len()],
}

/// Who uses the ports.
struct Lock(AtomicBool);

impl Lock {
    fn with(&self, work: impl FnOnce()) {
        while self.0.swap(true, Ordering::Acquire) {
            while self.0.load(Ordering::Relaxed) {
                core::hint::spin_loop();
            }
        }
        work();
        self.0.store(false, Ordering::Release);
    }
}

pub struct Race {
    vcpus: usize,
    functions: usize,
    reads: u32,
    floods: u32,
}

impl fmt::Display for Race {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { vcpus, functions, reads, floods } = self;
        write!(f, "{vcpus} vCPUs, {functions} functions, {reads} reads, {floods} writes alone")
    }
}

/// What was wrong first: where, and what was there instead.
#[derive(Default)]
struct Wrong {
    times: AtomicU32,
    first: AtomicU64,
}

impl Wrong {
    fn note(&self, place: u32, value: u32) {
        if self.times.fetch_add(1, Ordering::Relaxed) == 0 {
            self.first.store(u64::from(place) << 32 | u64::from(value), Ordering::Relaxed);
        }
    }
}

pub fn run(boot: &Boot, rounds: u64) -> Check<Race> {
    let mut known = [const { None::<Known> }; MOST];
    let functions = known_functions(boot, &mut known)?;
    ensure!(functions >= 2, "{functions} functions, where two are needed");
    let vcpus = cpus::start(boot);
    ensure!(vcpus >= 2, "{vcpus} vCPUs, where two are needed");
    let (lock, wrong) = (Lock(AtomicBool::new(false)), Wrong::default());
    let (reads, floods) = (AtomicU32::new(0), AtomicU32::new(0));
    cpus::on_all(vcpus, &|index| {
        if index + 1 == vcpus {
            return flood(rounds, &lock, &floods);
        }
        for round in 0..rounds as usize {
            let Some(function) = known[(index + round) % functions] else { continue };
            let which = round % REGISTERS.len();
            let (register, value) = (REGISTERS[which], function.values[which]);
            let address = function.config.address(register);
            lock.with(|| {
                let found = function.config.read32(register);
                if found != value {
                    wrong.note(address, found);
                }
                // The address, too, is what this vCPU wrote last.
                if round % 16 == 0 {
                    let found = port::read32(CONFIG_ADDRESS);
                    if found != address {
                        wrong.note(0, found);
                    }
                }
            });
            reads.fetch_add(1, Ordering::Relaxed);
        }
    });
    let [wrong, first] = [u64::from(wrong.times.into_inner()), wrong.first.into_inner()];
    ensure!(wrong == 0, "{wrong} wrong values; the first was {:#x} at {:#x}", first as u32, first >> 32);
    Ok(Race { vcpus, functions, reads: reads.into_inner(), floods: floods.into_inner() })
}

/// Functions and their registers, by ECAM, which no other vCPU disturbs.
fn known_functions(boot: &Boot, known: &mut [Option<Known>; MOST]) -> Check<usize> {
    let Some(ecam) = boot.acpi.as_ref().and_then(|acpi| acpi.ecam()) else {
        return Err(Text::new(format_args!("no ECAM to compare with")));
    };
    let mut functions = 0;
    for number in 0..BUSES << 8 {
        let slot = Slot::new((number >> 8) as u8, (number >> 3 & 31) as u8, (number & 7) as u8);
        let Some(config) = ecam.at(slot) else { continue };
        if config.read32(0) == u32::MAX || functions == MOST {
            continue;
        }
        let values = REGISTERS.map(|register| config.read32(register));
        known[functions] = Some(Known { config: Ports.at(slot), values });
        functions += 1;
    }
    Ok(functions)
}

fn flood(rounds: u64, lock: &Lock, floods: &AtomicU32) {
    for round in 0..rounds.div_ceil(READS) as u32 {
        lock.with(|| {
            for number in 0..FLOOD {
                port::write32(CONFIG_ADDRESS, 1 << 31 | (round * FLOOD + number) << 2 & 0x00ff_fffc);
            }
        });
        floods.fetch_add(FLOOD, Ordering::Relaxed);
    }
}

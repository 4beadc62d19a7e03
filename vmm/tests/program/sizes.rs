//! Numbers of processors and sizes of memory.

use std::fs;

use crate::support::{Slotpass, needs_kvm, skipped};

/// What the kernel could give out at most, in MiB.
fn host_memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    let line = text.lines().find(|line| line.starts_with("MemTotal:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
}

#[test]
fn every_processor_works() {
    needs_kvm!();
    for cpus in [1, 2, 4] {
        let ended = Slotpass::exit("vcpus poweroff").args(["--cpus", &cpus.to_string()]).end();
        let ended = ended.expect_code(0).expect_stdout(&format!("ok vcpus {cpus}\n"));
        assert_eq!(ended.stdout.matches(" works\n").count(), cpus - 1, "{ended}");
    }
}

#[test]
fn small_guests_boot() {
    needs_kvm!();
    for memory in ["16M", "16777216", "18m", "32MiB", "65536K"] {
        Slotpass::exit("vcpus poweroff")
            .args(["--memory", memory])
            .end()
            .expect_code(0)
            .expect_stdout("ok vcpus 1");
    }
}

/// The demo's DMA also goes to the end of the memory above 4 GiB, where there is some.
#[test]
fn dma_and_vectors_work_with_every_size_and_processor() {
    needs_kvm!();
    for (memory, mebibytes, cpus) in [("64M", 64, 1), ("4G", 4096, 2), ("5G", 5120, 4)] {
        if host_memory() < mebibytes + 512 {
            skipped("dma_and_vectors_work_with_every_size_and_processor", "too little memory in this host");
            return;
        }
        let run = Slotpass::demo("0:8:0").simulated(["0:8:0"]);
        let ended = run.args(["--memory", memory, "--cpus", &cpus.to_string()]).end().expect_code(0);
        let line = |name: &str, value: String| {
            let found =
                ended.stdout.lines().find_map(|line| line.trim_start().strip_prefix(name)).map(str::trim);
            assert_eq!(found, Some(value.as_str()), "{name}\n{ended}");
        };
        line("memory ", format!("{mebibytes} MiB"));
        line("vCPUs ", cpus.to_string());
    }
}

#[test]
fn reserved_huge_pages_back_the_memory_or_are_asked_for() {
    needs_kvm!();
    let pool = "/sys/kernel/mm/hugepages/hugepages-2048kB/";
    let number = |name: &str| fs::read_to_string(format!("{pool}{name}")).ok()?.trim().parse::<u64>().ok();
    let Some(free) = number("free_hugepages") else {
        skipped("reserved_huge_pages_back_the_memory_or_are_asked_for", "no huge pages in this kernel");
        return;
    };
    let ended = Slotpass::exit("poweroff").args(["--hugepages", "--memory", "64M"]).end();
    if free >= 32 {
        ended.expect_code(0);
    } else {
        ended.expect_refusal(&["guest memory of 64 MiB", "32 huge pages of 2 MiB", "nr_hugepages"]);
    }
}

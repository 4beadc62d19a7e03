use super::super::facts::host::Host;
use super::super::facts::iommu::Reserved;
use super::super::facts::kvm::KvmFailure;
use super::super::facts::process::Process;
use super::super::finding::Level;
use super::super::tests::{asked, drive, facts, host, root, user, words};
use super::*;
use crate::memory::HUGE_PAGE;

fn guest(memory: u64) -> Guest {
    Guest { memory: memory.try_into().unwrap(), cpus: 1, huge_pages: false }
}

#[test]
fn memory_that_the_host_has_or_has_not() {
    let mut swapping = facts();
    (swapping.host.memory.available, swapping.host.memory.swap) = (1 << 30, 1 << 30);
    assert_eq!(memory::available(&swapping, guest(2 << 30)).level, Level::Note);
    assert_eq!(memory::available(&swapping, guest(3 << 30)).level, Level::Problem);
    swapping.process.group_room = Some(3 << 29);
    assert_eq!(memory::available(&swapping, guest(3 << 29)).level, Level::Note);
    assert_eq!(memory::available(&swapping, guest(2 << 30)).level, Level::Problem);
    for (memory_size, available, limit, with_functions, level, part) in [
        (1 << 30, 2u64 << 30, None, true, Level::Ok, "1 GiB of 2 GiB"),
        (2 << 30, 1 << 30, None, true, Level::Problem, "--memory 960M"),
        (2 << 30, 1 << 30, None, false, Level::Note, "as the guest touches it"),
        (2 << 30, 4 << 30, Some(1u64 << 30), true, Level::Problem, "this control group has free 1 GiB"),
        (2 << 30, 4 << 30, Some(1 << 30), true, Level::Problem, "--memory 960M"),
        // What doctor says can be given is enough for both, and a little more is not sure to be.
        (960 << 20, 1 << 30, None, true, Level::Ok, "960 MiB of 1 GiB"),
        (962 << 20, 1 << 30, None, true, Level::Note, "leaves little"),
        (1 << 30, 1 << 30, None, true, Level::Note, "leaves little"),
        (960 << 20, 4 << 30, Some(1 << 30), true, Level::Ok, "960 MiB of 1 GiB"),
        (1 << 30, 4 << 30, Some(1 << 30), true, Level::Note, "leaves little"),
    ] {
        let mut facts = facts();
        facts.host.memory.available = available;
        facts.process.group_room = limit;
        if !with_functions {
            facts.asked.clear();
        }
        let found = memory::available(&facts, guest(memory_size));
        assert_eq!(found.level, level, "{}", words(&found));
        assert!(words(&found).contains(part), "{part} in {}", words(&found));
    }
}

#[test]
fn memory_that_the_host_does_not_promise() {
    for (size, promise, proportion, part) in [
        (1u64 << 30, None, None, None),
        (1 << 30, None, Some(1u64 << 30), None),
        // Asked for in two parts, of which the larger counts.
        (4 << 30, None, Some(3 << 30), None),
        (2 << 30, None, Some(1 << 30), Some("--memory 960M")),
        (4 << 30, Some(3u64 << 30), None, Some("3 GiB")),
    ] {
        let mut facts = facts();
        (facts.host.memory.promise, facts.host.memory.proportion) = (promise, proportion);
        let found = memory::promised(&facts, guest(size));
        assert_eq!(found.is_some(), part.is_some(), "{size:#x}");
        assert!(part.is_none_or(|part| words(&found.unwrap()).contains(part)));
    }
}

#[test]
fn huge_pages_that_are_reserved_or_not() {
    let pool = |total, available| Some(crate::memory::PoolState { total, available });
    for (huge_pages, level, part) in [
        (pool(300, 256), Level::Ok, "256 of 256"),
        (pool(300, 200), Level::Problem, "echo '356' | tee"),
        (None, Level::Problem, "without --hugepages"),
    ] {
        let facts = Facts { host: Host { huge_pages, ..host() }, ..facts() };
        let found = memory::available(&facts, Guest { huge_pages: true, ..guest(512 << 20) });
        assert_eq!(found.level, level);
        assert!(words(&found).contains(part), "{part} in {}", words(&found));
    }
}

#[test]
fn locked_memory_and_its_limit() {
    let limited = |soft, hard, raises_limits| Process {
        memory_lock: Some(Limit { soft, hard }),
        raises_limits,
        ..user()
    };
    let need = 512 << 20;
    for (process, level, part) in [
        (root(), Level::Ok, "CAP_IPC_LOCK"),
        (limited(need, need, false), Level::Ok, "512 MiB of 512 MiB"),
        (limited(UNLIMITED, UNLIMITED, false), Level::Ok, "any amount"),
        (limited(need - 4096, UNLIMITED, false), Level::Problem, " ulimit -S -l 524288"),
        (limited(need - 4096, need, true), Level::Problem, " ulimit -S -l 524288"),
        (limited(8 << 20, 8 << 20, true), Level::Problem, " ulimit -l 524288"),
        (
            limited(8 << 20, 8 << 20, false),
            Level::Problem,
            "sudo prlimit --pid $$ --memlock=536870912:536870912",
        ),
        (limited(8 << 20, 8 << 20, false), Level::Problem, "LimitMEMLOCK=536870912"),
        (
            limited(8 << 20, 8 << 20, false),
            Level::Problem,
            "echo 'ann - memlock 524288' | sudo tee /etc/security/limits.d/slotpass-ann.conf",
        ),
        (
            Process { user: "1000".to_owned(), ..limited(8 << 20, 8 << 20, false) },
            Level::Problem,
            "echo ':1000 - memlock 524288' | sudo tee /etc/security/limits.d/slotpass-1000.conf",
        ),
        (Process { memory_lock: None, ..user() }, Level::Unknown, "/proc/self/limits"),
    ] {
        let found = memory::locked(&Facts { process, ..facts() }, guest(need)).unwrap();
        assert_eq!(found.level, level);
        assert!(words(&found).contains(part), "{part} in {}", words(&found));
    }
}

#[test]
fn the_guest_fits_into_what_the_iommu_translates() {
    let gib = 1u64 << 30;
    for (size, reserved, level, part) in [
        (512 << 20, None, Level::Ok, "39 bits"),
        // 39 bits are 512 GiB, of which one at 3 GiB is not the guest's memory.
        (511 * gib, None, Level::Ok, "39 bits"),
        (511 * gib + (2 << 20), None, Level::Problem, "--memory 523264M"),
        (600 * gib, None, Level::Problem, "39 bits"),
        (4 * gib, Some(0xb000_0000..0xb010_0000u64), Level::Problem, "--memory 2816M"),
        (2 * gib, Some(0xb000_0000..0xb010_0000), Level::Ok, "39 bits"),
        (8 * gib, Some(5 * gib..6 * gib), Level::Problem, "--memory 4096M"),
        (64 << 20, Some(0..0x1000), Level::Problem, "no size of memory fits"),
    ] {
        let mut function = drive();
        let range = |range| Reserved { range, kind: "reserved".to_owned() };
        function.reserved.extend(reserved.map(range));
        let facts = Facts { asked: vec![asked(function)], ..facts() };
        let found = io_addresses::translated(&facts, guest(size));
        assert_eq!(found[0].level, level, "{size:#x}: {}", words(&found[0]));
        assert!(words(&found[0]).contains(part), "{part} in {}", words(&found[0]));
        assert_eq!(found.len(), 1);
    }
}

/// What doctor says can be given is what the same rule accepts, and nothing more is.
#[test]
fn the_most_memory_fits_and_no_more() {
    for excluded in [
        vec![1u64 << 39..u64::MAX],
        vec![0xfd_0000_0000..0x100_0000_0000, 0xfee0_0000..0xfef0_0000],
        vec![0x8010_0000..0x8020_0000],
        vec![0xc000_0000..0xc000_1000],
        vec![0x1_0000_0000..0x1_0000_1000],
    ] {
        let most = io_addresses::most_memory(&excluded).unwrap();
        let fits = |bytes: u64| {
            crate::memory::ranges(bytes.try_into().unwrap())
                .iter()
                .all(|ram| excluded.iter().all(|range| ram.end <= range.start || range.end <= ram.start))
        };
        assert!(fits(most), "{most:#x} of {excluded:x?}");
        assert!(most == RamSize::MAX || !fits(most + HUGE_PAGE), "{most:#x} of {excluded:x?}");
    }
}

#[test]
fn bars_out_of_the_iommus_reach_are_no_problem() {
    let mut second = drive();
    second.sysfs.address = "0000:02:00.0".parse().unwrap();
    second.resources[0].size = 1 << 39;
    let facts = Facts { asked: vec![asked(drive()), asked(second)], ..facts() };
    let found = io_addresses::translated(&facts, guest(1 << 30));
    assert_eq!(found.iter().map(|f| f.level).collect::<Vec<_>>(), [Level::Ok, Level::Note]);
    assert!(words(&found[1]).contains("peer-to-peer"));
}

#[test]
fn dma_mappings_and_their_limit() {
    for (limit, by_device_file, level) in [
        (Some(65535), false, Some(Level::Ok)),
        (Some(3), false, Some(Level::Ok)),
        (Some(2), false, Some(Level::Note)),
        (Some(0), false, Some(Level::Problem)),
        (Some(0), true, None),
        (None, false, None),
    ] {
        let mut function = drive();
        function.by_device_file = by_device_file;
        let facts =
            Facts { host: Host { dma_entries: limit, ..host() }, asked: vec![asked(function)], ..facts() };
        assert_eq!(dma_mappings(&facts, guest(1 << 30)).map(|found| found.level), level, "{limit:?}");
    }
}

#[test]
fn open_files_and_their_limit() {
    for (hard, raises_limits, level, part) in [
        (1 << 20, false, Level::Ok, "122 at most"),
        (122, false, Level::Ok, ""),
        (121, false, Level::Note, "sudo prlimit --pid $$ --nofile=122:122"),
        (57, true, Level::Note, "ulimit -n 122"),
        (56, true, Level::Problem, "ulimit -n 122"),
    ] {
        let open_files = Some(Limit { soft: hard, hard });
        let facts = Facts { process: Process { open_files, raises_limits, ..user() }, ..facts() };
        let found = open_files_of(&facts);
        assert_eq!(found.level, level, "{}", words(&found));
        assert!(words(&found).contains(part), "{part} in {}", words(&found));
    }
}

/// Others than root do not see how many vectors there are, and none is no good guess.
#[test]
fn vectors_that_only_root_sees() {
    let mut function = drive();
    function.is_all_seen = false;
    function.shown.as_mut().unwrap().vectors = 0;
    let facts = Facts { asked: vec![asked(function)], ..facts() };
    for (hard, level, part) in [
        (1 << 20, Level::Ok, "2105 at most"),
        (2105, Level::Ok, "2105 at most"),
        (2104, Level::Note, "57 and one for each vector in use, 2105 at most"),
        (56, Level::Problem, "may have 56"),
    ] {
        let open_files = Some(Limit { soft: hard, hard });
        let facts = Facts { process: Process { open_files, ..user() }, ..facts.clone() };
        let found = open_files_of(&facts);
        assert_eq!(found.level, level, "{}", words(&found));
        assert!(words(&found).contains(part), "{part} in {}", words(&found));
    }
    let found = vectors(&facts);
    assert!(found.len() == 1 && found[0].level == Level::Note, "{found:?}");
    assert!(found[0].found.contains("not known"), "{found:?}");
}

fn open_files_of(facts: &Facts) -> Finding {
    open_files(facts, guest(1 << 30)).unwrap()
}

#[test]
fn vectors_that_kvm_or_the_host_have_not() {
    for (vectors_of_drive, processors, kind, parts) in [
        (65, 8, Kind::Intel, &["65 at most"][..]),
        (2048, 8, Kind::Intel, &["about 1600"]),
        (2048, 16, Kind::Amd, &["AMD-Vi"]),
        (2048, 1, Kind::Amd, &["about 200", "AMD-Vi"]),
    ] {
        let mut facts = facts();
        facts.host.processors = processors;
        facts.host.units[0].kind = kind;
        let mut function = drive();
        function.shown.as_mut().unwrap().vectors = vectors_of_drive;
        facts.asked = vec![asked(function.clone())];
        let found = vectors(&facts);
        assert_eq!(found.len(), parts.len(), "{found:?}");
        for (found, part) in found.iter().zip(parts) {
            assert!(words(found).contains(part), "{part} in {}", words(found));
            assert!(found.level < Level::Unknown);
        }
        facts.asked = vec![asked(function.clone()), asked(function)];
        let routed = vectors(&facts).iter().any(|found| found.found.contains("KVM routes 4072"));
        assert_eq!(routed, vectors_of_drive == 2048);
    }
}

#[test]
fn processors_that_kvm_runs() {
    for (cpus, of_kvm, parts) in [
        (1, Some(64), &[][..]),
        (64, Some(64), &[]),
        (65, Some(64), &["65 processors", "--cpus 64"]),
        (254, Some(1024), &[]),
        // More than the interrupt messages of a guest can name.
        (255, Some(1024), &["255 is not 1 to 254", "--cpus 254"]),
        (300, Some(64), &["300 is not 1 to 254", "--cpus 64"]),
        (0, Some(64), &["0 is not 1 to 254", "--cpus 1"]),
        (0, None, &["0 is not 1 to 254"]),
        (254, None, &[]),
    ] {
        let mut facts = facts();
        facts.host.kvm = match of_kvm {
            Some(cpus) => Kvms::Opens { routes: 4096, cpus, address_bits: 46 },
            None => Kvms::Fails(KvmFailure::Open(libc::ENOENT)),
        };
        let found = processors(&facts, Guest { cpus, ..Guest::default() });
        assert_eq!(found.is_some(), !parts.is_empty(), "{cpus}: {found:?}");
        if let Some(found) = &found {
            let fits = parts.iter().all(|part| words(found).contains(part));
            assert!(found.level == Level::Problem && fits, "{parts:?} in {}", words(found));
        }
    }
}

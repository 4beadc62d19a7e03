//! The images under QEMU's CPU emulation, which needs neither KVM nor root. Skipped, loudly, where there is no QEMU.

// Clippy exempts test functions by itself, but not what they call.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use guest::pattern::{self, Checksum};

const QEMU: &str = "/usr/bin/qemu-system-x86_64";
/// So that a guest that hangs does not hang the tests.
const LONGEST_RUN: Duration = Duration::from_secs(300);

struct Run {
    code: Option<i32>,
    serial: String,
}

/// A file of this test's own.
fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}", std::process::id()))
}

/// An empty disk image of this test's own.
fn blank(name: &str) -> PathBuf {
    let path = file(name);
    fs::File::create(&path).unwrap().set_len(1 << 20).unwrap();
    path
}

/// Boots the image; `test` names its file; `input` is sent once the guest has said `ready`. `None` if there is no
/// QEMU.
fn boot(test: &str, image: &[u8], command_line: &str, more: &[&str], input: &[u8]) -> Option<Run> {
    if !Path::new(QEMU).exists() {
        // Not by eprintln, which the test harness keeps to itself.
        let text = format!("SKIPPED: {test}: {QEMU} is missing (Debian: qemu-system-x86)\n");
        std::io::stderr().write_all(text.as_bytes()).unwrap();
        return None;
    }
    let path = file(&format!("{test}.elf"));
    fs::write(&path, image).unwrap();
    let mut qemu = Command::new(QEMU)
        .args(["-accel", "tcg", "-M", "q35", "-m", "256", "-nodefaults", "-display", "none"])
        .args(["-serial", "stdio", "-device", "isa-debug-exit,iobase=0xf4,iosize=4"])
        .arg("-kernel")
        .arg(&path)
        .args(["-append", command_line])
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdin, mut stdout) = (qemu.stdin.take().unwrap(), qemu.stdout.take().unwrap());
    let mut input = Some(input.to_vec());
    let reader = thread::spawn(move || {
        let (mut serial, mut chunk) = (Vec::new(), [0; 1024]);
        loop {
            let count = stdout.read(&mut chunk).unwrap();
            serial.extend_from_slice(&chunk[..count]);
            if count == 0 {
                return String::from_utf8(serial).unwrap();
            }
            // A 16550 loses what comes before its FIFO is on.
            if serial.windows(6).any(|line| line == b"ready\n")
                && let Some(input) = input.take()
            {
                stdin.write_all(&input).unwrap();
            }
        }
    });
    let begin = Instant::now();
    let status = loop {
        if let Some(status) = qemu.try_wait().unwrap() {
            break status;
        }
        if begin.elapsed() > LONGEST_RUN {
            qemu.kill().unwrap();
        }
        thread::sleep(Duration::from_millis(10));
    };
    fs::remove_file(path).unwrap();
    Some(Run { code: status.code(), serial: reader.join().unwrap() })
}

/// Runs `exit` and sees its exit code and what its lines contain.
fn expect_exit(test: &str, command_line: &str, more: &[&str], code: i32, lines: &[&str]) {
    let Some(run) = boot(test, guest::EXIT, command_line, more, b"") else { return };
    assert_eq!(run.code, Some(code), "{}", run.serial);
    for line in lines {
        assert!(run.serial.contains(line), "{line:?} is missing in {:?}", run.serial);
    }
}

#[test]
fn exit_code() {
    expect_exit("exit_code", "code=3", &[], 7, &["exit: code=3"]);
}

#[test]
fn power_off() {
    expect_exit("power_off", "poweroff", &[], 0, &[]);
}

#[test]
fn a_panic_is_reported() {
    expect_exit("panic", "panic", &[], 0x7c << 1 | 1, &["FAIL panicked at", "as asked"]);
}

#[test]
fn an_unknown_word_is_refused() {
    expect_exit("unknown", "cod=3", &[], 5, &["FAIL unknown word cod=3"]);
}

#[test]
fn a_triple_fault_resets() {
    expect_exit("triple_fault", "triple-fault", &["-no-reboot"], 0, &[]);
}

#[test]
fn resets_are_counted() {
    expect_exit(
        "resets",
        "reset=2",
        &[],
        0,
        &["reset 0 of 2\n", "reset 1 of 2\n", "reset 2 of 2\n", "ok reset 2 times\n"],
    );
}

#[test]
fn further_vcpus_work() {
    expect_exit(
        "vcpus",
        "vcpus",
        &["-smp", "3"],
        1,
        &["vcpu 1 apic 1 works\n", "vcpu 2 apic 2 works\n", "ok vcpus 3\n"],
    );
}

#[test]
fn absent_functions_are_all_ones() {
    // QEMU answers addresses that nobody claims with zeros.
    expect_exit("absent", "probe-empty=no-memory", &[], 1, &["ok probe-empty absent functions: 102"]);
}

#[test]
fn the_console_echoes() {
    let Some(run) = boot("echo", guest::EXIT, "echo code=9", &[], b"one\ntwo words\nquit\n") else { return };
    assert_eq!(run.code, Some(19), "{}", run.serial);
    assert!(run.serial.ends_with("echo one\necho two words\n"), "{:?}", run.serial);
}

#[test]
fn devices_are_driven() {
    let memory = file("ivshmem");
    let backend = format!("memory-backend-file,id=m,size=4M,share=on,mem-path={}", memory.display());
    let run = boot(
        "devices",
        guest::DEVICES,
        "edu=0:8:2 testdev=9 ivshmem=0:10:0 step=4096 seed=7 poweroff",
        &[
            "-device",
            "pci-testdev,addr=8.0,multifunction=on",
            "-device",
            "edu,addr=8.2",
            "-device",
            "pci-testdev,addr=9",
            "-object",
            &backend,
            "-device",
            "ivshmem-plain,memdev=m,addr=0xa",
        ],
        b"",
    );
    let Some(run) = run else { return };
    assert_eq!(run.code, Some(0), "{}", run.serial);
    for start in ["ok edu 0:8:2 ", "ok testdev 9 ", "ok ivshmem 0:10:0 4 MiB"] {
        assert!(run.serial.lines().any(|line| line.starts_with(start)), "{start:?} in {:?}", run.serial);
    }

    let bytes = fs::read(&memory).unwrap();
    fs::remove_file(&memory).unwrap();
    let mut checksum = Checksum::new();
    for offset in pattern::offsets(4 << 20, 4096) {
        let place = usize::try_from(offset).unwrap();
        let word = u64::from_le_bytes(bytes[place..place + 8].try_into().unwrap());
        assert_eq!(word, pattern::word(offset, 7), "the file at {offset:#x}");
        checksum.add(word);
    }
    let line = format!("checksum {:#018x}\n", checksum.value());
    assert!(run.serial.contains(&line), "{line:?} in {:?}", run.serial);
}

/// QEMU's q35 has pin A of devices 8 and 12 on GSI 20. It resets a function in no time.
#[test]
fn level_interrupts_resets_and_power_states() {
    let image = blank("resets.img");
    let drive = format!("id=d,if=none,format=raw,file={}", image.display());
    let run = boot(
        "levels",
        guest::DEVICES,
        "intx=8 shares=8,12 edu=12 flr=9 power=9 gsi=20 poweroff",
        &[
            "-device",
            "edu,addr=8",
            "-device",
            "edu,addr=c",
            "-drive",
            &drive,
            "-device",
            "nvme,drive=d,serial=d,addr=9",
        ],
        b"",
    );
    fs::remove_file(image).unwrap();
    let Some(run) = run else { return };
    assert_eq!(run.code, Some(0), "{}", run.serial);
    for start in
        ["ok intx 8 gsi 20, ", "ok shares 8,12 gsi 20, 200 ", "ok edu 12 ", "ok flr 9 FLR", "ok power 9 "]
    {
        assert!(run.serial.lines().any(|line| line.starts_with(start)), "{start:?} in {:?}", run.serial);
    }
}

#[test]
fn a_drive_raises_2048_vectors() {
    let image = blank("vectors.img");
    let drive = format!("id=d,if=none,format=raw,file={}", image.display());
    let run = boot(
        "vectors_2048",
        guest::VECTORS,
        "at-once one-by-one pending",
        &["-drive", &drive, "-device", "nvme,drive=d,serial=d,addr=8,msix_qsize=2048"],
        b"",
    );
    fs::remove_file(image).unwrap();
    let Some(run) = run else { return };
    assert_eq!(run.code, Some(0), "{}", run.serial);
    for line in [
        "ok at-once 2048 vectors, delivered 2048\n",
        "ok one-by-one 2048 vectors, delivered 2048\n",
        "ok pending vectors 1, 1024 and 2047: ",
    ] {
        assert!(run.serial.contains(line), "{line:?} in {:?}", run.serial);
    }
}

#[test]
fn a_wrong_device_fails() {
    let run =
        boot("wrong", guest::DEVICES, "edu=0:9:0 ivshmem=0:32:0", &["-device", "pci-testdev,addr=9"], b"");
    let Some(run) = run else { return };
    assert_eq!(run.code, Some(3), "{}", run.serial);
    assert!(run.serial.contains("FAIL edu 0:9:0 00:09.0 is 1b36:0005, not 1234:11e8\n"), "{:?}", run.serial);
    assert!(run.serial.contains("FAIL ivshmem 0:32:0 \"0:32:0\" is not a slot\n"), "{:?}", run.serial);
}

#[test]
fn the_demo_misses_its_function() {
    let Some(run) = boot("demo", guest::DEMO, "slot=0:9:0", &[], b"") else { return };
    assert_eq!(run.code, Some(0x70 << 1 | 1), "{}", run.serial);
    assert!(run.serial.contains("FAIL no function at 00:09.0\n"), "{:?}", run.serial);
}

/// The words behind `bench NAME`; none if there is no such line.
fn measured<'a>(serial: &'a str, name: &str) -> &'a str {
    let words = |line: &'a str| line.strip_prefix("bench ")?.strip_prefix(name)?.strip_prefix(' ');
    serial.lines().find_map(words).unwrap_or("")
}

#[test]
fn every_measurement_has_its_samples_or_a_reason() {
    let device = ["-device", "edu,addr=8"];
    let Some(run) = boot("bench", guest::BENCH, "iterations=50 slot=0:8:0", &device, b"") else { return };
    assert_eq!(run.code, Some(0), "{}", run.serial);
    for name in
        ["empty", "empty-port", "pio-read", "mmio-write", "cf8-read", "ecam-write", "bar-read", "interrupt"]
    {
        let runs = measured(&run.serial, name).strip_prefix("cycles ").unwrap();
        let samples =
            runs.split(' ').map(|run| run.split_once('*').map_or(1, |(_, count)| count.parse().unwrap()));
        assert_eq!(samples.sum::<u64>(), 50, "{name}: {runs}");
    }
    assert_eq!(measured(&run.serial, "msix-read"), "absent 00:08.0 has no MSI-X");
    assert!(measured(&run.serial, "trapped-write").starts_with("absent not slotpass' simulated function"));
}

#[test]
fn measurements_are_made_as_they_are_named() {
    let words = "bar-read=0:0 empty slot=9 iterations=3 bar-read=0:0x10000 cf8-read";
    let device = ["-device", "edu,addr=8"];
    let Some(run) = boot("bench_named", guest::BENCH, words, &device, b"") else { return };
    assert_eq!(run.code, Some(0), "{}", run.serial);
    let lines = run.serial.lines().filter_map(|line| line.strip_prefix("bench "));
    let heads: Vec<_> = lines.map(|line| line.splitn(3, ' ').take(2).collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(heads, ["bar-read absent", "empty cycles", "bar-read absent", "cf8-read absent"]);
}

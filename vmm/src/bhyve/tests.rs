//! What descriptions say, as tables; and that any text is either one or not.

use std::path::Path;

use proptest::prelude::*;

use super::description::Described;
use super::error::BhyveError;
use super::export::{ExportError, Exported};
use super::{args, config};
use crate::slot_map::Assignment;

fn config(text: &str) -> Result<Described, BhyveError> {
    config::parse(Path::new("vm.cfg"), text.as_bytes())
}

/// The slot map as `--slot` takes it.
fn slots(described: &Described) -> Vec<String> {
    described.file.assignments().map(|assignment| assignment.to_string()).collect()
}

fn notes(described: &Described) -> Vec<String> {
    described.notes.iter().map(ToString::to_string).collect()
}

#[test]
fn functions_of_a_command_line() {
    for (text, wanted) in [
        ("", &[][..]),
        ("-S -A -s 0:8:0,passthru,/dev/ppt0", &["0:8:0=/dev/ppt0"]),
        ("bhyve -SA -s0:8:0,passthru,/dev/ppt0 vm", &["0:8:0=/dev/ppt0"]),
        ("/usr/sbin/bhyve -S -s 8,passthru,/dev/ppt12", &["0:8:0=/dev/ppt12"]),
        (
            "-S -s 8:1,passthru,/dev/ppt1,rom=/a.rom,bootindex=2 -s 8,passthru,rom=/b=c,/dev/ppt0",
            &["0:8:0=/dev/ppt0,rom=/b=c", "0:8:1=/dev/ppt1,rom=/a.rom"],
        ),
        ("-S -s 08:01,passthru,path=/dev/ppt1", &["0:8:1=/dev/ppt1"]),
        ("-S -s 255:31:7,passthru,ppt3", &["255:31:7=ppt3"]),
        ("-S -s 9,passthru,pptdev=ppt3,rom='/with space'", &["0:9:0=ppt3,rom=/with space"]),
        ("-S -s 9,passthru,/dev/ppt0,msix-page=trap", &["0:9:0=/dev/ppt0,msix-page=trap"]),
        ("-S -s 9,passthru,pci0:10:31:7", &["0:9:0=0000:0a:1f.7"]),
        ("-S -s 9,passthru,pci10:31:7,rom=x", &["0:9:0=0000:0a:1f.7,rom=x"]),
        ("-S -s 9,passthru,255/0/1", &["0:9:0=0000:ff:00.1"]),
        ("-S -s 9,passthru,bus=1,slot=02,func=3", &["0:9:0=0000:01:02.3"]),
        // Named for illumos as well.
        ("-S -s 9,passthru,/dev/ppt0,1/2/3", &["0:9:0=0000:01:02.3"]),
        ("-S -s 9,passthru -o pci.0.9.0.path=/dev/ppt1", &["0:9:0=/dev/ppt1"]),
        ("-S -o pci.0.9.0.device=passthru -o pci.0.9.0.pptdev=ppt1 -- vm", &["0:9:0=ppt1"]),
        ("-S -s 9,passthru,/dev/ppt0,rom=/roms/%(name).rom vm1", &["0:9:0=/dev/ppt0,rom=/roms/vm1.rom"]),
        ("-c 2 -m 1G -S -U 5 -l com1,stdio -B x -p 0:1 -k /dev/null -f a -G w1 -r b -n c -g 0 -K d", &[]),
        ("-abACdDeHIMPSuwWxY vm", &[]),
    ] {
        let described = args::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(slots(&described), wanted, "{text}");
    }
}

#[test]
fn command_lines_that_bhyve_would_not_take() {
    for (text, reason) in [
        (
            "-s 8,passthru,/dev/ppt0 -s 8:0,passthru,/dev/ppt1",
            "-s 8:0,passthru,/dev/ppt1: slot 0:8:0 is already occupied by \"passthru\"",
        ),
        (
            "-s 4,virtio-blk,/disk -s 0:4:0,passthru,/dev/ppt0",
            "slot 0:4:0 is already occupied by \"virtio-blk\"",
        ),
        ("-o pci.0.4.0.path=x -s 4,passthru,/dev/ppt0", "slot 0:4:0 is already occupied by \"pci.0.4.0\""),
        ("-s 4,pasthru,/dev/ppt0", "-s 4,pasthru,/dev/ppt0: slot 0:4:0: bhyve has no device \"pasthru\""),
        ("-s 4", "\"4\" is not SLOT,DEVICE[,CONF]"),
        ("-s 4,", "\"4,\" is not SLOT,DEVICE[,CONF]"),
        ("-s 4,,x", "is not SLOT,DEVICE[,CONF]"),
        ("-s help", "\"help\" is not SLOT,DEVICE[,CONF]"),
        ("-s 8x,passthru,/dev/ppt0", "is not SLOT,DEVICE[,CONF]"),
        ("-s '8\n9,passthru,/dev/ppt0'", "is not SLOT,DEVICE[,CONF]"),
        ("-s 1:2:3:4,passthru,/dev/ppt0", "slot '1:2:3:4' is not D, D:F or B:D:F"),
        ("-s 32,passthru,/dev/ppt0", "device 32 is out of range (0 to 31)"),
        ("-s 8:8,passthru,/dev/ppt0", "function 8 is out of range (0 to 7)"),
        ("-s 256:8:0,passthru,/dev/ppt0", "bus 256 is out of range (0 to 255)"),
        ("-s 8,passthru", "slot 0:8:0: passthru needs a function: pci.0.8.0.path=/dev/pptN"),
        ("-s 8,passthru,rom=x", "passthru needs a function"),
        ("-s 8,passthru,bus=1,slot=2", "passthru needs a function"),
        ("-s 8,passthru,", "\"\" is no function for passthru"),
        ("-s 8,passthru,/dev/ppt0,ro", "\"ro\" is no function for passthru"),
        ("-s 8,passthru,/dev/ppt0,rom=", "\"rom=\" has no value"),
        ("-s 8,passthru,/dev/ppt0,msix-page=x", "msix-page=\"x\" is neither trap nor read-only"),
        ("-s 8,passthru,/dev/ppt0,a.b=1", "\"a.b\" is no name"),
        ("-s 8,passthru,/dev/ppt", "\"/dev/ppt\" is not /dev/pptN"),
        ("-s 8,passthru,/dev/ppt0x", "\"/dev/ppt0x\" is not /dev/pptN"),
        ("-s 8,passthru,path=0000:01:00.0", "\"0000:01:00.0\" is not /dev/pptN"),
        ("-s 8,passthru,path=ppt0", "\"ppt0\" is not /dev/pptN"),
        ("-s 8,passthru,pptdev=/dev/ppt0", "\"/dev/ppt0\" is not pptN"),
        ("-s 8,passthru,pptx", "\"pptx\" is not pptN"),
        ("-s 8,passthru,/dev/ppt0,ppt1", "by path and by pptdev"),
        ("-s 8,passthru,/dev/ppt0,ppt1", "by path and by pptdev"),
        ("-s 8,passthru,pci1:2:3:4", "\"pci1:2:3:4\": bhyve passes through functions of PCI domain 0 only"),
        ("-s 8,passthru,pci1:2", "\"pci1:2\" is no function for passthru"),
        ("-s 8,passthru,1/2", "\"1/2\" is no function"),
        ("-s 8,passthru,0/1/2/3", "\"0/1/2/3\" is no function"),
        ("-s 8,passthru,1/2/+3", "\"1/2/+3\" is no function"),
        ("-s 8,passthru,5/0/21", "pci.0.8.0.func: \"21\" is not a number from 0 to 7"),
        ("-s 8,passthru,256/0/0", "pci.0.8.0.bus: \"256\" is not a number from 0 to 255"),
        ("-s 8,passthru,1/32/0", "pci.0.8.0.slot: \"32\" is not a number from 0 to 31"),
        ("-s 8,passthru,/dev/ppt0,rom=%(none)", "it refers to variable \"none\", which is not set"),
        ("-z", "-z: bhyve has no option 'z'"),
        ("-Sé", "bhyve has no option 'é'"),
        ("-h", "-h: with it bhyve shows its help"),
        ("-s", "-s: no value after it"),
        ("-m ''", "no value after it"),
        ("-o memory.wired", "-o memory.wired: \"memory.wired\" is not KEY=VALUE"),
        ("-o memory.wired=maybe", "-o memory.wired=maybe: memory.wired: \"maybe\" is not true, on, yes"),
        ("vm -S", "\"-S\" comes after the VM's name \"vm\""),
        ("-S vm other", "\"other\" comes after the VM's name \"vm\""),
        ("-S 'vm", "a quote or a backslash has nothing after it"),
        ("-k /no/such/file", "/no/such/file: No such file"),
        ("-k /", "/: Is a directory"),
        ("-k 'a\nb'", "a\\nb: No such file"),
        ("-k /dev/zero", "/dev/zero: more than 1048576 bytes"),
        ("-c x", "-c x: cpus: \"x\" is not a number from 1 to 65535"),
        ("-c cpus=", "is not [[cpus=]N]"),
        ("-c 2,boards=1", "is not [[cpus=]N]"),
        ("-c 4,cores=2", "4 sockets of 2 cores of 1 threads are not 4 processors"),
        ("-c sockets=16,cores=16", "256 processors; slotpass gives a guest 1 to 254"),
        ("-m x", "-m x: memory.size: \"x\" is not a number of bytes"),
        ("-m 3M", "-m 3M: memory.size: memory size 3145728 bytes: too small"),
    ] {
        let error = args::parse(text).map(|it| slots(&it)).expect_err(text).to_string();
        assert!(error.contains(reason), "{text}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn functions_of_a_file() {
    let described = config(
        "# as OmniOS' boot hook writes it\n\nname=web\nmemory.wired=true\nmemory.size=4G\ncpus=0x2\ncores=2\nsockets=1\n\
         pci.0.0.0.device=hostbridge\npci.0.9.0.device=passthru\npci.0.9.0.path=/dev/ppt1\n\
         pci.0.9.1.device=passthru\npci.0.9.1.pptdev=ppt2\npci.0.9.1.rom=/roms/%(name),1.rom\n\
         pci.0.4.0.device=virtio-blk\npci.0.4.0.path=/dev/zvol/dsk/web\npci.enable_bars=true\n\
         pci.3.0.0.device=passthru\npci.3.0.0.bus=1\npci.3.0.0.slot=0\npci.3.0.0.func=7\nx86.mptable=off",
    )
    .unwrap();
    assert_eq!(
        slots(&described),
        ["0:9:0=/dev/ppt1", "0:9:1=ppt2,rom=/roms/web,1.rom", "3:0:0=0000:01:00.7"]
    );
    assert_eq!((described.file.cpus, described.file.memory), (Some(2), "4G".parse().ok()));
    let notes = notes(&described);
    for (note, part) in
        notes.iter().zip(["slot 0:0:0", "\"virtio-blk\" of slot 0:4:0 is left out", "\"pci.enable_bars\""])
    {
        assert!(note.starts_with("vm.cfg:") && note.contains(part), "{note}");
    }
    assert_eq!(notes.len(), 3, "{notes:?}");
}

#[test]
fn files_that_bhyve_would_not_take_or_not_look_at() {
    for (text, reason) in [
        ("memory.wired=true\n # no comment", "vm.cfg:2: \" # no comment\" is not KEY=VALUE"),
        ("a=1\r\n\r\n", "vm.cfg:2: \"\\r\" is not KEY=VALUE"),
        ("memory.wired=true\r\n", "vm.cfg:1: memory.wired: \"true\\r\" is not true"),
        ("pci.0.8.0.path=/dev/ppt0", "vm.cfg:1: slot 0:8:0 has no device: pci.0.8.0.device is missing"),
        ("pci.0.08.0.device=passthru", "vm.cfg:1: \"pci.0.08.0.device\" is not pci.BUS.SLOT.FUNC.VARIABLE"),
        ("pci.0.32.0.device=passthru", "is not pci.BUS.SLOT.FUNC"),
        ("pci.256.1.0.device=passthru", "is not pci.BUS.SLOT.FUNC"),
        ("pci.0.1.8.device=passthru", "is not pci.BUS.SLOT.FUNC"),
        ("pci.0.8.device=passthru", "is not pci.BUS.SLOT.FUNC"),
        ("pci.0.8.0=passthru", "is not pci.BUS.SLOT.FUNC"),
        ("pci.0.8.0.device=\\%", "bhyve has no device \"%\""),
        ("pci.0.8.0.device=%", "vm.cfg:1: value \"%\": a % is neither"),
        ("cpus=0", "vm.cfg:1: cpus: \"0\" is not a number from 1 to 65535"),
        ("cpus=255", "vm.cfg:1: 255 processors"),
        ("memory.size=1E", "memory.size: memory size 1152921504606846976 bytes: too large"),
        ("x86.mptable=never", "x86.mptable: \"never\" is not true"),
        ("name=\0", "vm.cfg:1: not UTF-8, or a NUL"),
    ] {
        let error = config(text).map(|it| slots(&it)).expect_err(text).to_string();
        assert!(error.contains(reason), "{text}: {error}");
    }
    let error = config::parse(Path::new("x"), b"a=1\nb=\xff").expect_err("no text").to_string();
    assert!(error.starts_with("x:2: not UTF-8"), "{error}");
}

#[test]
fn what_bhyve_would_refuse_and_slotpass_does_not_is_a_warning() {
    for (text, wanted) in [
        ("-S -s 8,passthru,/dev/ppt0", &[][..]),
        ("-s 8,passthru,/dev/ppt0", &["passthru requires guest memory to be wired"]),
        ("-S -o memory.wired=no -s 8,passthru,/dev/ppt0", &["guest memory to be wired"]),
        ("-s 8,nvme,x", &["-s 8,nvme,x: \"nvme\" of slot 0:8:0 is left out"]),
        (
            "-S -s 1:8:0,passthru,/dev/ppt0",
            &["MPtable is incompatible with multiple PCI hierarchies\", for slot 1:8:0"],
        ),
        ("-SY -s 1:8:0,passthru,/dev/ppt0", &[]),
        ("-w -l com1,stdio -s 31,lpc -o my.own=1 -S -s 8,passthru,/dev/ppt0,bootindex=1", &[]),
    ] {
        let described = args::parse(text).unwrap();
        let warnings: Vec<String> =
            described.notes.iter().filter(|note| note.is_warning()).map(ToString::to_string).collect();
        assert_eq!(warnings.len(), wanted.len(), "{text}: {warnings:?}");
        for (warning, part) in warnings.iter().zip(wanted) {
            assert!(warning.contains(part), "{warning}");
        }
    }
    let text = "-w -l com1,stdio -s 31,lpc -o my.own=1 -S -s 8,passthru,/dev/ppt0,bootindex=1";
    let notes = notes(&args::parse(text).unwrap());
    for part in
        ["-w: \"x86.strictmsr\"", "-l com1,stdio: ", "\"lpc\" of slot 0:31:0", "\"my.own\"", "bootindex"]
    {
        assert_eq!(notes.iter().filter(|note| note.contains(part)).count(), 1, "{part}: {notes:?}");
    }
    assert_eq!(notes.len(), 5);
}

/// What is written of these slots: variables, and options.
fn exported(slots: &[&str]) -> (Result<String, Vec<ExportError>>, Result<String, Vec<ExportError>>) {
    let assignments: Vec<Assignment> = slots.iter().map(|slot| slot.parse().unwrap()).collect();
    let exported =
        Exported { assignments: &assignments, empty_ports: &[], memory: "1G".parse().ok(), cpus: Some(2) };
    (exported.variables(), exported.arguments())
}

#[test]
fn a_slot_map_in_bhyves_words() {
    let (variables, options) = exported(&["0:9:0=0000:0a:1f.7", "0:8:0=/dev/ppt0,rom=/a b%", "3:0:0=ppt1"]);
    assert_eq!(
        variables.unwrap(),
        "cpus=2\nmemory.size=1024M\nmemory.wired=true\nacpi_tables=true\nx86.mptable=false\n\
         pci.0.8.0.device=passthru\npci.0.8.0.path=/dev/ppt0\npci.0.8.0.rom=/a b\\%\n\
         pci.0.9.0.device=passthru\npci.0.9.0.bus=10\npci.0.9.0.slot=31\npci.0.9.0.func=7\n\
         pci.3.0.0.device=passthru\npci.3.0.0.pptdev=ppt1\n"
    );
    assert_eq!(
        options.unwrap(),
        "-c 2 -m 1024M -S -A -Y -s \"0:8:0,passthru,/dev/ppt0,rom=/a b\\\\%\" -s 0:9:0,passthru,10/31/7 \
         -s 3:0:0,passthru,ppt1\n"
    );
    let (variables, options) = exported(&["0:8:0=/sys/bus/pci/devices/0000:01:00.0"]);
    assert!(variables.unwrap().ends_with("\npci.0.8.0.bus=1\npci.0.8.0.slot=0\npci.0.8.0.func=0\n"));
    assert!(options.unwrap().ends_with(" -S -s 0:8:0,passthru,1/0/0\n"));
    let nothing = Exported { assignments: &[], empty_ports: &[], memory: None, cpus: None };
    assert_eq!((nothing.variables(), nothing.arguments()), (Ok(String::new()), Ok(String::new())));
}

#[test]
fn what_bhyve_cannot_be_told() {
    let (variables, _) = exported(&[
        "0:8:0=sim:demo",
        "0:9:0=fd:5",
        "0:10:0=10000:01:00.0",
        "0:11:0=/some/thing",
        "1:0:0=/dev/ppt0,port",
        "0:12:0=/dev/pptx",
    ]);
    let errors: Vec<String> = variables.unwrap_err().iter().map(ToString::to_string).collect();
    let wanted = [
        "simulated",
        "open file",
        "PCI domain 10000",
        "neither a PCI address",
        "root port",
        "/dev/pptx is neither",
    ];
    assert_eq!(errors.len(), wanted.len(), "{errors:?}");
    for (error, part) in errors.iter().zip(wanted) {
        assert!(error.starts_with("slot ") && error.contains(part), "{error}");
    }
    let with_rom = |rom: &str| {
        let mut assignment: Assignment = "0:8:0=/dev/ppt0".parse().unwrap();
        assignment.rom = Some(rom.into());
        let all = [assignment];
        let exported = Exported { assignments: &all, empty_ports: &[], memory: None, cpus: None };
        (exported.variables().is_ok(), exported.arguments().is_ok())
    };
    assert_eq!(
        (with_rom("a=b%c\\ 'd"), with_rom("a,b"), with_rom("a\nb")),
        ((true, true), (true, false), (false, false))
    );
    let port = Exported { assignments: &[], empty_ports: &[3], memory: None, cpus: None };
    assert_eq!(port.variables(), Err(vec![ExportError::EmptyPort { bus: 3 }]));
}

fn device() -> impl Strategy<Value = String> {
    prop_oneof![
        (0..1000u32).prop_map(|n| format!("/dev/ppt{n}")),
        (0..1000u32).prop_map(|n| format!("ppt{n}")),
        (any::<u8>(), 0..32u8, 0..8u8)
            .prop_map(|(bus, device, function)| format!("0000:{bus:02x}:{device:02x}.{function}")),
    ]
}

/// A slot map with each slot once, by slot, and files' names that `--slot` can have.
fn slot_map() -> impl Strategy<Value = Vec<Assignment>> {
    let rom = proptest::option::of(r#"[a-z/%\\(){}=#'" $é.\t-]{1,12}"#);
    proptest::collection::btree_map(any::<u16>(), (device(), rom, any::<bool>()), 0..12).prop_map(|slots| {
        let assignment = |(id, (device, rom, trap)): (u16, (String, Option<String>, bool))| {
            let slot = passthru::pci::Slot::from_requester_id(id);
            let rom = rom.map(|rom| format!(",rom={rom}")).unwrap_or_default();
            let page = if trap { ",msix-page=trap" } else { "" };
            format!("{slot}={device}{rom}{page}").parse().unwrap()
        };
        slots.into_iter().map(assignment).collect()
    })
}

/// Texts that come near to what is read.
fn like_bhyves() -> impl Strategy<Value = String> {
    let word = proptest::sample::select(vec![
        "-s",
        "-S",
        "-o",
        "-k",
        "-c",
        "-m",
        "--",
        " ",
        " ",
        "\n",
        "'",
        "\\",
        "%",
        "%(",
        "(",
        ")",
        "%(name)",
        "=",
        ",",
        ".",
        ":",
        "/",
        "0",
        "8",
        "31",
        "256",
        "pci.0.8.0.",
        "pci",
        "device",
        "passthru",
        "path",
        "pptdev",
        "rom",
        "msix-page",
        "trap",
        "bus",
        "slot",
        "func",
        "/dev/ppt0",
        "ppt1",
        "memory.size",
        "memory.wired",
        "cpus",
        "x86.mptable",
        "true",
        "virtio-blk",
        "name",
        "#",
        "\0",
        "é",
    ]);
    proptest::collection::vec(word, 0..40).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(map in slot_map()) {
        let exported = Exported { assignments: &map, empty_ports: &[], memory: None, cpus: None };
        for described in [
            config(&exported.variables().unwrap()).unwrap(),
            args::parse(&exported.arguments().unwrap()).unwrap(),
        ] {
            prop_assert_eq!(described.file.assignments().collect::<Vec<_>>(), map.clone());
            prop_assert!(described.notes.is_empty(), "{:?}", described.notes);
        }
    }

    #[test]
    fn any_text_is_a_description_or_one_message(text in prop_oneof![".{0,200}", like_bhyves()]) {
        for error in [args::parse(&text).err(), config(&text).err()].into_iter().flatten() {
            prop_assert_eq!(error.to_string().lines().count(), 1);
        }
    }

    #[test]
    fn any_bytes_are_a_file_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = config::parse(Path::new("x"), &bytes);
    }
}

//! Functions that cannot be opened, and functions that say of themselves what makes no sense.

use std::path::Path;

use passthru::host::ppt::{GuestMemory, OpenError, PptFunction, Vm};
use passthru::host::{Description, HostFunction, Region};
use ppt_over_vfio::Options;

use crate::guest::*;
use crate::world::*;

#[test]
fn whatever_fails_while_it_is_opened_leaves_nothing_bound_or_open() {
    for (request, way, bound) in [
        (BAR_QUERY, OnTheWay::Nowhere, false),
        (CFG_READ, OnTheWay::Nowhere, false),
        (BIND, OnTheWay::Nowhere, false),
        (LIMITS, OnTheWay::Nowhere, true),
        (LIMITS, OnTheWay::Unbound, true),
        (BAR_QUERY, OnTheWay::NowhereOnceBound, true),
        (CFG_READ, OnTheWay::NowhereOnceBound, true),
    ] {
        let world = World::new(Options::default());
        world.alter(request, way);
        let error = world.open_in("a").err().unwrap();
        assert!(error.to_string().starts_with("/dev/ppt0: "), "{error}");
        let requests = world.take_requests();
        assert_eq!(requests.contains(&UNBIND), bound, "{request:#x} {way:?}: {requests:x?}");
        world.assert_free();
    }
    let world = World::new(Options::default());
    world.fail(Fails::ConfigWrite);
    world.open_in("a").err().unwrap();
    world.assert_free();
}

#[test]
fn what_ppt_cannot_pass_through_is_said_before_it_is_bound() {
    type Alter = fn(&mut Description);
    let cases: [(Alter, &str); 4] = [
        (|d| d.config.fill(0xff), "does not answer"),
        (|d| d.config[0x06] = 0, "neither MSI nor MSI-X"),
        (|d| d.bars[0].size = 0x800, "not whole pages of 4 KiB"),
        (|d| d.bars[0].size = 0x10, "not whole pages of 4 KiB"),
    ];
    for (alter, said) in cases {
        let world = World::with(Options::default(), alter);
        let error = world.open_in("a").err().unwrap().to_string();
        assert!(error.contains(said) && error.starts_with("/dev/ppt0: "), "{error}");
        assert!(!world.take_requests().contains(&BIND), "{error}");
        assert_eq!(world.open_files(), [""; 0]);
    }
    let world = World::new(Options::default());
    let vm = Vm::open(world.sys.clone(), "a", GuestMemory::Pageable).unwrap();
    let error = PptFunction::open(&vm, Path::new("/dev/ppt0")).err().unwrap();
    assert!(matches!(error, OpenError::NotWired { .. }), "{error}");
    drop(vm);
    world.assert_free();
}

#[test]
fn no_port_behind_a_bar_is_asked_for() {
    let world = World::new(Options::default());
    let function = world.function();
    for (offset, len) in
        [(0x3d, 4), (0x3f, 2), (0x3c, 8), (0x40, 1), (0xffff_ffff, 1), (0x1_0000_0000, 4), (u64::MAX, 2)]
    {
        function.bar_read(1, offset, &mut vec![0; len]).unwrap_err();
        function.bar_write(1, offset, &vec![0; len]).unwrap_err();
    }
    assert_eq!(world.take_requests(), []);
    function.bar_read(1, 0x38, &mut [0; 8]).unwrap();
    assert_eq!(world.take_requests(), [BAR_READ; 2]);
}

/// Numbers that are the same each time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[test]
fn a_function_whose_registers_make_no_sense_is_refused_or_attached_and_gone_afterwards() {
    let mut attached = 0;
    for seed in 1..80 {
        let garbage = move |description: &mut Description| {
            let mut numbers = Numbers(seed << 32 | 0x9e37_79b9);
            numbers.next();
            let capabilities = 0x34..if seed % 3 == 0 { 0x100 } else { 0x80 };
            description.config[capabilities].iter_mut().for_each(|byte| *byte = numbers.next() as u8);
            // Some of these lead to MSI or MSI-X.
            description.config[0x34] = [0x40, 0x50, 0x70, 0x71][seed as usize % 4];
            for (at, id) in [(0x50, 0x05), (0x70, 0x11)] {
                if numbers.next().is_multiple_of(2) {
                    description.config[at] = id;
                }
            }
            for bar in 0..6usize {
                if numbers.next().is_multiple_of(4) {
                    let size = 1 << (numbers.next() % 64);
                    description.bars[bar] = Region { size, mappable: vec![0..size], accessible: true };
                    description.config[0x10 + 4 * bar] = numbers.next() as u8;
                }
            }
        };
        let world = World::with(Options::default(), garbage);
        match world.open_in("a") {
            Err(error) => assert!(error.to_string().starts_with("/dev/ppt0: "), "{error}"),
            Ok(function) => {
                assert_eq!(function.description().config.len(), 256);
                drop(function);
                let guest = Guest::of(world);
                guest.config_write(0x04, &[0x07, 0]);
                let mut numbers = Numbers(seed);
                for _ in 0..200 {
                    let (offset, data) = ((numbers.next() % 256) as u16 & !3, numbers.next() as u32);
                    guest.config_write(offset, &data.to_le_bytes());
                    let _: [u8; 4] = guest.config(offset);
                    guest.vmm().write(TABLE + numbers.next() % 0x1_0000, &data.to_le_bytes());
                }
                guest.detach().assert_free();
                attached += 1;
                continue;
            }
        }
        assert_eq!(world.open_files(), [""; 0]);
    }
    assert!((20..70).contains(&attached), "{attached}: some of each");
}

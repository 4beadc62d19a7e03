//! Callers that ask for anything, and several at once.

use std::thread;

use crate::Options;
use crate::abi::{ppt, vm, vmmctl};
use crate::test_support::{Bytes, OLD, World};

/// All that there is for a caller to get.
const ERRNOS: [i32; 11] = [
    libc::EBADF,
    libc::EBUSY,
    libc::EEXIST,
    libc::EINVAL,
    libc::EIO,
    libc::ENOENT,
    libc::ENOMEM,
    libc::ENOSPC,
    libc::ENOTTY,
    libc::ENXIO,
    libc::EFAULT,
];

/// Numbers that are the same with every run (xorshift).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.next() as usize % all.len()]
    }
}

#[test]
fn whatever_is_asked_gives_a_known_answer_and_leaves_a_sound_machine() {
    let requests = [
        vm::BIND_PPTDEV,
        vm::BIND_PPTDEV,
        vm::UNBIND_PPTDEV,
        vm::MAP_PPTDEV_MMIO,
        vm::MAP_PPTDEV_MMIO,
        vm::UNMAP_PPTDEV_MMIO,
        vm::PPTDEV_MSI,
        vm::PPTDEV_MSIX,
        vm::PPTDEV_MSIX,
        vm::PPTDEV_DISABLE_MSIX,
        vm::GET_PPTDEV_LIMITS,
        vm::REINIT,
        vm::MMAP_MEMSEG,
        ppt::CFG_READ,
        ppt::CFG_WRITE,
        ppt::BAR_QUERY,
        ppt::BAR_READ,
        ppt::BAR_WRITE,
        vmmctl::CREATE_VM,
        0x76_6d06,
    ];
    for (seed, options) in [(0x9e37_79b9_7f4a_7c15, Options::default()), (0x2545_f491_4f6c_dd1d, OLD)] {
        let world =
            World::with(options, |description, _| description.bars[4].mappable = vec![0x4000..0x8000]);
        let (mut numbers, mut done) = (Numbers(seed), 0);
        let files = [world.a, world.a, world.b, world.ppt[0], world.ppt[1], world.control];
        let bases = [world.base(0, 2), world.base(0, 4), world.base(1, 2), world.base(1, 4)];
        for _ in 0..20_000 {
            let (fd, request) = (numbers.of(&files), numbers.of(&requests));
            let small = |n: u64| (n % 12) as i32 - 1;
            // Fields of 32 bits first: numbers of files and small values. Then those of 64: places.
            let mut bytes = Bytes::new(160);
            for at in [0, 4, 8, 12] {
                let number = numbers.next();
                let value = if number & 1 == 0 { numbers.of(&world.ppt) } else { small(number >> 1) };
                bytes = bytes.int(at, value);
            }
            if matches!(request, vm::MAP_PPTDEV_MMIO | vm::UNMAP_PPTDEV_MMIO) {
                let pages = |n: u64, most: u64| n % most * 0x1000;
                let hpa = numbers.of(&bases) + pages(numbers.next(), 17);
                let (gpa, len) = (pages(numbers.next(), 32), pages(numbers.next(), 9));
                bytes = bytes.u64(8, gpa).u64(16, hpa).u64(24, len);
            } else if numbers.next() & 1 == 0 {
                bytes = bytes.u64(24, numbers.next()).u64(32, numbers.next());
            }
            match world.call(fd, request, &mut bytes) {
                Ok(_) => done += 1,
                Err(errno) => assert!(ERRNOS.contains(&errno), "{request:#x}: {errno}"),
            }
            let parts = {
                let book = world.vmm.book();
                book.mapped.len() + book.trapped.len()
            };
            assert!(parts <= 2 * 7 * 3, "two functions, seven segments, three parts of each: {parts}");
            if numbers.next().is_multiple_of(64) {
                world.raise((numbers.next() & 1) as usize, numbers.next() as u32 % 12);
            }
        }
        assert!(done > 1000, "some of it makes sense: {done}");
        let World { kernel, vmm, .. } = world;
        drop(kernel);
        assert!(vmm.is_empty());
    }
}

#[test]
fn vms_do_not_wait_for_each_other_for_ever() {
    let world = World::new(Options::default());
    thread::scope(|scope| {
        for (vm, n) in [(world.a, 0), (world.b, 1)] {
            let world = &world;
            scope.spawn(move || {
                let gpa = 0x100_0000 * (n as u64 + 1);
                for turn in 0..100 {
                    assert_eq!(world.owner(vm, vm::BIND_PPTDEV, n), Ok(0));
                    assert_eq!(world.map(vm, n, gpa, 2, 0, 0x2000), Ok(0));
                    assert_eq!(world.msix(vm, 0, n, turn % 8, 0x40, 0), Ok(0));
                    assert_eq!(world.unmap(vm, n, gpa, 0x2000), Ok(0));
                    assert_eq!(world.owner(vm, vm::UNBIND_PPTDEV, n), Ok(0));
                }
            });
            scope.spawn(move || {
                use passthru::host::ppt::sys::Sys;
                for _ in 0..100 {
                    let table = world.mmap(world.ppt[n], 0x1_0000, 0).unwrap();
                    assert_eq!(world.config(1 - n, ppt::CFG_READ, 0, 2, 0), Ok(0x5350));
                    // SAFETY: what was mapped, and is not used.
                    unsafe { world.kernel.munmap(table, 0x1_0000) };
                }
            });
        }
    });
    let World { kernel, vmm, .. } = world;
    drop(kernel);
    assert!(vmm.is_empty());
}

//! What is asked of the kernel, byte by byte, and what is made of its answers.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_void};
use std::io;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;

use parking_lot::Mutex;

use super::sys::Sys;
use super::*;
use crate::host::*;
use crate::ports::MsiMessage;

const VM: i32 = 3;
const PPT: i32 = 4;
/// Host-physical addresses of the BARs: memory at 0 (64 KiB), MSI-X table in 2 (8 KiB), ports at 4.
const HPA: u64 = 0xf000_0000;
const TABLE_HPA: u64 = 0xf002_0000;

/// A kernel that writes down what it is asked, and answers from tables.
struct Script {
    config: Vec<u8>,
    bars: BTreeMap<u32, (u32, u64, u64)>,
    /// Answers in the place of success, by request.
    errors: Mutex<BTreeMap<i32, i32>>,
    calls: Mutex<Vec<Call>>,
    memory: Mutex<Vec<u64>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Call {
    Open(String),
    Ioctl(i32, i32, Vec<u8>),
    Mmap(i32, usize, u64),
    Munmap(usize),
    Close(i32),
}

/// Bytes of a request's argument, as the headers have it.
fn size(request: i32) -> usize {
    match request {
        0x505401 | 0x505402 | 0x505404 | 0x505405 => 16,
        0x505403 => 24,
        0x766c02 | 0x766c03 | 0x766d1f => 4,
        0x766c04 | 0x766c09 | 0x76700b => 32,
        0x76700c => 40,
        0x766d14 => 12,
        0x564d04 => 0,
        other => panic!("{other:#x} is no request"),
    }
}

impl Script {
    fn new() -> Script {
        let mut config = vec![0; 256];
        let mut put = |at: usize, bytes: &[u8]| config[at..at + bytes.len()].copy_from_slice(bytes);
        put(0x00, &[0x86, 0x80, 0xd2, 0x37]);
        put(0x06, &[0x10]);
        put(0x34, &[0x50]);
        put(0x3d, &[1]);
        put(0x50, &[0x05, 0x70, 0x84, 0x00]);
        put(0x70, &[0x11, 0x80, 0x07, 0x00, 0x02, 0, 0, 0, 0x02, 0x10, 0, 0]);
        put(0x80, &[0x10, 0x00, 0x02, 0x00, 0x00, 0x00, 0x00, 0x10]);
        let bars = [
            (0, (0x0200_0000, HPA, 0x1_0000)),
            (2, (0x0300_0000, TABLE_HPA, 0x2000)),
            (4, (0x0100_0000, 0xe000, 0x20)),
        ];
        Script {
            config,
            bars: bars.into(),
            errors: Mutex::default(),
            calls: Mutex::default(),
            memory: Mutex::new(vec![0; 0x2000 / 8]),
        }
    }

    fn failing(request: i32, errno: i32) -> Script {
        let script = Script::new();
        script.errors.lock().insert(request, errno);
        script
    }

    fn take(&self) -> Vec<Call> {
        std::mem::take(&mut self.calls.lock())
    }

    fn asked(&self, request: i32) -> bool {
        self.calls.lock().iter().any(|call| matches!(call, Call::Ioctl(_, r, _) if *r == request))
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

impl Sys for Script {
    fn open(&self, path: &CStr) -> io::Result<i32> {
        let path = path.to_str().unwrap();
        self.calls.lock().push(Call::Open(path.to_owned()));
        match path {
            "/dev/vmm/guest" => Ok(VM),
            "/dev/ppt0" => Ok(PPT),
            _ => Err(io::Error::from_raw_os_error(libc::ENOENT)),
        }
    }

    unsafe fn ioctl(&self, fd: i32, request: i32, argument: *mut c_void) -> io::Result<i32> {
        // SAFETY: the argument has the size that the headers say.
        let bytes = unsafe { std::slice::from_raw_parts_mut(argument.cast::<u8>(), size(request)) };
        self.calls.lock().push(Call::Ioctl(fd, request, bytes.to_vec()));
        if let Some(errno) = self.errors.lock().get(&request) {
            return Err(io::Error::from_raw_os_error(*errno));
        }
        match request {
            0x564d04 => return Ok(18),
            0x505401 => {
                let (at, width) = (u32_at(bytes, 0) as usize, u32_at(bytes, 8) as usize);
                bytes[12..16].fill(0);
                bytes[12..12 + width].copy_from_slice(&self.config[at..at + width]);
            }
            0x505403 => {
                let Some((kind, base, size)) = self.bars.get(&u32_at(bytes, 0)) else {
                    return Err(io::Error::from_raw_os_error(libc::ENOENT));
                };
                bytes[4..8].copy_from_slice(&kind.to_le_bytes());
                bytes[8..16].copy_from_slice(&base.to_le_bytes());
                bytes[16..24].copy_from_slice(&size.to_le_bytes());
            }
            0x505404 => bytes[12..16].copy_from_slice(&0x4433_2211u32.to_le_bytes()),
            0x766d14 => {
                bytes[4..8].copy_from_slice(&4i32.to_le_bytes());
                bytes[8..12].copy_from_slice(&8i32.to_le_bytes());
            }
            _ => {}
        }
        Ok(0)
    }

    fn mmap(&self, fd: i32, len: usize, offset: u64) -> io::Result<NonNull<u8>> {
        self.calls.lock().push(Call::Mmap(fd, len, offset));
        Ok(NonNull::new(self.memory.lock().as_mut_ptr().cast()).unwrap())
    }

    unsafe fn munmap(&self, _: NonNull<u8>, len: usize) {
        self.calls.lock().push(Call::Munmap(len));
    }

    fn close(&self, fd: i32) {
        self.calls.lock().push(Call::Close(fd));
    }
}

type Opened = Result<PptFunction<Script>, OpenError>;

fn open(script: Script, memory: GuestMemory) -> (Arc<Script>, Opened) {
    let script = Arc::new(script);
    let vm = Vm::open(script.clone(), "guest", memory).unwrap();
    let opened = PptFunction::open(&vm, Path::new("/dev/ppt0"));
    (script, opened)
}

fn function(script: Script) -> (Arc<Script>, PptFunction<Script>) {
    let (script, opened) = open(script, GuestMemory::Wired);
    let function = opened.unwrap();
    script.take();
    (script, function)
}

/// Fields, each with its width, as the kernel finds them: what is in between is zero.
fn argument(size: usize, fields: &[(usize, u64, usize)]) -> Vec<u8> {
    let mut bytes = vec![0; size];
    for (at, value, width) in fields {
        bytes[*at..at + width].copy_from_slice(&value.to_le_bytes()[..*width]);
    }
    bytes
}

#[test]
fn it_is_looked_at_then_bound_then_described() {
    let (script, opened) = open(Script::new(), GuestMemory::Wired);
    let function = opened.unwrap();
    let calls = script.take();
    let at = |wanted: &Call| calls.iter().position(|call| call == wanted).unwrap();
    let bind = at(&Call::Ioctl(VM, 0x766c02, argument(4, &[(0, PPT as u64, 4)])));
    let query = at(&Call::Ioctl(PPT, 0x505403, argument(24, &[(0, 5, 4)])));
    let config = at(&Call::Ioctl(PPT, 0x505401, argument(16, &[(0, 0xfc, 8), (8, 4, 4)])));
    let limits = at(&Call::Ioctl(VM, 0x766d14, argument(12, &[(0, PPT as u64, 4)])));
    let mmap = at(&Call::Mmap(PPT, 0x2000, 0));
    assert!(query < bind && config < bind && bind < limits && limits < mmap, "{calls:?}");
    assert_eq!(
        calls[..3],
        [
            Call::Open("/dev/vmm/guest".into()),
            Call::Ioctl(VM, 0x564d04, vec![]),
            Call::Open("/dev/ppt0".into()),
        ]
    );

    let Report { msi, msix, mappings, granularity, intx, reset, .. } = function.report().clone();
    assert_eq!((msi, msix, mappings, granularity, intx), (4, 8, Some(7), 4096, false));
    assert_eq!(reset, Some(ResetMethod::AtAttach));
    let bars = &function.description().bars;
    assert_eq!(bars[0], Region { size: 0x1_0000, mappable: vec![0..0x1_0000], accessible: false });
    assert_eq!(bars[2], Region { size: 0x2000, mappable: vec![0..0x2000], accessible: true });
    assert_eq!(bars[4], Region { size: 0x20, mappable: vec![], accessible: true });
    assert_eq!(bars[1], Region::default());
    assert_eq!(function.description().config, script.config);

    drop(function);
    let unbind = Call::Ioctl(VM, 0x766c03, argument(4, &[(0, PPT as u64, 4)]));
    assert_eq!(script.take(), [Call::Munmap(0x2000), unbind, Call::Close(VM), Call::Close(PPT)]);
}

#[test]
fn what_cannot_be_is_said_before_anything_is_bound() {
    let changed = |change: fn(&mut Script)| {
        let mut script = Script::new();
        change(&mut script);
        script
    };
    for (script, memory, said) in [
        (Script::new(), GuestMemory::Pageable, "needs the guest's memory wired"),
        (changed(|s| s.config[6] = 0), GuestMemory::Wired, "neither MSI nor MSI-X"),
        (changed(|s| s.config.fill(0xff)), GuestMemory::Wired, "does not answer"),
        (
            changed(|s| {
                s.bars.insert(0, (0x0200_0000, HPA + 0x800, 0x800));
            }),
            GuestMemory::Wired,
            "BAR 0, 0x800 bytes at 0xf0000800",
        ),
        (Script::failing(0x505403, libc::ENOTTY), GuestMemory::Wired, "PPT_BAR_QUERY"),
    ] {
        let (script, opened) = open(script, memory);
        let error = opened.err().unwrap().to_string();
        assert!(error.contains(said) && error.contains("/dev/ppt0"), "{error}");
        assert!(!script.asked(0x766c02), "{error}");
        assert!(script.take().contains(&Call::Close(PPT)), "{error}");
    }
    let vm = Vm::open(Arc::new(Script::new()), "guest", GuestMemory::Wired).unwrap();
    let error = PptFunction::open(&vm, Path::new("/dev/ppt9")).err().unwrap();
    assert!(
        matches!(error, OpenError::NotThere { .. }) && error.to_string().contains("ppt_aliases"),
        "{error}"
    );
    let error = Vm::open(Arc::new(Script::new()), "other", GuestMemory::Wired).err().unwrap();
    assert!(error.to_string().contains("/dev/vmm/other"), "{error}");
    for name in ["", "/dev/ppt0", "../ppt0", "guest/", "gu\0est"] {
        let script = Arc::new(Script::new());
        let error = Vm::open(script.clone(), name, GuestMemory::Wired).err().unwrap();
        assert!(matches!(error, OpenError::Path { .. }) && script.take().is_empty(), "{error}");
    }
}

#[test]
fn one_that_cannot_be_bound_is_closed_and_one_that_fails_later_is_unbound() {
    for (request, errno, said, unbound) in [
        (0x766c02, libc::EBUSY, "a virtual machine has it", false),
        (0x766c02, libc::ENXIO, "no IOMMU that illumos can use", false),
        (0x766d14, libc::EBUSY, "not, or no longer, bound", true),
    ] {
        let (script, opened) = open(Script::failing(request, errno), GuestMemory::Wired);
        let error = opened.err().unwrap().to_string();
        assert!(error.contains(said), "{error}");
        assert_eq!(script.asked(0x766c03), unbound, "{error}");
        assert!(script.take().contains(&Call::Close(PPT)));
    }
}

#[test]
fn parts_of_bars_are_mapped_by_their_host_address() {
    let (script, function) = function(Script::new());
    let range = BarRange { bar: 0, offset: 0x3000, len: 0x2000 };
    function.map(range, 0xc000_0000).unwrap();
    function.unmap(range, 0xc000_0000).unwrap();
    let fields =
        |hpa| argument(32, &[(0, PPT as u64, 4), (8, 0xc000_0000, 8), (16, hpa, 8), (24, 0x2000, 8)]);
    assert_eq!(
        script.take(),
        [Call::Ioctl(VM, 0x766c04, fields(HPA + 0x3000)), Call::Ioctl(VM, 0x766c09, fields(0)),]
    );
    for range in [
        BarRange { bar: 0, offset: 0xf000, len: 0x2000 },
        BarRange { bar: 0, offset: u64::MAX, len: 0x1000 },
        BarRange { bar: 1, offset: 0, len: 0x1000 },
        BarRange { bar: 4, offset: 0, len: 0x20 },
        BarRange { bar: 9, offset: 0, len: 0x1000 },
    ] {
        function.map(range, 0xc000_0000).unwrap_err();
        assert_eq!(script.take(), [], "{range}");
    }
    script.errors.lock().insert(0x766c04, libc::ENOSPC);
    let error = function.map(range, 0xc000_0000).unwrap_err();
    assert!(error.to_string().contains("all 7 mappings"), "{error}");
    assert_eq!(error.source.errno(), Some(libc::ENOSPC));
    for gone in [libc::ENOENT, libc::EBUSY, libc::ENXIO] {
        script.errors.lock().insert(0x766c09, gone);
        function.unmap(range, 0xc000_0000).unwrap();
    }
    script.errors.lock().insert(0x766c09, libc::EIO);
    function.unmap(range, 0xc000_0000).unwrap_err();
}

#[test]
fn vectors_are_set_by_one_request_for_msi_and_one_each_for_msix() {
    let (script, function) = function(Script::new());
    let change = |vector, data| VectorChange {
        vector,
        state: VectorState::Armed(MsiMessage { address: 0xfee0_1000, data }),
    };
    let msi = |count, data, address| {
        let fields = [(0, 0, 4), (4, PPT as u64, 4), (8, count, 4), (16, data, 8), (24, address, 8)];
        Call::Ioctl(VM, 0x76700b, argument(32, &fields))
    };
    let msix = |vector, data, control, address| {
        let fields = [
            (0, 0, 4),
            (4, PPT as u64, 4),
            (8, vector, 4),
            (16, data, 8),
            (24, control, 4),
            (32, address, 8),
        ];
        Call::Ioctl(VM, 0x76700c, argument(40, &fields))
    };
    assert!(function.set_vectors(MessageKind::Msi, 4, &[change(2, 0x4e), change(3, 0x4f)]).is_empty());
    function.disable_vectors(MessageKind::Msi).unwrap();
    assert_eq!(script.take(), [msi(4, 0x4c, 0xfee0_1000), msi(0, 0, 0)]);
    assert!(function.set_vectors(MessageKind::Msi, u16::MAX, &[change(0, 0x4e)]).is_empty());
    assert_eq!(
        script.take(),
        [msi(0xffff, 0, 0xfee0_1000)],
        "no host offers as many, and none is made of it"
    );
    let masked = VectorChange { vector: 7, state: VectorState::Masked };
    assert!(function.set_vectors(MessageKind::Msix, 8, &[change(5, 0x31), masked]).is_empty());
    function.disable_vectors(MessageKind::Msix).unwrap();
    let off = Call::Ioctl(VM, 0x766d1f, argument(4, &[(0, PPT as u64, 4)]));
    assert_eq!(script.take(), [msix(5, 0x31, 0, 0xfee0_1000), msix(7, 0, 1, 0), off]);
    // Turned on with all vectors masked.
    assert!(function.set_vectors(MessageKind::Msix, 8, &[]).is_empty());
    assert_eq!(script.take(), [msix(0, 0, 1, 0)]);
    // The others are set.
    script.errors.lock().insert(0x76700c, libc::ENXIO);
    let errors = function.set_vectors(MessageKind::Msix, 8, &[change(1, 0x31), change(2, 0x32)]);
    let vectors: Vec<_> = errors.iter().map(|error| error.operation.clone()).collect();
    assert_eq!(vectors, [1, 2].map(|vector| Operation::Vector { kind: MessageKind::Msix, vector }));
    assert!(errors[0].to_string().contains("handler"), "{}", errors[0]);
}

#[test]
fn registers_and_ports_are_reached_in_their_own_width() {
    let (script, function) = function(Script::new());
    let mut data = [0; 2];
    function.config_read(0x02, &mut data).unwrap();
    assert_eq!(data, [0xd2, 0x37]);
    script.take();
    let write = |offset, width, value| {
        Call::Ioctl(PPT, 0x505402, argument(16, &[(0, offset, 8), (8, width, 4), (12, value, 4)]))
    };
    function.config_write(0x88, &[1, 2, 3, 4]).unwrap();
    // Decoding and no INTx, whatever the guest has.
    function.config_write(0x04, &[0, 0]).unwrap();
    // Of these four bytes the first two are the guest's.
    function.config_write(0x0c, &[1, 2, 3, 4]).unwrap();
    function.config_write(0x10, &[1, 2, 3, 4]).unwrap();
    assert_eq!(
        script.take(),
        [write(0x88, 4, 0x0403_0201), write(0x04, 2, 0x0403), write(0x0c, 1, 1), write(0x0d, 1, 2)]
    );
    function.config_read(0xfe, &mut [0; 4]).unwrap_err();
    function.config_write(0x100, &[0]).unwrap_err();
    assert_eq!(script.take(), []);

    let port = |request, offset, width, value| {
        Call::Ioctl(PPT, request, argument(16, &[(0, 4, 4), (4, offset, 4), (8, width, 4), (12, value, 4)]))
    };
    let mut data = [0; 8];
    function.bar_read(4, 2, &mut data).unwrap();
    assert_eq!(data, [0x11, 0x22, 0x11, 0x22, 0x33, 0x44, 0x11, 0x22]);
    function.bar_write(4, 5, &[1, 2, 3]).unwrap();
    assert_eq!(
        script.take(),
        [
            port(0x505404, 2, 2, 0),
            port(0x505404, 4, 4, 0),
            port(0x505404, 8, 2, 0),
            port(0x505405, 5, 1, 1),
            port(0x505405, 6, 2, 0x0302),
        ]
    );
    for offset in [0x19, 0x20, u64::from(u32::MAX), u64::MAX] {
        function.bar_read(4, offset, &mut data).unwrap_err();
        function.bar_write(4, offset, &data).unwrap_err();
    }
    // Memory: beside the table, and nowhere else.
    function.bar_write(2, 0x1ff8, &[1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
    function.bar_write(2, 0x1ffc, &[9]).unwrap();
    function.bar_read(2, 0x1ff8, &mut data).unwrap();
    assert_eq!(data, [1, 2, 3, 4, 9, 6, 7, 8]);
    for (bar, offset) in [(2, 0x1ffc), (2, u64::MAX), (0, 0), (1, 0), (6, 0)] {
        function.bar_read(bar, offset, &mut data).unwrap_err();
        function.bar_write(bar, offset, &data).unwrap_err();
    }
    assert_eq!(script.take(), []);
}

#[test]
fn the_kernel_of_2018_keeps_what_it_mapped() {
    let (script, function) = function(Script::failing(0x564d04, libc::ENOTTY));
    assert_eq!(function.vm().interface(), Interface::First);
    let range = BarRange { bar: 0, offset: 0, len: 0x1_0000 };
    function.map(range, 0xc000_0000).unwrap();
    function.unmap(range, 0xc000_0000).unwrap();
    function.map(range, 0xc000_0000).unwrap();
    assert_eq!(script.take().len(), 1);
    function.unmap(range, 0xc000_0000).unwrap();
    function.map(range, 0xd000_0000).unwrap();
    script.take();
    // It turns vectors off one by one: those that are on, each of them, whatever becomes of the others.
    let armed = |vector| VectorChange { vector, state: VectorState::Armed(MsiMessage::default()) };
    let masked = VectorChange { vector: 3, state: VectorState::Masked };
    for errno in [None, Some(libc::EBUSY)] {
        assert!(
            function.set_vectors(MessageKind::Msix, 8, &[armed(1), armed(3), armed(6), masked]).is_empty()
        );
        script.take();
        script.errors.lock().extend(errno.map(|errno| (0x76700c, errno)));
        assert_eq!(function.disable_vectors(MessageKind::Msix).is_err(), errno.is_some());
        let calls = script.take();
        let off = |(call, vector): (&Call, u8)| matches!(call, Call::Ioctl(VM, 0x76700c, a) if (a[8], a[24]) == (vector, 1));
        assert!(calls.len() == 2 && calls.iter().zip([1, 6]).all(off), "{calls:?}");
    }
    function.disable_vectors(MessageKind::Msix).unwrap();
    assert_eq!(script.take(), []);
}

#[test]
fn vectors_that_could_not_be_allocated_are_given_up_before_the_next_request() {
    let armed = |vector| VectorChange { vector, state: VectorState::Armed(MsiMessage::default()) };
    let requests = |script: &Script| -> Vec<i32> {
        let calls = script.take().into_iter();
        calls.map(|call| if let Call::Ioctl(_, request, _) = call { request } else { 0 }).collect()
    };
    let (script, host) = function(Script::failing(0x76700c, libc::EINVAL));
    for changes in [&[][..], &[armed(1), armed(2), armed(3)]] {
        let errors = host.set_vectors(MessageKind::Msix, 8, changes);
        assert_eq!(errors.len(), changes.len().max(1));
        assert!(errors.iter().all(|error| error.source.errno() == Some(libc::EINVAL)));
        assert_eq!(requests(&script), [0x76700c, 0x766d1f]);
    }
    // One of several that are on is no reason.
    script.errors.lock().clear();
    assert!(host.set_vectors(MessageKind::Msix, 8, &[armed(1)]).is_empty());
    script.errors.lock().insert(0x76700c, libc::EINVAL);
    assert_eq!(host.set_vectors(MessageKind::Msix, 8, &[armed(2), armed(3)]).len(), 2);
    assert_eq!(requests(&script), [0x76700c; 3]);

    // Without a request for that, nothing is asked any more.
    let (script, host) = function(Script::failing(0x564d04, libc::ENOTTY));
    script.errors.lock().insert(0x76700c, libc::EINVAL);
    assert_eq!(host.set_vectors(MessageKind::Msix, 8, &[armed(1), armed(2)]).len(), 2);
    assert_eq!(host.set_vectors(MessageKind::Msix, 8, &[armed(1)]).len(), 1);
    assert_eq!(requests(&script), [0x76700c]);
}

#[test]
fn registers_are_accessed_where_they_are() {
    let (script, host) = function(Script::new());
    let mut data = [0; 2];
    host.config_read(0x01, &mut data).unwrap();
    assert_eq!(data, [0x80, 0xd2], "vendor 0x8086, device 0x37d2");
    host.config_write(0x89, &[1, 2]).unwrap();
    let fields = |offset: u64, width, value| argument(16, &[(0, offset, 8), (8, width, 4), (12, value, 4)]);
    let read = |offset| Call::Ioctl(PPT, 0x505401, fields(offset, 1, 0));
    let write = |offset, value| Call::Ioctl(PPT, 0x505402, fields(offset, 1, value));
    assert_eq!(script.take(), [read(1), read(2), write(0x89, 1), write(0x8a, 2)]);
}

#[test]
fn pending_bits_are_the_functions_own() {
    let (_, function) = function(Script::new());
    let pending = |vector| function.is_pending(MessageKind::Msix, vector);
    function.bar_write(2, 0x1000, &0x84u64.to_le_bytes()).unwrap();
    assert_eq!([1, 2, 3, 7].map(pending), [false, true, false, true]);
    assert!(!pending(64 + 2) && !function.is_pending(MessageKind::Msi, 2));
    assert!(!pending(u16::MAX), "beyond the BAR");
}

#[test]
fn a_virtual_machines_file_can_be_somebody_elses() {
    let script = Arc::new(Script::new());
    drop(Vm::with_file(script.clone(), 77, GuestMemory::Wired));
    assert_eq!(script.take(), [Call::Ioctl(77, 0x564d04, vec![])]);
}

//! Resets that a guest asks for: the function answers nothing meanwhile, and nobody waits.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::log_lines;
use crate::vmm::Vmm;
use log::Level;
use passthru::attached::{Attached, Fresh};
use passthru::function::Shape;
use passthru::host::simulated::SimulatedFunction;
use passthru::host::*;
use passthru::pci::{ConfigAccess, Slot};
use passthru::space::AddressSpace;
use passthru::space::layout::Windows;

const DEVICE_CONTROL: u16 = 0x88;
const FLR: [u8; 2] = [0x00, 0x80];
const BAR0: u64 = 0xc000_0000;

/// A simulated function whose reset takes until it is let go.
struct Slow {
    inside: SimulatedFunction,
    report: Report,
    name: Arc<str>,
    began: Sender<Arc<str>>,
    go: Mutex<Receiver<()>>,
    resets: Arc<AtomicUsize>,
    fails: Arc<AtomicBool>,
    fresh: Arc<AtomicBool>,
}

/// What a test has of it.
struct Handle {
    fails: Arc<AtomicBool>,
    fresh: Arc<AtomicBool>,
    began: Receiver<Arc<str>>,
    go: Sender<()>,
    resets: Arc<AtomicUsize>,
}

fn slow(vmm: &Arc<Vmm>, slot: Slot, name: &str, method: ResetMethod) -> (Arc<Slow>, Handle) {
    let inside = SimulatedFunction::new("demo", slot, vmm.ports()).unwrap();
    let report = Report { reset: Some(method), ..inside.report().clone() };
    let ((began, seen), (go, may_go)) = (channel(), channel());
    let resets = Arc::new(AtomicUsize::new(0));
    let (fails, fresh) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (name, go_on) = (Arc::from(name), Mutex::new(may_go));
    let (now, failing) = (fresh.clone(), fails.clone());
    let function =
        Slow { inside, report, name, began, go: go_on, resets: resets.clone(), fails: failing, fresh: now };
    (Arc::new(function), Handle { began: seen, go, resets, fails, fresh })
}

impl HostFunction for Slow {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn description(&self) -> &Description {
        self.inside.description()
    }

    fn report(&self) -> &Report {
        &self.report
    }

    fn config_read(&self, offset: u16, data: &mut [u8]) -> Result<(), HostError> {
        self.inside.config_read(offset, data)
    }

    fn config_write(&self, offset: u16, data: &[u8]) -> Result<(), HostError> {
        self.inside.config_write(offset, data)
    }

    fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]) -> Result<(), HostError> {
        self.inside.bar_read(bar, offset, data)
    }

    fn bar_write(&self, bar: u8, offset: u64, data: &[u8]) -> Result<(), HostError> {
        self.inside.bar_write(bar, offset, data)
    }

    fn map(&self, range: BarRange, guest: u64) -> Result<(), HostError> {
        self.inside.map(range, guest)
    }

    fn unmap(&self, range: BarRange, guest: u64) -> Result<(), HostError> {
        self.inside.unmap(range, guest)
    }

    fn set_vectors(&self, kind: MessageKind, count: u16, changes: &[VectorChange]) -> Vec<HostError> {
        let errors = self.inside.set_vectors(kind, count, changes);
        errors.into_iter().map(|error| HostError { device: self.name.clone(), ..error }).collect()
    }

    fn disable_vectors(&self, kind: MessageKind) -> Result<(), HostError> {
        self.inside.disable_vectors(kind)
    }

    fn is_pending(&self, kind: MessageKind, vector: u16) -> bool {
        self.inside.is_pending(kind, vector)
    }

    fn keep_pending(&self, bits: Arc<PendingBits>) {
        self.inside.keep_pending(bits);
    }

    fn set_intx(&self, on: bool) -> Result<(), HostError> {
        self.inside.set_intx(on)
    }

    fn listen(&self, listener: Listener) -> Result<(), HostError> {
        self.inside.listen(listener)
    }

    fn reset(&self) -> Result<(), HostError> {
        self.resets.fetch_add(1, Ordering::Relaxed);
        let _ = self.began.send(self.name.clone());
        // When the test is over, nobody lets it go any more.
        let _ = self.go.lock().unwrap().recv();
        if self.fails.load(Ordering::Relaxed) {
            let source = std::io::Error::from_raw_os_error(5).into();
            return Err(HostError { device: self.name.clone(), operation: Operation::Reset, source });
        }
        self.inside.reset()
    }

    fn is_fresh(&self) -> bool {
        self.fresh.swap(false, Ordering::Relaxed)
    }
}

fn put(vmm: &Arc<Vmm>, fresh: Fresh, number: u8) -> Attached {
    let space = Arc::new(AddressSpace::new(vmm.clone()));
    let windows = Arc::new(Windows { memory: vec![BAR0..0xe000_0000], io: vec![] });
    let slot = Slot::new(0, 8, number).unwrap();
    let function = Attached::new(fresh, slot, Shape::default(), space, windows).unwrap();
    function.assign(0, BAR0 + 0x1000 * u64::from(number));
    function.config().config_write(0x04, &[0x06, 0x00]);
    function
}

fn attached(vmm: &Arc<Vmm>) -> (Attached, Handle) {
    let (host, handle) = slow(vmm, Slot::new(0, 8, 0).unwrap(), "slow", ResetMethod::FunctionLevel);
    handle.go.send(()).unwrap();
    let fresh = Fresh::one(host).unwrap();
    handle.began.recv().unwrap();
    (put(vmm, fresh, 0), handle)
}

fn word(config: &Arc<dyn ConfigAccess>, offset: u16) -> u16 {
    let mut data = [0; 2];
    config.config_read(offset, &mut data);
    u16::from_le_bytes(data)
}

#[test]
fn while_it_is_reset_a_function_answers_nothing_and_nobody_waits() {
    let vmm = Vmm::new();
    let (function, handle) = attached(&vmm);
    let config = function.config();
    let mut register = [0; 4];
    vmm.read(BAR0, &mut register);
    assert_eq!(&register, b"SLTP");
    config.config_write(DEVICE_CONTROL, &FLR);
    handle.began.recv().unwrap();
    assert!(vmm.is_empty(), "nothing is mapped, trapped or armed");
    assert_eq!(word(&config, 0x00), 0xffff);
    config.config_write(0x3c, &[0x55]);
    config.config_write(DEVICE_CONTROL, &FLR);
    handle.go.send(()).unwrap();
    while word(&config, 0x00) == 0xffff {
        std::thread::yield_now();
    }
    assert_eq!((word(&config, 0x04), word(&config, 0x10), word(&config, 0x3c) & 0xff), (0, 0, 0));
    assert_eq!(handle.resets.load(Ordering::Relaxed), 2, "at attach, and once since");
    handle.go.send(()).unwrap();
}

#[test]
fn a_reset_of_the_guest_comes_after_one_that_is_under_way() {
    let vmm = Vmm::new();
    let (function, handle) = attached(&vmm);
    function.config().config_write(DEVICE_CONTROL, &FLR);
    handle.began.recv().unwrap();
    for _ in 0..3 {
        handle.go.send(()).unwrap();
    }
    Attached::reset_all(std::slice::from_ref(&function));
    assert_eq!(word(&function.config(), 0x00), 0x5350);
    assert_eq!(handle.resets.load(Ordering::Relaxed), 3, "at attach, by the guest, and for it");
}

#[test]
fn a_function_leaves_when_its_reset_is_over() {
    let vmm = Vmm::new();
    let (function, handle) = attached(&vmm);
    let config = function.config();
    config.config_write(DEVICE_CONTROL, &FLR);
    handle.go.send(()).unwrap();
    handle.go.send(()).unwrap();
    drop(function);
    assert_eq!((word(&config, 0x00), handle.resets.load(Ordering::Relaxed)), (0xffff, 3));
    config.config_write(DEVICE_CONTROL, &FLR);
    assert_eq!(handle.resets.load(Ordering::Relaxed), 3);
    assert!(vmm.is_empty());
}

#[test]
fn a_function_that_is_reset_with_anothers_bus_needs_no_reset_of_its_own() {
    let vmm = Vmm::new();
    let (alone, one) = slow(&vmm, Slot::new(0, 8, 0).unwrap(), "alone", ResetMethod::FunctionLevel);
    let with = ResetMethod::BusWith([Arc::from("alone")].into());
    let (together, two) = slow(&vmm, Slot::new(0, 8, 1).unwrap(), "together", with);
    for handle in [&one, &two] {
        for _ in 0..200 {
            handle.go.send(()).unwrap();
        }
    }
    let resets = || [&one, &two].map(|handle| handle.resets.load(Ordering::Relaxed));
    let functions: Vec<Attached> = Fresh::all(vec![alone, together])
        .unwrap()
        .into_iter()
        .zip(0..)
        .map(|(fresh, number)| put(&vmm, fresh, number))
        .collect();
    assert_eq!(resets(), [0, 1]);
    functions[0].config().config_write(DEVICE_CONTROL, &FLR);
    Attached::begin_resets(&functions).wait();
    assert_eq!(resets(), [1, 2]);
    // At the same time as its own, the bus' makes no further one of its own.
    functions[0].reset();
    assert_eq!(resets(), [2, 2]);
    // A guest that asks for no end of resets.
    functions[0].config().config_write(DEVICE_CONTROL, &FLR);
    for _ in 0..1000 {
        drop(Attached::begin_resets(&functions));
    }
    Attached::reset_all(&functions);
    assert!(resets().iter().all(|resets| *resets < 100), "{:?}", resets());
}

#[test]
fn what_was_reset_by_being_opened_is_not_reset_again_before_it_is_attached() {
    let vmm = Vmm::new();
    let slot = |number| Slot::new(0, 8, number).unwrap();
    let (opened, one) = slow(&vmm, slot(0), "opened", ResetMethod::FunctionLevel);
    let (other, two) = slow(&vmm, slot(1), "other", ResetMethod::FunctionLevel);
    one.fresh.store(true, Ordering::Relaxed);
    for handle in [&one, &two] {
        for _ in 0..8 {
            handle.go.send(()).unwrap();
        }
    }
    let resets = || [&one, &two].map(|handle| handle.resets.load(Ordering::Relaxed));
    let hosts: Vec<Arc<dyn HostFunction>> = vec![opened, other];
    let attach = || -> Vec<Attached> {
        let fresh = Fresh::all(hosts.clone()).unwrap();
        fresh.into_iter().zip(0..).map(|(fresh, number)| put(&vmm, fresh, number)).collect()
    };
    let functions = attach();
    assert_eq!(resets(), [0, 1]);
    Attached::reset_all(&functions);
    assert_eq!(resets(), [1, 2]);
    Attached::detach_all(functions);
    assert_eq!(resets(), [2, 3]);
    drop(attach());
    assert_eq!(resets(), [4, 5], "and once more when each is dropped");

    // With its bus it is reset all the same: the others need it.
    let with = |other: &str| ResetMethod::BusWith([Arc::from(other)].into());
    let (first, one) = slow(&vmm, slot(0), "first", ResetMethod::FunctionLevel);
    let (second, two) = slow(&vmm, slot(1), "second", with("first"));
    one.fresh.store(true, Ordering::Relaxed);
    two.go.send(()).unwrap();
    Fresh::all(vec![first, second]).unwrap();
    assert_eq!(two.resets.load(Ordering::Relaxed), 1);
}

#[test]
fn functions_that_can_only_be_reset_together_are_reset_once_and_not_by_themselves() {
    let vmm = Vmm::new();
    let with = |other: &str| ResetMethod::BusWith([Arc::from(other)].into());
    let (first, one) = slow(&vmm, Slot::new(0, 8, 0).unwrap(), "first", with("second"));
    let (second, two) = slow(&vmm, Slot::new(0, 8, 1).unwrap(), "second", with("first"));
    let resets = || one.resets.load(Ordering::Relaxed) + two.resets.load(Ordering::Relaxed);
    for handle in [&one, &two] {
        for _ in 0..8 {
            handle.go.send(()).unwrap();
        }
    }
    assert_eq!(Fresh::one(first.clone()).unwrap().host().name(), first.name());
    assert_eq!(resets(), 0, "the other one would lose its state");
    let functions: Vec<Attached> = Fresh::all(vec![first, second])
        .unwrap()
        .into_iter()
        .zip(0..)
        .map(|(fresh, number)| put(&vmm, fresh, number))
        .collect();
    assert_eq!(resets(), 1);
    functions[0].config().config_write(DEVICE_CONTROL, &FLR);
    assert_eq!((word(&functions[0].config(), 0x04), resets()), (0x06, 1), "it is not offered");
    Attached::reset_all(&functions);
    assert_eq!((word(&functions[1].config(), 0x04), resets()), (0, 2));
    Attached::detach_all(functions);
    assert_eq!(resets(), 3);
    assert!(vmm.is_empty());
}

#[test]
fn who_detaches_is_told_which_resets_failed() {
    let vmm = Vmm::new();
    let with = |other: &str| ResetMethod::BusWith([Arc::from(other)].into());
    let slot = |number| Slot::new(0, 8, number).unwrap();
    let (first, one) = slow(&vmm, slot(0), "first", with("second"));
    let (second, two) = slow(&vmm, slot(1), "second", with("first"));
    let (alone, three) = slow(&vmm, slot(2), "alone", ResetMethod::FunctionLevel);
    let (apart, four) = slow(&vmm, slot(3), "apart", with("elsewhere"));
    let handles = [one, two, three, four];
    let go = || handles.iter().for_each(|handle| handle.go.send(()).unwrap());
    for _ in 0..3 {
        go();
    }
    let hosts: Vec<Arc<dyn HostFunction>> = vec![first, second, alone, apart];
    let attach = |hosts: &[Arc<dyn HostFunction>]| -> Vec<Attached> {
        let fresh = Fresh::all(hosts.to_vec()).unwrap();
        fresh.into_iter().zip(0..).map(|(fresh, number)| put(&vmm, fresh, number)).collect()
    };
    assert!(
        Attached::detach_all(attach(&hosts)).is_empty(),
        "one that has no reset here has none that failed"
    );
    let functions = attach(&hosts);
    handles.iter().for_each(|handle| handle.fails.store(true, Ordering::Relaxed));
    go();
    let mut failed = Attached::detach_all(functions);
    failed.sort();
    assert_eq!(failed, ["alone", "first", "second"].map(Arc::from));
}

#[test]
fn a_guest_that_is_reset_in_a_loop_is_warned_of_once() {
    const BAR4: u64 = BAR0 + 0x10_0000;
    log_lines::keep();
    let vmm = Vmm::new();
    vmm.book().gsis = 0;
    // It cannot be reset: the other one is not this guest's.
    let with = ResetMethod::BusWith([Arc::from("elsewhere")].into());
    let (host, _handle) = slow(&vmm, Slot::new(0, 8, 0).unwrap(), "rebooting", with);
    let functions = [put(&vmm, Fresh::one(host).unwrap(), 0)];
    for _ in 0..5 {
        functions[0].assign(4, BAR4);
        functions[0].config().config_write(0x04, &[0x06, 0x00]);
        functions[0].config().config_write(0x72, &[0, 0x80]);
        vmm.write(BAR4, &0xfee0_0000u64.to_le_bytes());
        vmm.write(BAR4 + 12, &[0; 4]);
        Attached::reset_all(&functions);
    }
    let kinds =
        [&["rebooting", "vector 0"][..], &["rebooting", "stays silent"], &["as it left it", "rebooting"]];
    assert_eq!(kinds.map(|texts| log_lines::count(Level::Warn, texts)), [1, 1, 1]);
    assert!(log_lines::count(Level::Debug, kinds[0]) >= 5);
}

use devices::pci::ecam;
use devices::pci::topology::Topology;
use passthru::pci::ConfigAccess;

use super::*;

struct Bar(Mutex<Vec<(u8, u64, Vec<u8>)>>);

impl BarAccess for Bar {
    fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]) {
        data.fill(bar + offset as u8);
    }

    fn bar_write(&self, bar: u8, offset: u64, data: &[u8]) {
        self.0.lock().push((bar, offset, data.to_vec()));
    }
}

fn trap(target: &Arc<Bar>, start: u64, bar: u8, offset: u64) -> Trap {
    let slot = Slot::from_requester_id(0x40);
    Trap { space: Space::Memory, range: start..start + 0x1000, target: target.clone(), slot, bar, offset }
}

#[test]
fn accesses_reach_who_is_there_and_are_counted() {
    let bus = Bus::new();
    let mut view = bus.view();
    let target = Arc::new(Bar(Mutex::default()));
    bus.trap(&[], &[trap(&target, 0xc000_2000, 4, 0x8000), trap(&target, 0xc000_0000, 0, 0)]).unwrap();

    let mut data = [0; 4];
    for (address, value) in [(0xc000_0003, 3), (0xc000_2001, 5), (0xc000_1000, 0xff), (0xc000_3000, 0xff)] {
        view.read(Space::Memory, address, &mut data);
        assert_eq!(data, [value; 4], "{address:#x}");
    }
    view.write(Space::Memory, 0xc000_2010, &[7]);
    assert_eq!(*target.0.lock(), [(4, 0x8010, vec![7])]);
    view.read(Space::Io, 0xc000_0000, &mut data);
    assert_eq!(data, [0xff; 4]);
    assert_eq!(view.counts.unclaimed_memory, Count { reads: 2, writes: 0 });
    assert_eq!(view.counts.unclaimed_io, Count { reads: 1, writes: 0 });
    let slot = Slot::from_requester_id(0x40);
    assert_eq!(bus.regions()[0], Region::Bar { slot, bar: 4, offset: 0x8000 });
    assert_eq!(view.counts.regions[0], Count { reads: 1, writes: 1 });
}

#[test]
fn only_a_timed_view_takes_times_by_page_of_what_is_trapped() {
    let bus = Bus::new();
    let target = Arc::new(Bar(Mutex::default()));
    bus.trap(&[], &[trap(&target, 0x1_0000, 1, 0), trap(&target, 0x2_0000, 4, 0x8000)]).unwrap();
    let (mut plain, mut timed) = (bus.view(), bus.view().timed());
    for view in [&mut plain, &mut timed] {
        view.write(Space::Memory, 0x2_0ff8, &[1]);
        view.read(Space::Memory, 0x2_0ff8, &mut [0; 8]);
        view.read(Space::Memory, 0x3_0000, &mut [0; 8]);
    }
    assert!(plain.times.is_none());
    let times = timed.times.unwrap();
    assert!(times.of_region(0).is_empty());
    let [(page, took)] = times.of_region(1)[..] else { panic!("one page") };
    assert_eq!((page.number, took.count()), (Some(0), Count { reads: 1, writes: 1 }));
    assert!(took.sum() >= took.most() && took.most() >= took.least());
}

#[test]
fn a_view_holds_what_it_saw_last_until_it_looks_again() {
    let bus = Bus::new();
    let mut view = bus.view();
    let target = Arc::new(Bar(Mutex::default()));
    let trap = trap(&target, 0xc000_0000, 0, 0);
    bus.trap(&[], std::slice::from_ref(&trap)).unwrap();
    view.read(Space::Memory, 0xc000_0000, &mut [0]);
    bus.trap(&[(trap.space, trap.range.clone())], &[]).unwrap();
    drop(trap);
    assert!(Arc::strong_count(&target) > 1);
    view.reload();
    assert_eq!(Arc::strong_count(&target), 1);
}

#[test]
fn a_moved_range_is_found_where_it_went_and_counted_on() {
    let bus = Bus::new();
    let mut view = bus.view();
    let target = Arc::new(Bar(Mutex::default()));
    bus.trap(&[], &[trap(&target, 0x1000, 1, 0)]).unwrap();
    view.write(Space::Memory, 0x1000, &[1]);
    bus.trap(&[(Space::Memory, 0x1000..0x2000)], &[trap(&target, 0x5000, 1, 0)]).unwrap();
    view.write(Space::Memory, 0x1000, &[2]);
    view.write(Space::Memory, 0x5000, &[3]);
    assert_eq!(target.0.lock().iter().map(|w| w.2[0]).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(view.counts.regions, [Count { reads: 0, writes: 2 }]);
}

struct Registers;

impl ConfigAccess for Registers {
    fn config_read(&self, _: u16, data: &mut [u8]) {
        data.fill(0);
    }

    fn config_write(&self, _: u16, _: &[u8]) {}
}

fn slot(text: &str) -> Slot {
    text.parse().unwrap()
}

/// Functions at these slots, with ports of buses 1 and 2, on a bus.
fn configured(slots: &[&str]) -> (Bus, Arc<Topology>) {
    let mut builder = Topology::builder();
    slots.iter().for_each(|text| builder.add(slot(text), Arc::new(Registers)));
    [1, 2].into_iter().for_each(|bus| builder.add_port(bus, Arc::new(Registers)));
    let topology = Arc::new(builder.build().unwrap());
    let bus = Bus::new();
    let cf8 = Arc::new(Cf8::new(topology.clone(), Arc::new(|_| {})));
    bus.add(Space::Io, 0xcf8..0xd00, "cf8", Target::Cf8(cf8)).unwrap();
    let ecam = Arc::new(Ecam::new(topology.clone()));
    bus.add(Space::Memory, 0..ecam::SIZE, "ecam", Target::Ecam(ecam)).unwrap();
    (bus, topology)
}

fn read(view: &mut View, place: &str, times: u64) {
    let at = ecam::offset_of(slot(place));
    (0..times).for_each(|_| view.read(Space::Memory, at, &mut [0; 4]));
}

#[test]
fn configuration_accesses_are_counted_by_function_and_all_others_together() {
    let (bus, _) = configured(&["8:8:0", "0:1:0"]);
    let mut view = bus.view();
    for (place, reads) in
        [("8:8:0", 3), ("0:1:0", 1), ("8:8:1", 2), ("8:8:0", 1), ("255:31:7", 1), ("0:0:0", 5)]
    {
        read(&mut view, place, reads);
    }
    for (place, value) in [("0:1:0", 1u32), ("0:1:1", 2)] {
        let address = 1 << 31 | u32::from(slot(place).requester_id()) << 8;
        view.write(Space::Io, 0xcf8, &address.to_le_bytes());
        view.write(Space::Io, 0xcfc, &value.to_le_bytes());
    }
    // Without the enable bit they are accesses to ports.
    view.write(Space::Io, 0xcf8, &(u32::from(slot("0:1:0").requester_id()) << 8).to_le_bytes());
    view.write(Space::Io, 0xcfc, &[0; 4]);
    let mut all = Counts::default();
    all.merge(&view.counts);
    all.merge(&view.counts);
    let count = |reads, writes| Count { reads, writes };
    let wanted = [("0:0:0", count(10, 0)), ("0:1:0", count(2, 2)), ("8:8:0", count(8, 0))];
    assert_eq!(all.config, wanted.map(|(text, count)| (slot(text), count)));
    assert_eq!(all.absent, count(6, 2));
    assert_eq!((all.of_function(slot("8:8:0")), all.of_function(slot("8:8:1"))), (count(8, 0), count(0, 0)));
}

#[test]
fn functions_behind_ports_are_counted_by_their_slots_wherever_the_guest_finds_them() {
    let (bus, topology) = configured(&["1:0:0", "1:0:1"]);
    let mut view = bus.view();
    read(&mut view, "1:0:0", 1);
    topology.set_buses(1, Some(1..=1));
    read(&mut view, "1:0:0", 2);
    topology.set_buses(1, Some(5..=7));
    read(&mut view, "5:0:1", 4);
    read(&mut view, "5:0:0", 8);
    read(&mut view, "1:0:0", 16);
    // Where another one was, and what came while the guest ran.
    topology.set_buses(2, Some(1..=1));
    topology.plug(slot("2:0:0"), Arc::new(Registers)).unwrap();
    read(&mut view, "1:0:0", 32);
    topology.unplug(slot("2:0:0"));
    read(&mut view, "1:0:0", 64);
    let of = |text| view.counts.of_function(slot(text)).reads;
    assert_eq!([of("1:0:0"), of("1:0:1"), of("2:0:0")], [2 + 8, 4, 32]);
    assert_eq!((of("5:0:0"), view.counts.absent.reads), (0, 1 + 16 + 64));
}

#[test]
fn a_cleared_bus_holds_nobody_and_answers_nobody() {
    let bus = Bus::new();
    let target = Arc::new(Bar(Mutex::default()));
    bus.trap(&[], &[trap(&target, 0x1000, 1, 0)]).unwrap();
    assert_eq!(Arc::strong_count(&target), 2);
    bus.clear();
    assert_eq!(Arc::strong_count(&target), 1);
    let mut data = [0];
    bus.view().read(Space::Memory, 0x1000, &mut data);
    assert_eq!(data, [0xff]);
}

#[test]
fn overlaps_are_refused_and_change_nothing() {
    let bus = Bus::new();
    let target = Arc::new(Bar(Mutex::default()));
    bus.trap(&[], &[trap(&target, 0x1000, 1, 0)]).unwrap();
    for start in [0x1, 0x1000, 0x1fff] {
        assert!(bus.trap(&[(Space::Memory, 0x9000..0xa000)], &[trap(&target, start, 2, 0)]).is_err());
    }
    let mut data = [0];
    bus.view().read(Space::Memory, 0x1800, &mut data);
    assert_eq!(data, [1]);
}

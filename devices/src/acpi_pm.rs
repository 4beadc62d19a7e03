//! ACPI fixed hardware: the PM1 event and control registers and the PM timer (ACPI 6.5 §4.8.3).
//!
//! The machine has no system management mode and no SMI command port, so it is in ACPI mode from the start
//! and SCI_EN always reads one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::port::{read_each, write_each};
use crate::{EventSink, MachineEvent, PortDevice};

/// PM1 event block: length for the FADT's PM1_EVT_LEN. Status in the first half, enable in the second.
pub const EVENT_BLOCK_SIZE: u16 = 4;
/// PM1 control block: length for the FADT's PM1_CNT_LEN.
pub const CONTROL_BLOCK_SIZE: u16 = 2;
/// PM timer: length for the FADT's PM_TMR_LEN.
pub const TIMER_SIZE: u16 = 4;
/// The PM timer's rate in ticks a second (ACPI 6.5 §4.8.3.3).
pub const TIMER_HZ: u32 = 3_579_545;

/// PWRBTN_STS and PWRBTN_EN (ACPI 6.5 §4.8.3.1).
const POWER_BUTTON: u16 = 1 << 8;
/// Enable bits that can be set: TMR_EN, GBL_EN, PWRBTN_EN, SLPBTN_EN, RTC_EN. Only the power button raises
/// events, but ACPICA checks by reading back that it could enable an event, and warns if not.
const ENABLE_BITS: u16 = 1 << 0 | 1 << 5 | POWER_BUTTON | 1 << 9 | 1 << 10;
/// SCI_EN (ACPI 6.5 §4.8.3.2).
const SCI_ENABLE: u16 = 1 << 0;
/// SLP_TYPx.
const SLEEP_TYPE_SHIFT: u16 = 10;
const SLEEP_TYPE_MASK: u16 = 0x7 << SLEEP_TYPE_SHIFT;
/// SLP_EN: write-only, reads zero.
const SLEEP_ENABLE: u16 = 1 << 13;

/// The PM1 registers. The guest reaches them through [`Pm1::event_block`] and [`Pm1::control_block`].
pub struct Pm1 {
    state: Mutex<Pm1State>,
    off_type: u8,
    events: EventSink,
    sci: Box<dyn Fn(bool) + Send + Sync>,
}

#[derive(Default)]
struct Pm1State {
    status: u16,
    enable: u16,
    sleep_type: u16,
    raised: bool,
}

impl Pm1 {
    /// `off_type` is SLP_TYPa of `\_S5`, 0 to 7: SLP_EN written with it sends [`MachineEvent::PowerOff`];
    /// there is no other sleep state. `sci` raises (`true`) or lowers the system control interrupt, which is
    /// active and level-triggered while a status bit and its enable bit are both set; it is called at changes
    /// only, with the registers locked, and must not come back here.
    pub fn new(off_type: u8, events: EventSink, sci: impl Fn(bool) + Send + Sync + 'static) -> Arc<Pm1> {
        Arc::new(Pm1 { state: Mutex::default(), off_type, events, sci: Box::new(sci) })
    }

    /// Presses and releases the power button. Returns whether the guest has the button's event enabled; if
    /// not, the press waits in the status register until it does, and a caller in a hurry ends the guest
    /// otherwise.
    pub fn press_power_button(&self) -> bool {
        let mut state = self.state.lock();
        state.status |= POWER_BUTTON;
        self.update_sci(&mut state);
        state.enable & POWER_BUTTON != 0
    }

    /// Whether the system control interrupt is raised, for an interrupt controller that asks after an EOI.
    pub fn sci_is_raised(&self) -> bool {
        self.state.lock().raised
    }

    /// The registers at PM1a_EVT_BLK, [`EVENT_BLOCK_SIZE`] ports.
    pub fn event_block(self: &Arc<Self>) -> Pm1EventBlock {
        Pm1EventBlock(Arc::clone(self))
    }

    /// The register at PM1a_CNT_BLK, [`CONTROL_BLOCK_SIZE`] ports.
    pub fn control_block(self: &Arc<Self>) -> Pm1ControlBlock {
        Pm1ControlBlock(Arc::clone(self))
    }

    /// Back to power-on: nothing pending, nothing enabled.
    pub fn reset(&self) {
        let mut state = self.state.lock();
        let raised = state.raised;
        *state = Pm1State { raised, ..Pm1State::default() };
        self.update_sci(&mut state);
    }

    fn update_sci(&self, state: &mut Pm1State) {
        let raise = state.status & state.enable != 0;
        if raise != state.raised {
            state.raised = raise;
            (self.sci)(raise);
        }
    }
}

/// PM1 status and enable as ports.
pub struct Pm1EventBlock(Arc<Pm1>);

impl PortDevice for Pm1EventBlock {
    fn read(&self, offset: u16, data: &mut [u8]) {
        let state = self.0.state.lock();
        let [s0, s1] = state.status.to_le_bytes();
        let [e0, e1] = state.enable.to_le_bytes();
        read_each(offset, data, |port| match port {
            0 => s0,
            1 => s1,
            2 => e0,
            3 => e1,
            _ => 0xff,
        });
    }

    fn write(&self, offset: u16, data: &[u8]) {
        let mut state = self.0.state.lock();
        write_each(offset, data, |port, value| {
            let value = u16::from(value);
            match port {
                // Status bits are cleared by writing ones.
                0 => state.status &= !value,
                1 => state.status &= !(value << 8),
                2 => state.enable = (state.enable & 0xff00 | value) & ENABLE_BITS,
                3 => state.enable = (state.enable & 0x00ff | value << 8) & ENABLE_BITS,
                _ => {}
            }
        });
        self.0.update_sci(&mut state);
    }

    fn reset(&self) {
        self.0.reset();
    }
}

/// PM1 control as ports.
pub struct Pm1ControlBlock(Arc<Pm1>);

impl PortDevice for Pm1ControlBlock {
    fn read(&self, offset: u16, data: &mut [u8]) {
        let [low, high] = (self.0.state.lock().sleep_type | SCI_ENABLE).to_le_bytes();
        read_each(offset, data, |port| match port {
            0 => low,
            1 => high,
            _ => 0xff,
        });
    }

    fn write(&self, offset: u16, data: &[u8]) {
        // SLP_TYP and SLP_EN share the upper byte; of the lower one nothing can be written here: SCI_EN is
        // fixed, BM_RLD and GBL_RLS concern hardware that is not there.
        write_each(offset, data, |port, value| {
            if port != 1 {
                return;
            }
            let value = u16::from(value) << 8;
            let sleep_type = value & SLEEP_TYPE_MASK;
            self.0.state.lock().sleep_type = sleep_type;
            if value & SLEEP_ENABLE != 0 && sleep_type >> SLEEP_TYPE_SHIFT == u16::from(self.0.off_type) {
                (self.0.events)(MachineEvent::PowerOff);
            }
        });
    }

    fn reset(&self) {
        self.0.reset();
    }
}

/// How many bits of the PM timer count; the FADT's TMR_VAL_EXT flag tells the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimerWidth {
    /// Wraps every 4.7 seconds; TMR_VAL_EXT clear.
    Bits24,
    /// Wraps every 20 minutes; TMR_VAL_EXT set.
    Bits32,
}

/// The PM timer: counts at [`TIMER_HZ`] from its making on, also across resets, and cannot be written. Its
/// carry sets no status bit.
pub struct PmTimer {
    width: TimerWidth,
    clock: Box<dyn Fn() -> Duration + Send + Sync>,
}

impl PmTimer {
    /// Counts by the host's monotonic clock.
    pub fn new(width: TimerWidth) -> PmTimer {
        let start = Instant::now();
        PmTimer::with_clock(width, move || start.elapsed())
    }

    /// Counts by `clock`, the time since the start.
    pub fn with_clock(width: TimerWidth, clock: impl Fn() -> Duration + Send + Sync + 'static) -> PmTimer {
        PmTimer { width, clock: Box::new(clock) }
    }

    /// The counter's value now.
    pub fn ticks(&self) -> u32 {
        let ticks = (self.clock)().as_nanos() * u128::from(TIMER_HZ) / 1_000_000_000;
        match self.width {
            TimerWidth::Bits24 => ticks as u32 & 0xff_ffff,
            TimerWidth::Bits32 => ticks as u32,
        }
    }
}

impl PortDevice for PmTimer {
    fn read(&self, offset: u16, data: &mut [u8]) {
        let ticks = self.ticks().to_le_bytes();
        read_each(offset, data, |port| ticks.get(usize::from(port)).copied().unwrap_or(0xff));
    }

    fn write(&self, _offset: u16, _data: &[u8]) {}

    fn reset(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::tests::recorder;

    const OFF: u8 = 5;

    type Levels = Arc<Mutex<Vec<bool>>>;

    fn pm1() -> (Arc<Pm1>, Arc<Mutex<Vec<MachineEvent>>>, Levels) {
        let (events, seen) = recorder();
        let levels = Levels::default();
        let kept = Arc::clone(&levels);
        (Pm1::new(OFF, events, move |level| kept.lock().push(level)), seen, levels)
    }

    fn read16(device: &impl PortDevice, offset: u16) -> u16 {
        let mut data = [0; 2];
        device.read(offset, &mut data);
        u16::from_le_bytes(data)
    }

    #[test]
    fn the_power_button_raises_the_sci_until_acknowledged() {
        let (pm1, _, levels) = pm1();
        let block = pm1.event_block();
        block.write(2, &POWER_BUTTON.to_le_bytes());
        assert!(levels.lock().is_empty());

        assert!(pm1.press_power_button());
        assert!(pm1.press_power_button());
        assert_eq!(*levels.lock(), [true], "once for two presses");
        assert!(pm1.sci_is_raised());
        assert_eq!(read16(&block, 0), POWER_BUTTON);

        block.write(0, &0u16.to_le_bytes());
        assert_eq!(read16(&block, 0), POWER_BUTTON, "zeros clear nothing");
        block.write(0, &POWER_BUTTON.to_le_bytes());
        assert_eq!((read16(&block, 0), read16(&block, 2)), (0, POWER_BUTTON));
        assert_eq!(*levels.lock(), [true, false]);
    }

    #[test]
    fn a_press_before_the_guest_listens_waits() {
        let (pm1, _, levels) = pm1();
        assert!(!pm1.press_power_button());
        assert!(levels.lock().is_empty());
        pm1.event_block().write(3, &[(POWER_BUTTON >> 8) as u8]);
        assert_eq!(*levels.lock(), [true]);
    }

    #[test]
    fn status_and_enable_in_one_access() {
        let (pm1, _, levels) = pm1();
        pm1.press_power_button();
        let block = pm1.event_block();
        block.write(0, &[0, 1, 0, 1]);
        assert!(levels.lock().is_empty(), "cleared and enabled at once: no edge in between");
        let mut data = [0; 4];
        block.read(0, &mut data);
        assert_eq!(data, [0, 0, 0, 1]);
    }

    #[test]
    fn enable_bits_read_back_and_reserved_ones_do_not() {
        let (pm1, ..) = pm1();
        let block = pm1.event_block();
        block.write(2, &[0xff, 0xff]);
        assert_eq!(read16(&block, 2), 0x0721);
        block.write(3, &[0]);
        assert_eq!(read16(&block, 2), 0x0021);
    }

    #[test]
    fn reset_drops_what_is_pending() {
        let (pm1, _, levels) = pm1();
        pm1.event_block().write(2, &[0xff, 0xff]);
        pm1.press_power_button();
        pm1.event_block().reset();
        assert_eq!(*levels.lock(), [true, false]);
        assert_eq!((read16(&pm1.event_block(), 0), read16(&pm1.event_block(), 2)), (0, 0));
    }

    #[test]
    fn sleep_types() {
        for (writes, off) in [
            // ACPICA writes the type alone first.
            (&[(0, &[0x01, 0x14][..]), (0, &[0x01, 0x34])][..], 1),
            (&[(1, &[0x34])], 1),
            (&[(0, &[0x01, 0x34, 0, 0])], 1),
            // S0, S3 and another type with SLP_EN; the byte of SCI_EN.
            (&[(0, &[0x01, 0x20])], 0),
            (&[(0, &[0x01, 0x24])], 0),
            (&[(0, &[0x34])], 0),
        ] {
            let (pm1, seen, _) = pm1();
            let block = pm1.control_block();
            for (offset, data) in writes {
                block.write(*offset, data);
            }
            assert_eq!(*seen.lock(), vec![MachineEvent::PowerOff; off], "{writes:x?}");
        }
    }

    #[test]
    fn control_reads_the_type_without_its_trigger() {
        let (pm1, ..) = pm1();
        let block = pm1.control_block();
        assert_eq!(read16(&block, 0), SCI_ENABLE);
        block.write(0, &[0x00, 0x34]);
        assert_eq!(read16(&block, 0), 0x1401, "SCI_EN stays, SLP_EN reads zero");
        block.reset();
        assert_eq!(read16(&block, 0), SCI_ENABLE);
    }

    #[test]
    fn timer_rate_and_wrap() {
        let day = Duration::from_secs(86_400);
        let day_ticks = 86_400 * u64::from(TIMER_HZ);
        for (elapsed, width, ticks) in [
            (Duration::ZERO, TimerWidth::Bits32, 0),
            (Duration::from_nanos(280), TimerWidth::Bits32, 1),
            (Duration::from_secs(1), TimerWidth::Bits32, TIMER_HZ),
            (Duration::from_secs(1), TimerWidth::Bits24, TIMER_HZ),
            (Duration::from_secs(5), TimerWidth::Bits24, 5 * TIMER_HZ - (1 << 24)),
            (day, TimerWidth::Bits32, day_ticks as u32),
            (day, TimerWidth::Bits24, day_ticks as u32 & 0xff_ffff),
        ] {
            let timer = PmTimer::with_clock(width, move || elapsed);
            assert_eq!(timer.ticks(), ticks, "{elapsed:?} {width:?}");
            let mut data = [0; 4];
            timer.read(0, &mut data);
            assert_eq!(u32::from_le_bytes(data), ticks);
        }
    }

    #[test]
    fn the_timer_cannot_be_written() {
        let timer = PmTimer::with_clock(TimerWidth::Bits32, || Duration::from_secs(1));
        timer.write(0, &[0; 4]);
        timer.reset();
        assert_eq!(timer.ticks(), TIMER_HZ);
        let mut upper = [0; 4];
        timer.read(2, &mut upper);
        let [_, _, b2, b3] = TIMER_HZ.to_le_bytes();
        assert_eq!(upper, [b2, b3, 0xff, 0xff]);
    }
}

//! As much of an NVMe drive (NVM Express Base Specification 1.4, chapters 3 to 5) as it takes to raise any of its vectors:
//! a pair of queues whose completions raise it, and one command in them.

use runtime::function::Function;
use runtime::time::Deadline;
use runtime::window::Window;
use runtime::{Boot, Check, ensure, ensure_equal, fail};

const CAPABILITIES: u64 = 0x00;
const CONFIGURATION: u64 = 0x14;
const STATUS: u64 = 0x1c;
const ADMIN_SIZES: u64 = 0x24;
const ADMIN_SUBMISSION: u64 = 0x28;
const ADMIN_COMPLETION: u64 = 0x30;
const DOORBELLS: u64 = 0x1000;

/// Enabled; entries of 64 and of 16 bytes.
const ENABLE: u32 = 1 | 6 << 16 | 4 << 20;
const READY: u32 = 1;

const DELETE_SUBMISSION: u32 = 0x00;
const CREATE_SUBMISSION: u32 = 0x01;
const DELETE_COMPLETION: u32 = 0x04;
const CREATE_COMPLETION: u32 = 0x05;
/// Of the I/O commands, the one that needs no buffer.
const FLUSH: u32 = 0x00;
const CONTIGUOUS: u32 = 1;
const INTERRUPTS: u32 = 2;

/// Entries of each queue.
const ENTRIES: u32 = 8;
/// The one pair of queues beside the admin queues.
const QUEUE: u32 = 1;
const PAGE: u64 = 4096;
const PATIENCE: u64 = 20_000_000;

struct Queue {
    submissions: Window,
    completions: Window,
    /// Doorbells of the two.
    doorbells: (u64, u64),
    tail: u32,
    head: u32,
    phase: u32,
}

pub struct Nvme {
    registers: Window,
    /// Bytes from one doorbell to the next.
    stride: u64,
    admin: Queue,
    pair: Option<Queue>,
    memory: Window,
}

impl Queue {
    fn new(number: u64, stride: u64, memory: Window) -> Self {
        let doorbell = DOORBELLS + 2 * number * stride;
        for offset in (0..2 * PAGE).step_by(8) {
            memory.write64(offset, 0);
        }
        Self {
            submissions: memory.part(0, PAGE),
            completions: memory.part(PAGE, PAGE),
            doorbells: (doorbell, doorbell + stride),
            tail: 0,
            head: 0,
            phase: 1,
        }
    }

    /// Gives a command and waits until it is done, without the help of an interrupt. Returns the status field.
    fn command(&mut self, registers: &Window, words: [u32; 16]) -> Check<u32> {
        let entry = u64::from(self.tail) * 64;
        for (word, offset) in words.iter().zip((entry..).step_by(4)) {
            self.submissions.write32(offset, *word);
        }
        self.tail = (self.tail + 1) % ENTRIES;
        registers.write32(self.doorbells.0, self.tail);
        let entry = u64::from(self.head) * 16;
        let deadline = Deadline::after_microseconds(PATIENCE);
        let status = loop {
            let status = self.completions.read32(entry + 12) >> 16;
            if status & 1 == self.phase {
                break status >> 1;
            }
            ensure!(!deadline.passed(), "command {:#x} is never done", words[0] & 0xff);
        };
        self.head = (self.head + 1) % ENTRIES;
        if self.head == 0 {
            self.phase ^= 1;
        }
        registers.write32(self.doorbells.1, self.head);
        Ok(status)
    }
}

impl Nvme {
    /// Starts the controller. Its vectors should be off: vector 0 is also raised for each admin command.
    pub fn start(boot: &Boot, function: &Function) -> Check<Self> {
        let registers = function.memory_bar(0)?;
        let Some(memory) = boot.memory.buffer(4 * PAGE, PAGE, 1 << 32) else { fail!("no memory for queues") };
        registers.write32(CONFIGURATION, 0);
        Self::wait(&registers, 0)?;
        let stride = 4 << (registers.read64(CAPABILITIES) >> 32 & 0xf);
        let admin = Queue::new(0, stride, memory.part(0, 2 * PAGE));
        registers.write32(ADMIN_SIZES, (ENTRIES - 1) << 16 | (ENTRIES - 1));
        registers.write64(ADMIN_SUBMISSION, admin.submissions.address());
        registers.write64(ADMIN_COMPLETION, admin.completions.address());
        registers.write32(CONFIGURATION, ENABLE);
        Self::wait(&registers, READY)?;
        Ok(Self { registers, stride, admin, pair: None, memory: memory.part(2 * PAGE, 2 * PAGE) })
    }

    fn wait(registers: &Window, wanted: u32) -> Check {
        let deadline = Deadline::after_microseconds(PATIENCE);
        while registers.read32(STATUS) & READY != wanted {
            ensure!(!deadline.passed(), "the controller's status is {:#x}", registers.read32(STATUS));
        }
        Ok(())
    }

    fn admin(&mut self, what: &str, opcode: u32, address: u64, words: [u32; 2]) -> Check {
        let mut command = [0; 16];
        command[0] = opcode;
        (command[6], command[7]) = (address as u32, (address >> 32) as u32);
        (command[10], command[11]) = (words[0], words[1]);
        let status = self.admin.command(&self.registers, command)?;
        ensure_equal!(status, 0u32, "status of {what}");
        Ok(())
    }

    /// Raises a vector once. The queues stay, since a drive may take back what is pending of a queue that goes.
    pub fn raise(&mut self, vector: u16) -> Check {
        if self.pair.take().is_some() {
            self.admin("deleting a submission queue", DELETE_SUBMISSION, 0, [QUEUE, 0])?;
            self.admin("deleting a completion queue", DELETE_COMPLETION, 0, [QUEUE, 0])?;
        }
        let mut pair = Queue::new(QUEUE.into(), self.stride, self.memory);
        let size = (ENTRIES - 1) << 16 | QUEUE;
        let flags = u32::from(vector) << 16 | INTERRUPTS | CONTIGUOUS;
        self.admin(
            "creating a completion queue",
            CREATE_COMPLETION,
            pair.completions.address(),
            [size, flags],
        )?;
        self.admin(
            "creating a submission queue",
            CREATE_SUBMISSION,
            pair.submissions.address(),
            [size, QUEUE << 16 | CONTIGUOUS],
        )?;
        let mut command = [0; 16];
        (command[0], command[1]) = (FLUSH, 1);
        // A drive without that namespace says so, which raises the vector as well.
        pair.command(&self.registers, command)?;
        self.pair = Some(pair);
        Ok(())
    }
}

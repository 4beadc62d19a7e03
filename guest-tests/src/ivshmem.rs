//! The other end of QEMU's `ivshmem-doorbell`: the server that hands out memory and doorbells, and the one peer
//! (QEMU's docs/specs/ivshmem-spec.rst, "The Inter-VM Shared Memory Server").

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use vmm_sys_util::sock_ctrl_msg::ScmSocket as _;

use crate::{DiskImage, Failure, Scenario};

const PROTOCOL_VERSION: i64 = 0;
/// The device is the first peer.
const DEVICE: i64 = 0;
/// What a guest writes into the upper half of the doorbell register to ring us.
const PEER: i64 = 1;
/// Announces the file that is the shared memory.
const MEMORY: i64 = -1;
const PERIOD: Duration = Duration::from_millis(200);

/// Rings every vector of the device five times a second until the guest rings it at the peer, and then once more.
///
/// So a guest may wait for a ring first or ring first; either way both directions are proven, vector by vector.
#[derive(Debug)]
pub struct DoorbellPeer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<Rings>>>,
}

/// How often the guest rang each vector of the peer.
pub type Rings = Vec<u64>;

impl DoorbellPeer {
    /// Listens at `socket` in the scenario's directory for the device that [`crate::Plan::ivshmem_doorbell`] adds.
    /// `memory` is the shared memory.
    pub fn listen(
        scenario: &Scenario,
        socket: &str,
        memory: &DiskImage,
        vectors: u16,
    ) -> Result<Self, Failure> {
        let directory = scenario.directory();
        // The path of a socket is limited to 108 bytes, so the directory is named by its file descriptor.
        let opened = File::open(directory).map_err(Failure::io("open", directory))?;
        let listener = UnixListener::bind(format!("/proc/self/fd/{}/{socket}", opened.as_raw_fd()))
            .map_err(Failure::io("listen at", directory.join(socket)))?;
        let memory = File::options()
            .read(true)
            .write(true)
            .open(memory.path())
            .map_err(Failure::io("open", memory.path()))?;
        let bells = Bells::new(vectors).map_err(Failure::io("make eventfds for", directory.join(socket)))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || serve(&listener, &memory, &bells, &stopped));
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Stops, and tells how often the guest rang.
    pub fn rings(mut self) -> Result<Rings, Failure> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        match ended {
            Some(Ok(Ok(rings))) => Ok(rings),
            Some(Ok(Err(error))) => Err(Failure::NotAsExpected(format!("the ivshmem peer failed: {error}"))),
            _ => Err(Failure::NotAsExpected("the ivshmem peer ended early".to_owned())),
        }
    }
}

impl Drop for DoorbellPeer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// An eventfd for each vector of each side.
#[derive(Debug)]
struct Bells {
    device: Vec<EventFd>,
    peer: Vec<EventFd>,
}

impl Bells {
    fn new(vectors: u16) -> io::Result<Self> {
        let side = || (0..vectors).map(|_| EventFd::new(EFD_NONBLOCK)).collect::<io::Result<Vec<_>>>();
        Ok(Self { device: side()?, peer: side()? })
    }
}

fn serve(listener: &UnixListener, memory: &File, bells: &Bells, stop: &AtomicBool) -> io::Result<Rings> {
    listener.set_nonblocking(true)?;
    let device = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if stop.load(Ordering::Relaxed) {
                    return Ok(vec![0; bells.peer.len()]);
                }
                thread::sleep(PERIOD);
            }
            Err(error) => return Err(error),
        }
    };
    introduce(&device, memory, bells)?;
    let mut rings = vec![0; bells.peer.len()];
    loop {
        // Once more after the last look, so that no ring before the stop is missed.
        let last = stop.load(Ordering::Relaxed);
        for ((count, peer), device) in rings.iter_mut().zip(&bells.peer).zip(&bells.device) {
            let silent = *count == 0;
            *count += peer.read().unwrap_or(0);
            if silent {
                device.write(1)?;
            }
        }
        if last {
            return Ok(rings);
        }
        thread::sleep(PERIOD);
    }
}

/// What a server tells a client that is new: who it is, the memory, who else is there, its own doorbells.
fn introduce(device: &UnixStream, memory: &File, bells: &Bells) -> io::Result<()> {
    tell(device, PROTOCOL_VERSION, None)?;
    tell(device, DEVICE, None)?;
    tell(device, MEMORY, Some(memory.as_raw_fd()))?;
    for (who, side) in [(PEER, &bells.peer), (DEVICE, &bells.device)] {
        for bell in side {
            tell(device, who, Some(bell.as_raw_fd()))?;
        }
    }
    Ok(())
}

/// One message is eight bytes, little-endian, with at most one file descriptor.
fn tell(device: &UnixStream, number: i64, fd: Option<RawFd>) -> io::Result<()> {
    let bytes = number.to_le_bytes();
    let fds: Vec<RawFd> = fd.into_iter().collect();
    device.send_with_fds(&[&bytes[..]], &fds)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn a_client_is_told_of_memory_and_of_both_sides_doorbells() {
        let (server, client) = UnixStream::pair().unwrap();
        let memory = tempfile::tempfile().unwrap();
        memory.set_len(4096).unwrap();
        let bells = Bells::new(2).unwrap();
        introduce(&server, &memory, &bells).unwrap();
        let mut told = Vec::new();
        for _ in 0..7 {
            let mut bytes = [0; 8];
            let (_, file) = client.recv_with_fd(&mut bytes).unwrap();
            told.push((i64::from_le_bytes(bytes), file));
        }
        let numbers: Vec<(i64, bool)> = told.iter().map(|(number, file)| (*number, file.is_some())).collect();
        let with = true;
        assert_eq!(numbers, [(0, !with), (0, !with), (-1, with), (1, with), (1, with), (0, with), (0, with)]);
        assert_eq!(told[2].1.as_ref().unwrap().metadata().unwrap().len(), 4096);
        bells.peer[1].write(5).unwrap();
        let mut count = [0; 8];
        told[4].1.as_ref().unwrap().read_exact(&mut count).unwrap();
        assert_eq!(u64::from_le_bytes(count), 5);
    }

    #[test]
    fn every_vector_is_rung_and_rings_are_counted() {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("s")).unwrap();
        let _client = UnixStream::connect(directory.path().join("s")).unwrap();
        let memory = tempfile::tempfile().unwrap();
        let bells = Bells::new(2).unwrap();
        bells.peer[1].write(3).unwrap();
        let rings = serve(&listener, &memory, &bells, &AtomicBool::new(true)).unwrap();
        assert_eq!(rings, [0, 3]);
        let rung: Vec<u64> = bells.device.iter().map(|bell| bell.read().unwrap()).collect();
        assert_eq!(rung, [1, 1]);
    }
}

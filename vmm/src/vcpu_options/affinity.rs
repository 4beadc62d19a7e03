//! Which vCPU runs on which of the host's CPUs.

use std::fmt;
use std::fs;
use std::io;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};

use log::warn;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

const ONLINE: &str = "/sys/devices/system/cpu/online";

/// CPUs of the host, in the form of cpuset(7): `0-3,8`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct CpuList(Vec<RangeInclusive<usize>>);

impl CpuList {
    /// Nothing unless there are some, all of them below [`CpuSet::MAX_CPU`].
    fn parse(text: &str) -> Option<CpuList> {
        // Not what FromStr of numbers takes besides, such as a sign.
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|number| digits && *number < CpuSet::MAX_CPU)
        };
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let range = number(first)?..=number(last)?;
            (!range.is_empty()).then_some(range)
        };
        text.split(',').map(range).collect::<Option<Vec<_>>>().map(CpuList)
    }

    fn iter(&self) -> impl Iterator<Item = usize> {
        self.0.iter().cloned().flatten()
    }

    fn set(&self) -> CpuSet {
        let mut set = CpuSet::new();
        self.iter().for_each(|cpu| set.set(cpu));
        set
    }
}

impl fmt::Display for CpuList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.0.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { "," })?;
            match (range.start(), range.end()) {
                (first, last) if first == last => write!(f, "{first}")?,
                (first, last) => write!(f, "{first}-{last}")?,
            }
        }
        Ok(())
    }
}

/// The host's CPUs that one vCPU runs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    vcpu: u32,
    cpus: CpuList,
}

/// A text that says no such thing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' does not say where a vCPU runs: give its number and CPUs of the host (0 to {most}), such as 0=2 or 1=4-5,8",
    most = CpuSet::MAX_CPU - 1
)]
pub struct PinError(String);

impl FromStr for Pin {
    type Err = PinError;

    fn from_str(text: &str) -> Result<Pin, PinError> {
        let pin = || {
            let (vcpu, cpus) = text.split_once('=')?;
            let digits = vcpu.bytes().all(|byte| byte.is_ascii_digit());
            Some(Pin { vcpu: vcpu.parse().ok().filter(|_| digits)?, cpus: CpuList::parse(cpus)? })
        };
        pin().ok_or_else(|| PinError(text.to_owned()))
    }
}

/// What is given first counts less: where both name a vCPU, the second says where it runs.
pub fn merge(first: Vec<Pin>, second: Vec<Pin>) -> Vec<Pin> {
    let first = first.into_iter().filter(|pin| second.iter().all(|other| other.vcpu != pin.vcpu));
    first.chain(second.iter().cloned()).collect()
}

/// Why vCPUs cannot run where they are to.
#[derive(Debug, thiserror::Error)]
pub enum AffinityError {
    /// No such vCPU.
    #[error("cpu affinity: there is no vCPU {vcpu}; a guest with {cpus} processors has vCPUs 0 to {}", .cpus.saturating_sub(1))]
    NoVcpu {
        /// Named.
        vcpu: u32,
        /// Of the guest.
        cpus: u32,
    },
    /// Said more than once.
    #[error("cpu affinity: vCPU {vcpu} is named twice; name all of its CPUs at once, such as {vcpu}=2,3")]
    Twice {
        /// Which one.
        vcpu: u32,
    },
    /// No such CPU.
    #[error("cpu affinity: vCPU {vcpu} cannot run on CPU {cpu}; this host has CPUs {online} online")]
    Offline {
        /// Which one.
        vcpu: u32,
        /// Not there.
        cpu: usize,
        /// Those that are.
        online: String,
    },
    /// The kernel says no.
    #[error(
        "cpu affinity: vCPU {vcpu} cannot run on CPUs {cpus}: sched_setaffinity: {source}; a cpuset of this process may leave \
         them out"
    )]
    Refused {
        /// Which one.
        vcpu: u32,
        /// Where to.
        cpus: String,
        /// errno.
        source: io::Error,
    },
    /// The host's CPUs are not known.
    #[error("cpu affinity: {ONLINE}: {0}")]
    Online(io::Error),
}

/// Where each vCPU runs, checked.
#[derive(Debug, Default)]
pub struct Affinity {
    pins: Vec<Pin>,
    warned: AtomicBool,
}

impl Affinity {
    /// Checks pins of a guest with so many processors against this host.
    pub fn new(pins: &[Pin], cpus: u32) -> Result<Affinity, AffinityError> {
        if pins.is_empty() {
            return Ok(Affinity::default());
        }
        let online = fs::read_to_string(ONLINE).map_err(AffinityError::Online)?;
        check(pins, cpus, online.trim())?;
        for pin in pins {
            try_out(pin)?;
        }
        Ok(Affinity { pins: pins.to_vec(), warned: AtomicBool::new(false) })
    }

    /// Binds the calling thread, which is this vCPU's. It could be bound when the guest was made; if it cannot any more, since
    /// the host changed, it runs anywhere, and that is said once.
    pub fn bind(&self, vcpu: u32) {
        let Some(pin) = self.pins.iter().find(|pin| pin.vcpu == vcpu) else { return };
        if let Err(error) = sched_setaffinity(None, &pin.cpus.set())
            && !self.warned.swap(true, Ordering::Relaxed)
        {
            warn!(
                "cpu affinity: vCPU {vcpu} no longer runs on CPUs {}: sched_setaffinity: {error}",
                pin.cpus
            );
        }
    }
}

/// `online` is a list of CPUs as well.
fn check(pins: &[Pin], cpus: u32, online: &str) -> Result<(), AffinityError> {
    let unknown = || AffinityError::Online(io::ErrorKind::InvalidData.into());
    let there = CpuList::parse(online).ok_or_else(unknown)?.set();
    for (index, pin) in pins.iter().enumerate() {
        let vcpu = pin.vcpu;
        if vcpu >= cpus {
            return Err(AffinityError::NoVcpu { vcpu, cpus });
        }
        if pins.iter().take(index).any(|other| other.vcpu == vcpu) {
            return Err(AffinityError::Twice { vcpu });
        }
        if let Some(cpu) = pin.cpus.iter().find(|cpu| !there.is_set(*cpu)) {
            return Err(AffinityError::Offline { vcpu, cpu, online: online.to_owned() });
        }
    }
    Ok(())
}

/// On a thread of its own. The kernel leaves out in silence what a cpuset does not have.
fn try_out(pin: &Pin) -> Result<(), AffinityError> {
    let wanted = pin.cpus.set();
    let bound = || {
        sched_setaffinity(None, &wanted)?;
        if sched_getaffinity(None)? == wanted { Ok(()) } else { Err(rustix::io::Errno::INVAL) }
    };
    let tried = std::thread::scope(|scope| scope.spawn(bound).join());
    let result = tried.unwrap_or(Err(rustix::io::Errno::AGAIN));
    result.map_err(|error| AffinityError::Refused {
        vcpu: pin.vcpu,
        cpus: pin.cpus.to_string(),
        source: error.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins() {
        for (text, said) in [
            ("0=0", Some((0, "0"))),
            ("1=4-5,8", Some((1, "4-5,8"))),
            ("253=1023", Some((253, "1023"))),
            ("0=3-3", Some((0, "3"))),
            ("00=01", Some((0, "1"))),
            ("", None),
            ("0", None),
            ("0=", None),
            ("=0", None),
            ("0=1024", None),
            ("0=99999999999999999999", None),
            ("0=0-1023", Some((0, "0-1023"))),
            ("0=0-18446744073709551615", None),
            ("0=2-1", None),
            ("0=1,", None),
            ("0=-1", None),
            ("0=+1", None),
            ("+0=1", None),
            ("-1=1", None),
            ("0=1-", None),
            ("0=1-2-3", None),
            ("0=0x1", None),
            ("0:1", None),
            ("0=1=2", None),
        ] {
            let pin = text.parse::<Pin>();
            let got = pin.as_ref().ok().map(|pin| (pin.vcpu, pin.cpus.to_string()));
            assert_eq!(got, said.map(|(vcpu, cpus)| (vcpu, cpus.to_owned())), "{text}");
            if let Err(error) = pin {
                assert!(error.to_string().starts_with(&format!("'{text}' does not say")), "{error}");
            }
        }
    }

    fn parsed(texts: &[&str]) -> Vec<Pin> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn pins_against_the_guest_and_the_host() {
        for (pins, cpus, online, error) in [
            (&["0=0", "1=0-1"][..], 2, "0-1", None),
            (&["0=7"], 1, "0-3,7", None),
            (&["2=0"], 2, "0-1", Some("no vCPU 2; a guest with 2 processors has vCPUs 0 to 1")),
            (&["0=0", "0=1"], 2, "0-1", Some("vCPU 0 is named twice")),
            (&["1=0-4"], 2, "0-1", Some("vCPU 1 cannot run on CPU 2; this host has CPUs 0-1 online")),
            (&["0=5"], 1, "0-3,7", Some("vCPU 0 cannot run on CPU 5; this host has CPUs 0-3,7 online")),
            (&["0=0"], 1, "", Some(ONLINE)),
        ] {
            let got = check(&parsed(pins), cpus, online).map_err(|error| error.to_string());
            match (error, &got) {
                (None, Ok(())) => {}
                (Some(part), Err(error)) => assert!(error.contains(part), "{error}"),
                _ => panic!("{pins:?}: {got:?}"),
            }
        }
    }

    #[test]
    fn what_is_said_later_counts() {
        let merged = merge(parsed(&["0=0", "1=1"]), parsed(&["1=2", "3=3"]));
        assert_eq!(merged, parsed(&["0=0", "1=2", "3=3"]));
    }

    #[test]
    fn a_thread_is_bound_to_what_was_asked_for_and_no_other_is() {
        let before = sched_getaffinity(None).unwrap();
        let first = (0..CpuSet::MAX_CPU).find(|cpu| before.is_set(*cpu)).unwrap();
        let affinity = Affinity::new(&parsed(&[&format!("1={first}")]), 2).unwrap();
        assert_eq!(sched_getaffinity(None).unwrap(), before, "trying it out changes nothing");
        std::thread::scope(|scope| {
            let of = |vcpu| {
                let affinity = &affinity;
                let bound = scope.spawn(move || {
                    affinity.bind(vcpu);
                    sched_getaffinity(None).unwrap()
                });
                bound.join().unwrap()
            };
            let mut one = CpuSet::new();
            one.set(first);
            assert_eq!((of(0), of(1)), (before, one));
        });
    }
}

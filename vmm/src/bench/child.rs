//! Programs that a bench runs. None of them outlives it.

use std::io;
use std::ops::{Deref, DerefMut};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getpid, getppid, kill_process, set_parent_process_death_signal};

/// For one that was asked to end: it resets its functions then.
const PATIENCE: Duration = Duration::from_secs(30);
const NAP: Duration = Duration::from_millis(2);

/// How a program is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It is asked to, and killed if it takes too long.
    Asked,
    /// It is killed.
    Killed,
}

/// A program that runs, until this is dropped at the latest. It ends too if this program is killed.
#[derive(Debug)]
pub struct Running {
    child: Child,
    ending: Ending,
}

impl Running {
    /// Starts it from this thread, which must be there as long as the program.
    pub fn start(command: &mut Command, ending: Ending) -> io::Result<Running> {
        let signal = match ending {
            Ending::Asked => Signal::TERM,
            Ending::Killed => Signal::KILL,
        };
        let parent = getpid();
        let ends_with_parent = move || {
            set_parent_process_death_signal(Some(signal))?;
            // It may be gone already, and then nothing is sent.
            if getppid() == Some(parent) { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
        };
        // SAFETY: between fork and exec there are two system calls, and nothing is allocated.
        unsafe { command.pre_exec(ends_with_parent) };
        Ok(Running { child: command.spawn()?, ending })
    }

    /// Ends it, and waits until it has. Nothing happens if it has ended before.
    pub fn end(&mut self) {
        if self.ending == Ending::Asked
            && let Ok(None) = self.child.try_wait()
            && let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
            // It was not waited for, so the number is its own.
            && kill_process(pid, Signal::TERM).is_ok()
        {
            let begin = Instant::now();
            while let Ok(None) = self.child.try_wait()
                && begin.elapsed() < PATIENCE
            {
                thread::sleep(NAP);
            }
        }
        // Both fail if it has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Deref for Running {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.child
    }
}

impl DerefMut for Running {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.child
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::Stdio;

    use super::*;

    /// What it said until it was gone.
    fn said_by(script: &str, ending: Ending) -> String {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdout(Stdio::piped());
        let mut running = Running::start(&mut command, ending).unwrap();
        let mut stdout = running.stdout.take().unwrap();
        // It has set its trap by then.
        let mut text = vec![0; 6];
        stdout.read_exact(&mut text).unwrap();
        drop(running);
        stdout.read_to_end(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn one_that_is_left_is_ended_as_it_is_to_be() {
        let script = "trap 'echo asked; exit' TERM; echo ready; while :; do sleep 0.01; done";
        assert_eq!(said_by(script, Ending::Asked), "ready\nasked\n");
        assert_eq!(said_by(script, Ending::Killed), "ready\n");
    }
}

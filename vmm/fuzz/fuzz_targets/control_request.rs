//! A line on the control socket.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmm::control_socket::protocol;

fuzz_target!(|line: &[u8]| {
    let (id, heard) = protocol::read(line);
    if let Err(refusal) = heard {
        let answer = protocol::answer(id.as_ref(), &Err(refusal));
        assert!(answer.len() < 8 << 10 && answer.lines().count() == 1, "{answer}");
    }
});

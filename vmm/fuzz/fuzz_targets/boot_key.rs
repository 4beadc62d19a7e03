//! Changes of a boot key's files, for GRUB and for loader(7): made once, and in any text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmm::host::line_edit;
use vmm::host::reserve::smartos::{menu, variables};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(edits) = menu::add(bytes) {
        let after = line_edit::apply(bytes, &edits);
        assert_eq!(menu::add(&after), Ok(vec![]));
        let _ = line_edit::apply(&after, &menu::remove(&after));
    }
    let _ = line_edit::apply(bytes, &menu::remove(bytes));

    let _ = variables::findings(bytes);
    let after = line_edit::apply(bytes, &variables::add(bytes));
    assert_eq!(variables::add(&after), vec![]);
    let _ = line_edit::apply(&after, &variables::remove(&after));
});

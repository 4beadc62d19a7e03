//! Changes of a boot key's files, for GRUB and for loader(7): made once, and in any text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ppt_files::boot_key::{FILES, menu, variables};
use ppt_files::line_edit;

fuzz_target!(|bytes: &[u8]| {
    let paths = FILES.map(|(path, _)| path.to_owned());
    if let Ok(edits) = menu::add(bytes, &paths) {
        let after = line_edit::apply(bytes, &edits);
        assert_eq!(menu::add(&after, &paths), Ok(vec![]));
        let _ = line_edit::apply(&after, &menu::remove(&after, &paths));
    }
    let _ = line_edit::apply(bytes, &menu::remove(bytes, &paths));

    let _ = variables::findings(bytes);
    for name in FILES.map(|(_, name)| name) {
        let _ = (menu::loaded(bytes, name), variables::loaded(bytes, name));
    }
    let added = variables::add(bytes, &variables::missing(bytes, &paths));
    let after = line_edit::apply(bytes, &added);
    assert_eq!(variables::missing(&after, &paths), vec![]);
    let _ = line_edit::apply(&after, &variables::remove(&after));
});

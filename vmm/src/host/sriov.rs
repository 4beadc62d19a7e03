//! Virtual functions (SR-IOV).

use std::fs;
use std::path::Path;

/// How many virtual functions the function in this directory of sysfs has: a link for each. `sriov_numvfs` says it too, but
/// waits for whoever holds the device's lock, such as a driver that is asked to let go of it until it has.
pub fn virtual_functions(directory: &Path) -> u32 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let number = |name: &str| name.strip_prefix("virtfn")?.parse::<u32>().ok();
    let found = entries.filter(|entry| entry.file_name().to_str().and_then(number).is_some()).count();
    u32::try_from(found).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtual_functions_are_counted_by_their_links() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(virtual_functions(directory.path()), 0);
        for name in ["virtfn0", "virtfn1", "virtfn12", "virtfn", "virtfnx", "physfn", "sriov_numvfs"] {
            fs::write(directory.path().join(name), "").unwrap();
        }
        assert_eq!(virtual_functions(directory.path()), 3);
        assert_eq!(virtual_functions(&directory.path().join("gone")), 0);
    }
}

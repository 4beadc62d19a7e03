//! Open files and their numbers.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::errno::{Errno, Result};
use crate::vmm::VmId;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    /// `/dev/vmmctl`
    Control,
    /// `/dev/vmm/<name>`
    Vm(VmId),
    /// `/dev/pptN`
    Ppt(usize),
}

/// The first number: none that a file of this process has, so that none reaches the wrong kernel.
const FIRST: i32 = 1 << 20;
/// Most files that can be open.
const MOST: i32 = 256;

/// The open files of this process.
#[derive(Default)]
pub struct FileTable(Mutex<BTreeMap<i32, File>>);

impl FileTable {
    /// Opens a file at the lowest number that is free.
    pub fn open(&self, file: File) -> Result<i32> {
        let mut files = self.0.lock();
        let number = (FIRST..FIRST + MOST).find(|number| !files.contains_key(number));
        let number = number.ok_or(Errno::EMFILE)?;
        files.insert(number, file);
        Ok(number)
    }

    /// The file of this number.
    pub fn get(&self, number: i32) -> Result<File> {
        self.0.lock().get(&number).copied().ok_or(Errno::EBADF)
    }

    /// The function whose node is open as this number.
    pub fn ppt(&self, number: i32) -> Result<usize> {
        match self.get(number)? {
            File::Ppt(function) => Ok(function),
            File::Control | File::Vm(_) => Err(Errno::EBADF),
        }
    }

    /// Closes a file; nothing happens when the number is not open.
    pub fn close(&self, number: i32) {
        self.0.lock().remove(&number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_lowest_that_are_free_and_few() {
        let files = FileTable::default();
        let numbers: Vec<i32> = (0..3).map(|n| files.open(File::Ppt(n)).unwrap()).collect();
        files.close(numbers[1]);
        assert_eq!(files.get(numbers[1]), Err(Errno::EBADF));
        assert_eq!(files.open(File::Control), Ok(numbers[1]));
        assert_eq!([files.get(numbers[1]), files.get(numbers[2])], [Ok(File::Control), Ok(File::Ppt(2))]);
        while let Ok(number) = files.open(File::Control) {
            assert!(number < FIRST + MOST);
        }
        assert_eq!(files.open(File::Control), Err(Errno::EMFILE));
    }

    #[test]
    fn only_a_node_of_the_driver_names_a_function() {
        let files = FileTable::default();
        let [ppt, control] = [File::Ppt(7), File::Control].map(|file| files.open(file).unwrap());
        assert_eq!(files.ppt(ppt), Ok(7));
        for number in [control, control + 1, -1, 0, i32::MAX] {
            assert_eq!(files.ppt(number), Err(Errno::EBADF), "{number}");
        }
    }
}

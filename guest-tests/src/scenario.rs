use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use guest::pattern;

use crate::{FETCHED, Failure, Kernel, Provisioned, Vmm, expect};

/// One run of a scenario: its directory, which the machine sees as `/run/scenario`, and its log of steps.
#[derive(Debug)]
pub struct Scenario {
    directory: PathBuf,
    provisioned: Provisioned,
    vmm: Vmm,
    started: Instant,
    current_step: String,
    steps: u32,
}

impl Scenario {
    /// Empties and creates `directory`.
    pub fn begin(directory: &Path, provisioned: &Provisioned) -> Result<Self, Failure> {
        if directory.exists() {
            fs::remove_dir_all(directory).map_err(Failure::io("remove", directory))?;
        }
        fs::create_dir_all(directory).map_err(Failure::io("create", directory))?;
        Ok(Self {
            directory: directory.canonicalize().map_err(Failure::io("resolve", directory))?,
            provisioned: provisioned.clone(),
            vmm: Vmm::Slotpass,
            started: Instant::now(),
            current_step: String::from("start"),
            steps: 0,
        })
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn provisioned(&self) -> &Provisioned {
        &self.provisioned
    }

    pub fn vmm(&self) -> Vmm {
        self.vmm
    }

    /// Lets another program than slotpass run the guests.
    pub fn set_vmm(&mut self, vmm: Vmm) {
        self.vmm = vmm;
    }

    /// What was being done last; a failure is reported with it.
    pub fn current_step(&self) -> &str {
        &self.current_step
    }

    /// Notes the beginning of a step in `steps.log` and returns the step's number.
    pub(crate) fn step(&mut self, what: &str) -> Result<u32, Failure> {
        self.steps += 1;
        self.current_step = what.to_owned();
        let line = format!("{:8.2} s  {:2}  {what}\n", self.started.elapsed().as_secs_f64(), self.steps);
        self.append("steps.log", &line)?;
        Ok(self.steps)
    }

    fn append(&self, name: &str, text: &str) -> Result<(), Failure> {
        let path = self.directory.join(name);
        File::options()
            .create(true)
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(Failure::io("write", path))
    }

    /// A new file of `mib` MiB, all zero, in the scenario's directory.
    pub fn blank_image(&self, name: &str, mib: u64) -> Result<DiskImage, Failure> {
        let path = self.directory.join(name);
        File::create(&path).and_then(|file| file.set_len(mib << 20)).map_err(Failure::io("create", &path))?;
        Ok(DiskImage { path })
    }

    /// A drive with the whole Debian that was provisioned, for a machine that keeps what it changes.
    pub fn debian_drive(&self) -> Result<DiskImage, Failure> {
        let path = self.directory.join("debian.img");
        let image = self.provisioned.machine_images(Kernel::Debian)?.join("disk.img");
        let status = Command::new("cp").arg("--sparse=always").args([&image, &path]).status();
        let status = status.map_err(Failure::io("copy", &image))?;
        expect!(status.success(), "cannot copy {}", image.display());
        Ok(DiskImage { path })
    }

    /// The file that guests fetch over their networks: 256 KiB of a pattern.
    pub fn file_to_fetch(&self) -> Result<DiskImage, Failure> {
        let words = (0..32 << 10).map(|word: u64| pattern::word(8 * word, 5).to_le_bytes());
        let path = self.directory.join(FETCHED);
        fs::write(&path, words.flatten().collect::<Vec<u8>>()).map_err(Failure::io("write", &path))?;
        Ok(DiskImage { path })
    }

    /// Writes a file that the machine finds as `/run/scenario/NAME`; returns that path.
    pub fn file_for_machine(&self, name: &str, contents: &[u8]) -> Result<String, Failure> {
        let path = self.directory.join(name);
        fs::write(&path, contents).map_err(Failure::io("write", path))?;
        Ok(format!("/run/scenario/{name}"))
    }

    /// Copies a file of the host to where the machine finds it as `/run/scenario/NAME`.
    pub fn copy_for_machine(&self, name: &str, file: &Path) -> Result<(), Failure> {
        fs::copy(file, self.directory.join(name)).map_err(Failure::io("copy", file))?;
        Ok(())
    }

    /// The text of a file in the scenario's directory; bytes that are no UTF-8 are replaced.
    pub fn text_of(&self, name: &str) -> Result<String, Failure> {
        let path = self.directory.join(name);
        let bytes = fs::read(&path).map_err(Failure::io("read", path))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// How many samples that are not silence a WAV file of 16 bits in the scenario's directory holds.
    pub fn samples_in(&self, name: &str) -> Result<usize, Failure> {
        const HEADER_BYTES: usize = 44;
        let path = self.directory.join(name);
        let bytes = fs::read(&path).map_err(Failure::io("read", path))?;
        Ok(bytes
            .get(HEADER_BYTES..)
            .unwrap_or_default()
            .chunks_exact(2)
            .filter(|sample| *sample != [0, 0])
            .count())
    }

    /// The ends of the logs that explain a failure, latest first.
    pub fn tail_of_logs(&self, lines: usize) -> String {
        let mut logs: Vec<_> = fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| {
                let name = entry.file_name().to_string_lossy().into_owned();
                [".out", ".err", ".log"].iter().any(|suffix| name.ends_with(suffix))
            })
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .collect();
        logs.sort();
        let mut text = String::new();
        for (_, path) in logs.iter().rev().take(4) {
            let bytes = fs::read(path).unwrap_or_default();
            let log = String::from_utf8_lossy(&bytes);
            let kept: Vec<&str> = log.lines().rev().take(lines).collect();
            if kept.is_empty() {
                continue;
            }
            text.push_str(&format!("--- {}\n", path.display()));
            for line in kept.iter().rev() {
                text.push_str(line.trim_end());
                text.push('\n');
            }
        }
        text
    }

    /// Removes what is large and explains nothing once the scenario has passed.
    pub fn discard_images(&self) {
        for entry in fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "img") {
                // Left behind it only takes space; the next run removes it.
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// A file on the host that stands behind a device of the machine.
#[derive(Clone, Debug)]
pub struct DiskImage {
    path: PathBuf,
}

impl DiskImage {
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// SHA-256 of all of it, up to 1 GiB.
    pub fn sha256(&self) -> Result<String, Failure> {
        self.sha256_of_first(1 << 10)
    }

    /// SHA-256 of the first `mib` MiB, as the host sees them.
    pub fn sha256_of_first(&self, mib: u64) -> Result<String, Failure> {
        let output = Command::new("sh")
            .args(["-c", "head -c \"$1\" \"$0\" | sha256sum"])
            .arg(&self.path)
            .arg((mib << 20).to_string())
            .output()
            .map_err(Failure::io("checksum", &self.path))?;
        expect!(output.status.success(), "cannot checksum {}", self.path.display());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(text.split_whitespace().next().unwrap_or_default().to_owned())
    }

    /// The little-endian 64-bit word at a byte offset, as the host sees it.
    pub fn word_at(&self, offset: u64) -> Result<u64, Failure> {
        let mut bytes = [0; 8];
        File::open(&self.path)
            .and_then(|file| file.read_exact_at(&mut bytes, offset))
            .map_err(Failure::io("read", &self.path))?;
        Ok(u64::from_le_bytes(bytes))
    }
}

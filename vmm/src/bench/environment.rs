//! What the figures depend on beside slotpass.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

/// Bytes of a file of `/proc` or `/sys` that are read.
const LONGEST: u64 = 64 << 10;
/// Modules that KVM consists of.
const MODULES: [&str; 3] = ["kvm", "kvm_amd", "kvm_intel"];

/// The host. What it does not tell is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Environment {
    /// The processor's model.
    pub processor: Option<String>,
    /// The kernel's release and version.
    pub kernel: Option<String>,
    /// How the first processor's frequency is chosen.
    pub governor: Option<String>,
    /// What the kernel says it does about each weakness of the processor.
    pub mitigations: BTreeMap<String, String>,
    /// Parameters of KVM's modules, as `kvm.halt_poll_ns`.
    pub kvm: BTreeMap<String, String>,
}

impl Environment {
    /// Of this host.
    pub fn here() -> Environment {
        Environment::of(Path::new("/"))
    }

    /// Of what has `/proc` and `/sys` below this folder.
    fn of(root: &Path) -> Environment {
        let model = text(&root.join("proc/cpuinfo")).and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("model name"))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        });
        let kernel = ["osrelease", "version"].map(|name| text(&root.join("proc/sys/kernel").join(name)));
        let kernel: Vec<String> = kernel.into_iter().flatten().collect();
        let parameters = MODULES.iter().flat_map(|module| {
            let folder = root.join("sys/module").join(module).join("parameters");
            files(&folder).into_iter().map(move |(name, value)| (format!("{module}.{name}"), value))
        });
        Environment {
            processor: model,
            kernel: (!kernel.is_empty()).then(|| kernel.join(" ")),
            governor: text(&root.join("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
            mitigations: files(&root.join("sys/devices/system/cpu/vulnerabilities")).into_iter().collect(),
            kvm: parameters.collect(),
        }
    }

    /// What of it is not as in another one: what it is called, here and there.
    pub fn differences(&self, other: &Environment) -> Vec<(String, String, String)> {
        let (here, there) = (self.flat(), other.flat());
        let names: std::collections::BTreeSet<&String> = here.keys().chain(there.keys()).collect();
        let value = |of: &BTreeMap<String, String>, name: &String| of.get(name).cloned().unwrap_or_default();
        let pairs = names.into_iter().map(|name| (name.clone(), value(&here, name), value(&there, name)));
        pairs.filter(|(_, here, there)| here != there).collect()
    }

    fn flat(&self) -> BTreeMap<String, String> {
        let single = [("processor", &self.processor), ("kernel", &self.kernel), ("governor", &self.governor)];
        let single = single.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?)));
        let mitigations =
            self.mitigations.iter().map(|(name, value)| (format!("mitigation {name}"), value.clone()));
        let kvm = self.kvm.iter().map(|(name, value)| (name.clone(), value.clone()));
        single.chain(mitigations).chain(kvm).collect()
    }
}

/// A file's text without what is around it; nothing if it cannot be read or has none.
fn text(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(LONGEST).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes).trim().to_owned();
    (!text.is_empty()).then_some(text)
}

/// The files of a folder, by name, with their texts.
fn files(folder: &Path) -> Vec<(String, String)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.file_name().into_string().ok()?, text(&entry.path())?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_and_another_one() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert_eq!(Environment::of(folder.path()), Environment::default());
        put("proc/cpuinfo", "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nmodel name\t: Other\n");
        put("proc/sys/kernel/osrelease", "6.12.0\n");
        put("proc/sys/kernel/version", "#1 SMP\n");
        put("sys/devices/system/cpu/vulnerabilities/meltdown", "Not affected\n");
        put("sys/module/kvm/parameters/halt_poll_ns", "200000\n");
        put("sys/module/kvm_intel/parameters/ept", "Y\n");
        let here = Environment::of(folder.path());
        assert_eq!(here.processor.as_deref(), Some("Some CPU @ 2 GHz"));
        assert_eq!(here.kernel.as_deref(), Some("6.12.0 #1 SMP"));
        assert_eq!(here.governor, None);
        assert_eq!(here.mitigations["meltdown"], "Not affected");
        assert_eq!(here.kvm.keys().collect::<Vec<_>>(), ["kvm.halt_poll_ns", "kvm_intel.ept"]);

        let mut there = here.clone();
        assert_eq!(here.differences(&there), []);
        there.governor = Some("powersave".to_owned());
        there.kvm.remove("kvm_intel.ept");
        let text = |name: &str, here: &str, there: &str| (name.to_owned(), here.to_owned(), there.to_owned());
        assert_eq!(
            here.differences(&there),
            [text("governor", "", "powersave"), text("kvm_intel.ept", "Y", "")]
        );
    }
}

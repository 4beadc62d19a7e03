use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::super::Verdict;
use super::super::tests::{facts, words};
use super::*;
use crate::host::device_records::Record;
use crate::vms::running::VmLock;

fn vm() -> NamedVm {
    let uuid = "a1b5c0de-0000-4000-8000-000000000001".parse().unwrap();
    NamedVm { name: "web".to_owned(), uuid, state_dir: None, run_dir: None }
}

fn by(uuid: &str) -> Record {
    Record { uuid: uuid.to_owned(), slot: "0:8:0".to_owned(), pid: 7 }
}

const STOPPED: VmState = VmState::Stopped { crashed: false };

#[test]
fn for_what_start_refuses_a_vm() {
    let own = vm().uuid.to_string();
    for (name, state, record, reset, parts) in [
        ("stopped", STOPPED, None, Level::Ok, &[][..]),
        ("crashed", VmState::Stopped { crashed: true }, None, Level::Ok, &[]),
        (
            "runs",
            VmState::Running { pid: 9 },
            None,
            Level::Ok,
            &["it is running already (process 9)", "slotpass stop web"],
        ),
        ("starts", VmState::Starting { pid: 9 }, None, Level::Ok, &["it is starting already (process 9)"]),
        (
            "another has it",
            STOPPED,
            Some(Recorded::Used(by("x"))),
            Level::Ok,
            &["slot 0:8:0 of VM x", "slotpass stop x"],
        ),
        ("it has it itself", STOPPED, Some(Recorded::Used(by(&own))), Level::Ok, &[]),
        ("is reset", STOPPED, Some(Recorded::Left(Some(by("x")))), Level::Ok, &[]),
        (
            "is dirty",
            STOPPED,
            Some(Recorded::Left(Some(by("x")))),
            Level::Note,
            &["it is dirty: VM x had it", "slotpass start --accept-dirty web"],
        ),
        (
            "its own",
            STOPPED,
            Some(Recorded::Left(Some(by(&own)))),
            Level::Note,
            &["it is dirty: VM a1b5c0de-"],
        ),
        (
            "nobody knows whose",
            STOPPED,
            Some(Recorded::Left(None)),
            Level::Note,
            &["it is dirty: VM unknown had it"],
        ),
        // That a reset is required is a problem of its own, which no option accepts.
        ("is refused anyway", STOPPED, Some(Recorded::Left(None)), Level::Problem, &[]),
    ] {
        let facts = facts();
        let subject = Subject::Function(facts.asked[0].name.to_string());
        let known = Known { state, records: vec![record], denied: Vec::new() };
        let reset = Finding { level: reset, ..Check::Reset.ok(subject, "") };
        let findings = vm().check(&facts, &known, &[reset]);
        let worst: Vec<&Finding> = findings.iter().filter(|finding| finding.level > Level::Ok).collect();
        assert_eq!(worst.len(), usize::from(!parts.is_empty()), "{name}: {worst:?}");
        for finding in worst {
            assert_eq!(finding.level, Level::Problem);
            let words = words(finding);
            assert!(parts.iter().all(|part| words.contains(part)), "{name}: {parts:?} in {words}");
        }
        assert_eq!(Verdict::of(&findings) == Verdict::Starts, parts.is_empty());
    }
}

#[test]
fn commands_lead_to_the_same_folders() {
    let vm = NamedVm { state_dir: Some("/s".into()), run_dir: Some("/my run".into()), ..vm() };
    let words = words(&vm.state(VmState::Running { pid: 9 }));
    assert!(words.contains("slotpass stop --state-dir /s --run-dir '/my run' web"), "{words}");
}

#[test]
fn what_is_known_is_read_from_its_folders() {
    let folder = tempfile::tempdir().unwrap();
    let (state, run) = (folder.path().join("s"), folder.path().join("r"));
    let vm = NamedVm { state_dir: Some(state.clone()), run_dir: Some(run.clone()), ..vm() };
    let facts = facts();
    let known = vm.read(&facts);
    assert_eq!(known, Known { state: STOPPED, records: vec![None], denied: Vec::new() });
    assert!(!run.exists(), "nothing is made");

    let lock = VmLock::take(&vm.folders().of_vm(vm.uuid)).unwrap();
    lock.say_running().unwrap();
    fs::create_dir(run.join("devices")).unwrap();
    let record = serde_json::to_string(&by("x")).unwrap();
    fs::write(run.join("devices/0000:01:00.0"), record).unwrap();
    let known = vm.read(&facts);
    assert_eq!(known.state, VmState::Running { pid: std::process::id() });
    assert_eq!(known.records, [Some(Recorded::Left(Some(by("x"))))]);
}

#[test]
fn folders_that_are_anothers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    fs::set_permissions(path, fs::Permissions::from_mode(0o500)).unwrap();
    // Root may write anywhere.
    let is_root = rustix::process::geteuid().is_root();
    assert_eq!(denied(&path.join("a/b")), (!is_root).then(|| path.to_owned()));
    assert_eq!(denied(Path::new("/dev/null/below")), Some(Path::new("/dev/null/below").to_owned()));
    let known = Known { state: STOPPED, records: vec![None], denied: vec!["/run".into()] };
    let findings = vm().check(&facts(), &known, &[]);
    assert!(findings[1].level == Level::Problem && words(&findings[1]).contains("may not write to /run"));
}

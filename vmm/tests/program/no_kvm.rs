//! Machines where `/dev/kvm` is not there, is something else, or is somebody else's.

use std::process::Command;

use crate::support::{Slotpass, holder_of, permitted, skipped};

fn refused_under(wrapper: &[&str], parts: &[&str], test: &str) {
    if permitted(wrapper, test) {
        Slotpass::through(wrapper[0], &wrapper[1..]).end().expect_refusal(parts);
    }
}

/// In a mount namespace of its own, a command changes `/dev` before slotpass is run.
fn in_namespace(change: &str, parts: &[&str], test: &str) {
    let script = format!("{change} && exec \"$0\" \"$@\"");
    refused_under(&["unshare", "--mount", "sh", "-c", &script], parts, test);
}

#[test]
fn there_is_no_kvm() {
    fn here() {}
    in_namespace("mount -t tmpfs none /dev", &["/dev/kvm", "No such file", "modprobe kvm"], holder_of(here));
}

#[test]
fn it_is_another_device() {
    fn here() {}
    in_namespace("test -e /dev/kvm && mount --bind /dev/null /dev/kvm", &["/dev/kvm"], holder_of(here));
}

#[test]
fn it_is_not_for_this_user() {
    fn here() {}
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let readable = Command::new(nobody[0]).args(&nobody[1..]).args(["test", "-w", "/dev/kvm"]).status();
    if !std::fs::exists("/dev/kvm").unwrap() || readable.is_ok_and(|status| status.success()) {
        skipped(holder_of(here), "/dev/kvm is not there, or open to everybody");
        return;
    }
    refused_under(&nobody, &["/dev/kvm", "Permission denied", "group kvm"], holder_of(here));
}

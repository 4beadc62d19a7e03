//! Remedies that are words on the host kernel's command line, with the commands that put them there.
//!
//! Where such a command finds nothing to change, the last one says so and fails: nobody boots for nothing.

use ppt_files::line_edit::quoted;

use super::facts::host::{Boot, Host};
use super::facts::process::Process;
use super::finding::Remedy;

/// What the kernel is booted with where systemd's kernel-install or Proxmox's tool writes the boot loader's files.
const COMMAND_LINE: &str = "/etc/kernel/cmdline";
/// What GRUB boots, as update-grub makes it.
const GRUB: &str = "/boot/grub/grub.cfg";
/// update-grub of Debian and Ubuntu reads what is in here after `/etc/default/grub`.
const GRUB_PARTS: &str = "/etc/default/grub.d";

/// Puts `word` on the command line.
pub fn add(host: &Host, process: &Process, word: &str) -> Remedy {
    let commands = match host.boot {
        Boot::UpdateGrub => {
            // A file of its own: whatever the others look like, and however often it is done.
            let line = format!("GRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX {word}\"");
            vec![
                process.as_root(&format!("mkdir -p {GRUB_PARTS}")),
                process.write(&line, &format!("{GRUB_PARTS}/99-slotpass-{}.cfg", file_name(word))),
                process.as_root("update-grub"),
                expect(process, word, GRUB, true),
            ]
        }
        Boot::Grubby => vec![process.as_root(&format!("grubby --update-kernel=ALL --args={}", quoted(word)))],
        Boot::Proxmox => vec![
            edit(process, &append(word)),
            expect(process, word, COMMAND_LINE, true),
            process.as_root("proxmox-boot-tool refresh"),
        ],
        Boot::KernelInstall => {
            vec![
                edit(process, &append(word)),
                expect(process, word, COMMAND_LINE, true),
                kernel_install(process),
            ]
        }
        Boot::Unknown => Vec::new(),
    };
    let what = format!("boot the host with kernel parameter {word}");
    Remedy { kernel_parameter: Some(word.to_owned()), ..Remedy::commands(what, commands) }
}

/// Takes `word` off the command line.
pub fn remove(host: &Host, process: &Process, word: &str) -> Remedy {
    let commands = match host.boot {
        Boot::UpdateGrub => {
            let files =
                process.as_root(&format!("grep -rlsF -- {} /etc/default/grub {GRUB_PARTS}", quoted(word)));
            // Without a file sed fails, and says so.
            let sed = process.as_root(&format!("sed -i '/GRUB_CMDLINE_LINUX/{{{}}}'", erase(word)));
            vec![
                format!("{files} | xargs {sed}"),
                process.as_root("update-grub"),
                expect(process, word, GRUB, false),
            ]
        }
        Boot::Grubby => {
            vec![process.as_root(&format!("grubby --update-kernel=ALL --remove-args={}", quoted(word)))]
        }
        Boot::Proxmox => vec![
            edit(process, &erase(word)),
            expect(process, word, COMMAND_LINE, false),
            process.as_root("proxmox-boot-tool refresh"),
        ],
        Boot::KernelInstall => {
            vec![
                edit(process, &erase(word)),
                expect(process, word, COMMAND_LINE, false),
                kernel_install(process),
            ]
        }
        Boot::Unknown => Vec::new(),
    };
    Remedy::commands(format!("boot the host without kernel parameter {word}"), commands)
}

/// Of the line that is not a comment, which is the only one.
fn edit(process: &Process, script: &str) -> String {
    process.as_root(&format!("sed -i '/^[^#]/{{{script}}}' {COMMAND_LINE}"))
}

/// sed's commands that append a word to a line that has it not.
fn append(word: &str) -> String {
    format!("/{}/!s/$/ {}/", whole(word), replacement(word))
}

/// sed's commands that take a word from a line, also when it is there twice.
fn erase(word: &str) -> String {
    let once = format!("s/{}/\\1\\2/g", whole(word));
    format!("{once};{once}")
}

/// A pattern of sed and grep for a word of its own: between blanks, quotes, or ends of the line.
fn whole(word: &str) -> String {
    let mut pattern = String::new();
    for character in word.chars() {
        match character {
            '.' | '*' | '[' | ']' | '^' | '$' | '/' | '\\' => pattern.extend(['\\', character]),
            '\'' => pattern.push_str("\\x27"),
            _ => pattern.push(character),
        }
    }
    format!("\\(^\\|[\" \\x27]\\){pattern}\\([\" \\x27]\\|$\\)")
}

fn replacement(word: &str) -> String {
    word.chars().fold(String::new(), |mut text, character| {
        match character {
            '&' | '/' | '\\' => text.extend(['\\', character]),
            '\'' => text.push_str("\\x27"),
            _ => text.push(character),
        }
        text
    })
}

/// Fails, and says so, unless the file has the word now, or has it no longer. It is sed that looks, for `\x27`.
fn expect(process: &Process, word: &str, file: &str, there: bool) -> String {
    let look = process.as_root(&format!("sed -n '/{}/p' {file}", whole(word)));
    let (test, is) = if there { ("grep -q .", "is not") } else { ("(! grep -q .)", "is still") };
    let says = format!("{word} {is} in {file}: change by hand what makes it");
    format!("{look} | {test} || {{ echo {} >&2; false; }}", quoted(&says))
}

/// The files of the running kernel, whose image is where the distribution puts it. (`add-all` is not in systemd before 256.)
fn kernel_install(process: &Process) -> String {
    let image = "$(ls /boot/vmlinuz-$(uname -r) /lib/modules/$(uname -r)/vmlinuz 2>/dev/null | head -n 1)";
    process.as_root(&format!("kernel-install add $(uname -r) \"{image}\""))
}

/// A part of a file's name.
fn file_name(word: &str) -> String {
    word.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' }).collect()
}

#[cfg(test)]
mod tests;

# A QEMU with igb (8.0 and later). Prints a directory with a program qemu-system-x86_64 in it.

# Asking for the list of all devices would load all modules.
has_igb() { "$1" -nodefaults -display none -device igb,help 2>/dev/null | grep -q "^igb options"; }

provide_qemu() {
  local result=$cache/qemu work lists suite package
  if has_igb qemu-system-x86_64; then dirname "$(command -v qemu-system-x86_64)"; return; fi
  if [[ ! -e $result/complete ]]; then
    # Debian's backports have one for the libraries of the release; unpacked here, it replaces nothing.
    suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-}-backports")
    work=$(mktemp -d "$cache/qemu.XXXXXX")
    chmod 755 "$work"
    note "fetching a QEMU with igb from $suite"
    use_suites "$work" "$suite" || unavailable "the installed QEMU has no igb, and no Debian archive has $suite"
    (
      cd "$work"
      for package in qemu-system-x86 qemu-system-common qemu-system-data seabios; do
        apt-get "${lists[@]}" download "$package" >&2 || unavailable "$suite has no $package"
      done
      for package in *.deb; do dpkg -x "$package" tree; done
    )
    mkdir "$work/bin"
    # Modules of another version are not to be loaded, and data files are looked for where it was built to be.
    cat >"$work/bin/qemu-system-x86_64" <<PROGRAM
#!/bin/sh
QEMU_MODULE_DIR=$result/tree/usr/lib/x86_64-linux-gnu/qemu exec $result/tree/usr/bin/qemu-system-x86_64 \\
  -L $result/tree/usr/share/qemu -L $result/tree/usr/share/seabios "\$@"
PROGRAM
    chmod 755 "$work/bin/qemu-system-x86_64"
    rm -rf "$work"/{lists,archives} "$work"/*.deb "$result"
    mv "$work" "$result"
    has_igb "$result/bin/qemu-system-x86_64" || unavailable "the QEMU of $suite does not run here, or has no igb"
    touch "$result/complete"
  fi
  echo "$result/bin"
}

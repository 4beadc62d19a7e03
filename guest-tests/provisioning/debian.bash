# A whole Debian, with systemd and on a disk of its own, as somebody has it who has just installed it: for the machine in
# which slotpass' package is installed. Nothing is in it but what the release brings, and a service for the scenario's commands.

provide_debian() {
  local codename key result work packages
  codename=$(. /etc/os-release && [[ $ID == debian ]] && echo "$VERSION_CODENAME") || unavailable "this is not Debian"
  packages=linux-image-amd64,systemd-sysv,dbus,udev,kmod,initramfs-tools,zstd,iproute2,pciutils,grub-pc,sudo
  key=$( (cat "$here"/provisioning/debian.bash "$here"/machine/debian-commands*; echo "$codename") | sha256sum | cut -c1-16)
  result=$cache/debian-$key
  if [[ ! -e $result/complete ]]; then
    install_missing <<'LIST'
mmdebstrap mmdebstrap
mke2fs e2fsprogs
LIST
    note "installing a Debian $codename into an image (some minutes)"
    work=$(mktemp -d "$cache/debian.XXXXXX")
    chmod 755 "$work"
    truncate -s 2G "$work/disk.img"
    # The hooks run as root, of a namespace if need be; so the image has its files' owners whoever calls this. What is mounted in
    # the new root, such as /proc, is not to be in the image.
    mmdebstrap --variant=minbase --include="$packages" --format=null \
      --customize-hook="install -m 755 '$here/machine/debian-commands' \"\$1/usr/local/sbin/\"" \
      --customize-hook="install -m 644 '$here/machine/debian-commands.service' \"\$1/etc/systemd/system/\"" \
      --customize-hook='chroot "$1" systemctl enable debian-commands.service' \
      --customize-hook='echo /dev/vda / ext4 defaults 0 1 >"$1/etc/fstab"' \
      --customize-hook='echo machine >"$1/etc/hostname"' \
      --customize-hook="cp \"\$1\"/boot/vmlinuz-* '$work/vmlinuz' && cp \"\$1\"/boot/initrd.img-* '$work/initrd.img'" \
      --customize-hook="mkdir '$work/root' && tar --one-file-system -C \"\$1\" -c . | tar -x -C '$work/root'" \
      --customize-hook="PATH=\$PATH:/usr/sbin:/sbin mke2fs -q -t ext4 -d '$work/root' '$work/disk.img' && rm -rf '$work/root'" \
      "$codename" /dev/null >&2 || fail "mmdebstrap failed"
    rm -rf "$result"
    mv "$work" "$result"
    touch "$result/complete"
  fi
  echo "$result"
}

# What builds the package: cargo-deb. Prints the directory with it.
provide_cargo_deb() {
  if command -v cargo-deb >/dev/null; then dirname "$(command -v cargo-deb)"; return; fi
  if [[ ! -x $cache/cargo-deb/bin/cargo-deb ]]; then
    note "building cargo-deb (some minutes)"
    cargo install --quiet --locked --root "$cache/cargo-deb" cargo-deb >&2 || unavailable "cannot build cargo-deb"
  fi
  echo "$cache/cargo-deb/bin"
}

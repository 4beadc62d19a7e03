# Initramfs images, and the kernel's ELF file beside them. All work on the kernel in kernel_dir, of version kver.

# unpack_modules DIR LIST MODULE...: decompressed modules into DIR/modules, their load order into DIR/modules/LIST.
# Decompressing here instead of at every boot saves seconds of emulated time.
unpack_modules() {
  local dir=$1 list=$2 module file name
  shift 2
  mkdir -p "$dir/modules"
  : >"$dir/modules/$list"
  for module in "$@"; do
    PATH=$PATH:/usr/sbin:/sbin modprobe -d "$kernel_dir" -S "$kver" --show-depends "$module" \
      || fail "kernel $kver has no module $module"
  done | awk '$1 == "insmod" && !seen[$2]++ {print $2}' | while read -r file; do
    name=$(basename "${file%%.ko*}").ko
    if [ ! -e "$dir/modules/$name" ]; then
      case $file in
        *.xz) xz -dc "$file" ;;
        *.zst) zstd -qdc "$file" ;;
        *.gz) gzip -dc "$file" ;;
        *) cat "$file" ;;
      esac >"$dir/modules/$name"
      # Without debug sections and without the signature, whose check would cost 0.1 s a module in emulation.
      strip --strip-debug "$dir/modules/$name"
    fi
    echo "$name" >>"$dir/modules/$list"
  done
}

# A bzImage is a small program with the compressed kernel behind it: try what starts like a compressed stream.
# Booting the ELF file inside saves the emulated processor two seconds of inflating.
unpack_kernel() { # BZIMAGE ELF
  local magic command offset
  while read -r magic command; do
    for offset in $(LC_ALL=C grep -aobP "$magic" "$1" | cut -d: -f1); do
      # What follows the stream makes the tools complain after they have written all of it.
      tail -c +$((offset + 1)) "$1" | $command >"$2" 2>/dev/null || true
      if [[ $(head -c 4 "$2" | tail -c 3) == ELF ]]; then return; fi
    done
  done <<'STREAMS'
\x28\xb5\x2f\xfd zstd -dc
\xfd7zXZ\x00 xz -dc --single-stream
\x02\x21\x4c\x18 lz4 -dc
\x1f\x8b\x08 gzip -dc
STREAMS
  fail "cannot find the kernel inside $1"
}

# Uncompressed: the emulated processor would need longer to inflate it than QEMU needs to load it.
pack() { (cd "$1" && find . -print0 | LC_ALL=C sort -z | cpio --null --quiet -R 0:0 -o -H newc) >"$2"; }
skeleton() { mkdir -p "$1"/{bin,proc,sys,dev,run,tmp} && cp /bin/busybox "$1/bin/busybox"; }

# machine_image DIR
machine_image() {
  local dir=$1 root=$1/l1
  skeleton "$root"
  mkdir -p "$root/host"
  install -m 755 "$here/machine/l1-init" "$root/init"
  unpack_modules "$root" boot virtio_pci 9p 9pnet_virtio
  unpack_modules "$root" vfio kvm_amd vfio_pci vfio_iommu_type1
  # The machine's own drivers of functions that scenarios hand around; loaded when one is bound to them.
  for driver in nvme e1000e igb; do unpack_modules "$root" "$driver" "$driver"; done
  # A file system for a drive that the machine uses itself; the kernel that is built for iommufd has none.
  if [[ -n $(find "$kernel_dir/lib/modules/$kver" -name 'ext4.ko*') ]]; then unpack_modules "$root" ext4 ext4; fi
  pack "$root" "$dir/l1.cpio"
  rm -rf "$root"

  cp "$kernel_dir/boot/vmlinuz-$kver" "$dir/vmlinuz"
  unpack_kernel "$dir/vmlinuz" "$dir/vmlinux"
  echo "$kver" >"$dir/kernel-version"
}

# guest_images DIR
guest_images() {
  local dir=$1 root=$1/l2
  skeleton "$root"
  install -m 755 "$here/machine/l2-init" "$root/init"
  cp -r "$here/machine/l2-checks" "$root/checks"
  unpack_modules "$root" nvme nvme
  unpack_modules "$root" e1000e e1000e
  unpack_modules "$root" button button evdev
  pack "$root" "$dir/l2.cpio"
  rm -rf "$root"

  # Drivers that few guests need. The kernel unpacks one archive after the other, so it is the same image and more.
  root=$1/more
  for driver in e1000 8139cp igb igbvf virtio_net virtio_blk; do unpack_modules "$root" "$driver" "$driver"; done
  # A disk of these is a SCSI disk.
  for driver in ahci megaraid_sas; do unpack_modules "$root" "$driver" "$driver" sd_mod; done
  unpack_modules "$root" xhci_pci xhci_pci usb_storage usbhid sd_mod
  unpack_modules "$root" sdhci_pci sdhci_pci mmc_block
  # The driver of the codec first: that of the controller gives up without. Played to by way of /dev/dsp, which needs no
  # program.
  unpack_modules "$root" snd_hda_intel snd_hda_codec_generic snd_pcm_oss snd_hda_intel
  pack "$root" "$dir/more.cpio"
  cat "$dir/l2.cpio" "$dir/more.cpio" >"$dir/l2-more.cpio"
  rm -rf "$root" "$dir/more.cpio"
}
guest_and_machine_images() { machine_image "$1" && guest_images "$1"; }

# provide_images NAME COMMAND: prints the directory with what COMMAND builds.
# A changed recipe gives a new directory; an unchanged one is not built again.
provide_images() {
  local name=$1 build=$2 key result work
  key=$( (cat "$here"/provisioning/images.bash "$here"/machine/l1-init "$here"/machine/l2-init "$here"/machine/l2-checks/*
    echo "$kernel_dir $build"; cksum </bin/busybox) | sha256sum | cut -c1-16)
  result=$cache/$name-$key
  if [[ ! -e $result/complete ]]; then
    note "building the initramfs images for kernel $kver"
    work=$(mktemp -d "$cache/$name.XXXXXX")
    chmod 755 "$work"
    "$build" "$work"
    touch "$work/complete"
    # Images of earlier recipes; another working copy may still use the recent ones.
    find "$cache" -maxdepth 1 -name "machine*" -mtime +7 -exec rm -rf {} +
    mv "$work" "$result"
  fi
  echo "$result"
}

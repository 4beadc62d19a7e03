# Kernels as the distribution packages them, unpacked below $cache/kernel. Each function sets kernel_dir and kver.

# What a meta package such as linux-image-amd64 stands for today.
image_behind() {
  apt-cache depends "$1" 2>/dev/null | awk '/Depends: linux-image-[0-9]/ {print $2; exit}'
}
choose_usual_kernel() {
  local meta image
  # 6.12 first: it is what the scenarios are developed against. Then whatever the distribution calls its own.
  for meta in linux-image-6.12-amd64 linux-image-amd64 linux-image-generic linux-image-virtual; do
    image=$(image_behind "$meta")
    if [[ -n $image ]]; then echo "$image"; return; fi
  done
}
fetch_usual_kernel() {
  local image=${SLOTPASS_TEST_KERNEL:-}
  if [[ -z $image && -e $cache/kernel/current ]]; then
    image=$(cat "$cache/kernel/current")
  fi
  if [[ -z $image ]]; then
    image=$(choose_usual_kernel)
    if [[ -z $image ]]; then apt_update; image=$(choose_usual_kernel); fi
    [[ -n $image ]] || fail "apt-cache knows no linux-image package; run apt-get update as root, or set SLOTPASS_TEST_KERNEL"
  fi
  fetch_kernel "$image"
  if [[ -z ${SLOTPASS_TEST_KERNEL:-} ]]; then echo "$image" >"$cache/kernel/current"; fi
}

# The newest of Debian's 6.1 kernels that apt knows.
newest_kernel_6_1() {
  apt-cache pkgnames linux-image-6.1.0- 2>/dev/null | grep -xE 'linux-image-6\.1\.0-[0-9]+-amd64' | sort -V | tail -n 1
}
fetch_kernel_6_1() {
  local image
  if [[ -e $cache/kernel/6.1 ]]; then
    image=$(cat "$cache/kernel/6.1")
  else
    image=$(newest_kernel_6_1)
    if [[ -z $image ]]; then apt_update; image=$(newest_kernel_6_1); fi
    [[ -n $image ]] || unavailable "apt knows no kernel 6.1 (Debian 12 has it)"
  fi
  fetch_kernel "$image"
  echo "$image" >"$cache/kernel/6.1"
}

# fetch_kernel PACKAGE
fetch_kernel() {
  local image=$1 work
  kver=${image#linux-image-}
  kver=${kver#unsigned-}
  kernel_dir=$cache/kernel/$kver
  if [[ ! -e $kernel_dir/complete ]]; then
    note "fetching $image"
    work=$(mktemp -d "$cache/kernel/fetch.XXXXXX")
    chmod 755 "$work"
    (
      cd "$work"
      apt-get download "$image" >&2 || { apt_update; apt-get download "$image" >&2; } \
        || fail "cannot download $image"
      # Ubuntu keeps the modules in packages of their own; Debian has none by these names.
      for modules in "linux-modules-$kver" "linux-modules-extra-$kver"; do
        if apt-cache show "$modules" >/dev/null 2>&1; then apt-get download "$modules" >&2; fi
      done
      for deb in *.deb; do dpkg -x "$deb" tree; done
      [ -e "tree/boot/vmlinuz-$kver" ] || fail "$image holds no boot/vmlinuz-$kver"
      # A merged-/usr package keeps lib/modules under usr; modprobe -d looks below lib.
      if [ ! -e tree/lib/modules ] && [ -e tree/usr/lib/modules ]; then mkdir -p tree/lib; ln -s ../usr/lib/modules tree/lib/modules; fi
      PATH=$PATH:/usr/sbin:/sbin depmod -b tree "$kver"
    )
    touch "$work/tree/complete"
    rm -rf "$kernel_dir"
    mv "$work/tree" "$kernel_dir"
    rm -rf "$work"
  fi
}

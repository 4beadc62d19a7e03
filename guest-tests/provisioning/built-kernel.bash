# The machine's kernel built from the distribution's source by a configuration of ours: for what no packaged kernel has
# (/dev/iommu). Some ten minutes of two processors the first time; afterwards it is there.

# build_kernel CONFIG: sets kernel_dir and kver
build_kernel() {
  local config=$1 source version archive work
  kernel_dir=$cache/kernel/$(basename "$config" .config)-$(sha256sum <"$config" | cut -c1-16)
  if [[ -e $kernel_dir/complete ]]; then kver=$(cat "$kernel_dir/complete"); return; fi
  install_missing <<'PACKAGES'
make make
flex flex
bison bison
m4 m4
bc bc
perl perl-base
/usr/include/libelf.h libelf-dev
PACKAGES
  source=linux-source-6.12
  if ! apt-cache show "$source" >/dev/null 2>&1; then apt_update; fi
  apt-cache show "$source" >/dev/null 2>&1 || unavailable "apt knows no $source to build a kernel from"
  note "building a kernel from $source by $(basename "$config"); this takes some ten minutes once"
  work=$(mktemp -d "$cache/kernel/build.XXXXXX")
  chmod 755 "$work"
  (
    cd "$work"
    apt-get download "$source" >&2 || { apt_update; apt-get download "$source" >&2; } || fail "cannot download $source"
    dpkg -x "$source"_*.deb .
    archive=$(echo usr/src/linux-source-*.tar.xz)
    tar -xf "$archive"
    cd "$(basename "$archive" .tar.xz)"
    {
      make O=../out tinyconfig
      cat "$config" >>../out/.config
      make O=../out olddefconfig
      options_kept "$config" ../out/.config
      nice -n 10 make O=../out -j"$(nproc)" bzImage modules
    } >"$work/log" 2>&1 || { tail -n 20 "$work/log" >&2; fail "the kernel cannot be built; $work/log says more"; }
    version=$(make -s O=../out kernelrelease)
    mkdir -p "$work/tree/boot" "$work/tree/lib"
    cp ../out/arch/x86/boot/bzImage "$work/tree/boot/vmlinuz-$version"
    cp ../out/.config "$work/tree/boot/config-$version"
    PATH=$PATH:/usr/sbin:/sbin make -s O=../out INSTALL_MOD_PATH="$work/tree" modules_install >>"$work/log" 2>&1
    # They lead to the source, which goes.
    rm -f "$work/tree/lib/modules/$version"/{build,source}
    echo "$version" >"$work/tree/complete"
  ) || exit 1
  rm -rf "$kernel_dir"
  mv "$work/tree" "$kernel_dir"
  rm -rf "$work"
  kver=$(cat "$kernel_dir/complete")
}

# options_kept WANTED GOT: fails if the kernel's own rules dropped or changed an option that was asked for.
options_kept() {
  local line lost=
  while read -r line; do
    case $line in
      CONFIG_*=n) if grep -q "^${line%=n}=" "$2"; then lost+=" $line"; fi ;;
      CONFIG_*) grep -qxF "$line" "$2" || lost+=" $line" ;;
    esac
  done <"$1"
  if [[ -n $lost ]]; then echo "not as asked for in the kernel's configuration:$lost"; return 1; fi
}

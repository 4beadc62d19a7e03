# Packages of the distribution that have to be installed.

# Reads lines of what shows that a package is there (a program, or a file by its whole path) and the package that
# brings it; prints the packages that are missing.
packages_missing() {
  local sign package
  while read -r sign package; do
    case $sign in
      /*) [ -e "$sign" ] || echo "$package" ;;
      # Dynamically linked busybox would need its libraries in the initramfs.
      static-busybox) if ! [ -x /bin/busybox ] || ldd /bin/busybox >/dev/null 2>&1; then echo "$package"; fi ;;
      *) PATH=$PATH:/usr/sbin:/sbin command -v "$sign" >/dev/null || echo "$package" ;;
    esac
  done
}

apt_updated=
apt_update() {
  [[ -z $apt_updated ]] || return 0
  apt_updated=1
  if [[ $(id -u) == 0 ]]; then apt-get update >&2 || note "apt-get update failed, going on with the package lists there are"; fi
}

# install_missing <LIST
install_missing() {
  local list missing
  list=$(cat)
  missing=$(packages_missing <<<"$list")
  [[ -n $missing ]] || return 0
  command -v apt-get >/dev/null || fail "missing packages (no apt-get here, install them by hand): $(echo $missing)"
  if [[ $(id -u) != 0 || -n ${SLOTPASS_TEST_NO_INSTALL:-} ]]; then
    fail "missing packages; as root: apt-get install --no-install-recommends $(echo $missing)"
  fi
  note "installing $(echo $missing)"
  apt_update
  DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing >&2 || fail "apt-get install failed"
  missing=$(packages_missing <<<"$list")
  [[ -z $missing ]] || fail "still missing after apt-get install: $(echo $missing)"
}

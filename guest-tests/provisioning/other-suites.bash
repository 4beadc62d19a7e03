# Packages of other suites of the distribution than the one that is installed.

# use_suites WORK SUITE...: has `lists` hold the options with which apt-get knows these suites of Debian, and nothing else,
# in package lists of their own below WORK. False when apt knows no Debian archive, or that has not all of them.
use_suites() {
  local work=$1 uri suite
  shift
  uri=$(apt-get indextargets --format '$(REPO_URI) $(ORIGIN)' 'Created-By: Packages' | awk '$2 == "Debian" && $1 ~ /\/debian\/$/ {print $1; exit}')
  [[ -n $uri ]] || return 1
  mkdir -p "$work"/{lists/partial,archives/partial}
  for suite in "$@"; do
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $uri $suite main"
  done >"$work/sources.list"
  lists=(-o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$work/lists"
    -o "Dir::Cache::archives=$work/archives" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root)
  apt-get "${lists[@]}" update >&2
}

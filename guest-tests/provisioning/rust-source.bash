# The toolchain in use, with the source of its standard library: targets for which no built library is at hand need it.

provide_rust_source() {
  local release sysroot result work lists version
  release=$(rustc -vV | sed -n 's/^release: //p')
  sysroot=$(rustc --print sysroot)
  # `rustup component add rust-src` has been here.
  if [[ -e $sysroot/lib/rustlib/src/rust/library/std/Cargo.toml ]]; then echo "$sysroot"; return; fi
  result=$cache/rust-$release
  if [[ ! -e $result/complete ]]; then
    work=$(mktemp -d "$cache/rust.XXXXXX")
    chmod 755 "$work"
    # Source and compiler must be of the very same release. Debian keeps several at once.
    use_suites "$work" trixie trixie-backports || unavailable "no Debian archive to fetch the source of Rust's standard library from"
    version=$(apt-cache "${lists[@]}" madison rust-src | awk -v release="$release+" 'index($3, release) == 1 {print $3; exit}')
    [[ -n $version ]] || unavailable "Debian has no rust-src $release; rustup component add rust-src does it too"
    note "fetching the source of Rust's standard library $version"
    (cd "$work" && apt-get "${lists[@]}" download "rust-src=$version" >&2 && dpkg -x rust-src_*.deb source) \
      || unavailable "cannot fetch rust-src $version"
    # cargo looks for the source below the compiler's own directory, so that gets a copy, of links where that can be.
    cp -al "$sysroot" "$work/toolchain" 2>/dev/null || { rm -rf "$work/toolchain"; cp -a "$sysroot" "$work/toolchain"; }
    mkdir -p "$work/toolchain/lib/rustlib/src"
    mv "$work"/source/usr/src/rustc-* "$work/toolchain/lib/rustlib/src/rust"
    rm -rf "$work"/{lists,archives,source,sources.list} "$work"/*.deb "$result"
    mv "$work" "$result"
    touch "$result/complete"
  fi
  echo "$result/toolchain"
}

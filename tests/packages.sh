#!/bin/bash
# The RPM specification and the PKGBUILD: rpmbuild and makepkg, which Debian has, make their packages of the packed
# source and the static programs, and each holds what it should.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/vm/lib.sh"
need_root
need rpmbuild:rpm rpmlint:rpmlint makepkg:makepkg pacman:pacman-package-manager bsdtar:libarchive-tools unshare:util-linux fakeroot:fakeroot make:make git:git
need_static

# As they would be on a machine that builds only this.
programs=$work/programs
mkdir -p "$programs" && cp "$target"/static/xget{,-node} "$programs/"
CARGO_TARGET_DIR=$work "$repo/packaging/dist" > "$work/dist.log" 2>&1 || { fail "the source is packed" "$work/dist.log"; finish; }
packages=$work/packages

# holds NAME FILE...: is each of these in the package's list of files?
holds() {
    local list=$work/$1.list file; shift
    for file; do grep -qx "$file" "$list" || { echo "$file is not in it"; cat "$list"; return 1; }; done
}

# judge KIND: what the lists in $work say of the packages, which either kind has
judge() {
    check "$1: xget has the program, its manual, units and completions" holds xget usr/bin/xget \
        usr/share/man/man1/xget.1 usr/share/man/man7/xget.cmdline.7 usr/lib/systemd/system/xget{,-master}.service \
        usr/share/{bash-completion/completions/xget,zsh/site-functions/_xget,fish/vendor_completions.d/xget.fish}
    check "$1: xget-node has the node" holds xget-node usr/bin/xget-node usr/share/man/man1/xget-node.1
    check "$1: xget-dracut has dracut's module" holds xget-dracut usr/lib/dracut/modules.d/50xget/module-setup.sh
    check "$1: xget-mkinitcpio has the hooks of mkinitcpio" holds xget-mkinitcpio usr/lib/initcpio/{install/xget,install/sd-xget,hooks/xget}
    check "$1: xget-initramfs-tools has its hook and script" holds xget-initramfs-tools usr/share/initramfs-tools/{hooks,scripts}/xget
}

# ---- RPM

# BuildRequires are packages of another distribution.
make_rpms() {
    (cd "$packages" && rpmbuild -bb --nodeps -D "_topdir $work/rpm" -D "_sourcedir $packages" -D "programs $programs" xget.spec)
}
check "rpmbuild makes packages" make_rpms
lint() { rpmlint --strict --rpmlintrc "$repo/packaging/xget.rpmlintrc" "$packages/xget.spec"; }
check "rpmlint has nothing to say of the specification" lint
for package in "$work"/rpm/RPMS/*/*.rpm; do
    rpm -qlp "$package" 2> /dev/null | sed 's|^/||; s/\.gz$//' > "$work/$(rpm -qp --qf '%{name}' "$package" 2> /dev/null).list"
done
judge rpm
requires() { rpm -qp --requires "$work"/rpm/RPMS/*/xget-"$1"-[0-9]*.rpm 2> /dev/null; }
for part in dracut mkinitcpio initramfs-tools; do
    check "rpm: xget-$part comes with the node" sh -c "echo '$(requires $part)' | grep '^xget-node >= '"
done

# ---- Arch

rm -f "$work"/xget*.list
# makepkg does nothing for root: so root is somebody else to it.
make_arch() { (cd "$packages" && unshare --map-user=1000 --map-group=1000 env XGET_PROGRAMS="$programs" makepkg --nodeps); }
check "makepkg makes packages" make_arch
for package in "$packages"/*.pkg.tar*; do
    [ -e "$package" ] || continue
    name=$(bsdtar -xOf "$package" .PKGINFO | sed -n 's/^pkgname = //p')
    bsdtar -tf "$package" | sed 's/\.gz$//' > "$work/$name.list"
    check "arch: $name belongs to root" test -z "$(bsdtar -tvf "$package" | awk '$3 != "root" || $4 != "root"')"
done
judge arch
finish

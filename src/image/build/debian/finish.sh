# The last thing that is done to a Debian root, as mmdebstrap's hook: what differs between two builds of the same packages
# goes, and the rest is packed by the function `pack`. $1 is the root.
set -eu
root=$1

# In the root, /proc, /sys and devices are mounted; through this they are not seen.
mount --bind "$root" "$root/mnt"
trap 'cd / && umount "$root/mnt"' EXIT
cd "$root/mnt"

# mmdebstrap's own, which it would remove after this.
rm -f usr/sbin/policy-rc.d etc/apt/apt.conf.d/??mmdebstrap etc/dpkg/dpkg.cfg.d/??mmdebstrap
if [ -e usr/sbin/start-stop-daemon.REAL ]; then
    mv usr/sbin/start-stop-daemon.REAL usr/sbin/start-stop-daemon
fi

# A guest has no network, and where packages came from is no business of its image.
rm -f etc/apt/sources.list etc/apt/sources.list.d/*

# Logs, caches, backups and locks, each with a time or a random name in it.
find var/log var/cache/apt var/lib/apt/lists tmp var/tmp run -xdev ! -type d -delete
find tmp var/tmp run -xdev -mindepth 1 -depth -type d -delete
rm -f var/cache/ldconfig/aux-cache var/cache/debconf/*-old var/lib/dpkg/*-old var/lib/dpkg/lock* \
    var/lib/dpkg/triggers/Lock etc/.pwd.lock etc/passwd- etc/group- etc/shadow- etc/gshadow- \
    etc/subuid- etc/subgid- var/lib/dbus/machine-id var/lib/systemd/random-seed

# They belong to whom apt fetched as, which depends on who builds.
rm -rf var/lib/apt/lists/auxfiles
chown 0:0 var/lib/apt/lists/partial var/cache/apt/archives/partial

# Files that were made here get the time of the newest package; those of packages keep theirs.
newest=$(find var/lib/dpkg/info -name '*.md5sums' -printf '%T@\n' | sort -n | tail -n 1)
export SOURCE_DATE_EPOCH="${newest%.*}"
touch -d "@$SOURCE_DATE_EPOCH" dev proc sys

mkdir .creel
echo 'creel: packing'
pack

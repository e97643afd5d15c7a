#!/bin/bash
# Stands in for QEMU: see native.rs. creel-keeper starts it with QEMU's arguments, descriptors and working directory.
set -e
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
if [ "$1" = --version ]; then
    echo "QEMU emulator version 7.2.0 (a native machine of creel-bench)"
    exit 0
fi
if [ "$1" != --inside ]; then
    # The agent makes a cgroup for each exec, as in a guest, below one that is easy to find and remove.
    if [ -d "@CGROUP@" ]; then
        own="@CGROUP@/$(basename "$PWD")"
        mkdir -p "$own"
        echo 0 >"$own/cgroup.procs"
    fi
    exec unshare --mount --cgroup --propagation private -- "$0" --inside "$@"
fi
shift
for argument; do
    case $argument in
    socket,id=qmp0,fd=*)
        qmp=${argument#socket,id=qmp0,fd=}
        qmp=${qmp%%,*}
        ;;
    esac
    case $argument in
    *shuttle.vsock_port=*)
        port=${argument##*shuttle.vsock_port=}
        port=${port%% *}
        ;;
    esac
done
directory=$PWD
mount --bind "@ROOT@" "@ROOT@"
cd "@ROOT@"
mount -t proc proc proc
mount --rbind /dev dev
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup || true
mount -t tmpfs -o mode=755 tmpfs run
: >run/agent.sock
mount --bind "$directory/sockets/vsock_$port" run/agent.sock
: >run/creel-agent
mount --bind "@AGENT@" run/creel-agent
cd "$directory"
# Descriptors of two digits are beyond other shells.
exec 3<&"$qmp"
export LISTEN_PID=$$ LISTEN_FDS=1
exec "@OWN@" native-machine chroot "@ROOT@" /run/creel-agent --connect unix:/run/agent.sock

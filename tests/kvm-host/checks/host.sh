# shellcheck shell=bash disable=SC2009,SC2034,SC2154
# The host before creel is on it: if this is not as told, nothing below means anything.

it_has_systemd_and_cgroup2_alone() {
    same "$(stat -fc %T /sys/fs/cgroup)" cgroup2fs "/sys/fs/cgroup"
    echo "    controllers: $(cat /sys/fs/cgroup/cgroup.controllers)"
    local controller
    for controller in cpu io memory pids; do
        grep -qw "$controller" /sys/fs/cgroup/cgroup.controllers
    done
    same "$(cat /proc/1/comm)" systemd "process 1"
    systemctl --version | head -n 1
    uname -r
}

it_has_kvm() {
    # Hardware has udev load it by the CPU's model, which this one's does not match.
    modprobe kvm_amd
    eventually 10 test -c /dev/kvm
    lsmod | grep -E '^kvm'
    same "$(cat /sys/module/kvm_amd/parameters/npt)" Y "nested paging"
}

nothing_of_creel_is_there_yet() {
    not command -v creel
    not getent group creel
    not test -e /run/creel
    # The package's units have to load it.
    not grep -w ^vhost_vsock /proc/modules
}

check 20 it_has_systemd_and_cgroup2_alone
check 20 it_has_kvm
check 10 nothing_of_creel_is_there_yet

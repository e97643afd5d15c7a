# shellcheck shell=bash disable=SC2009,SC2034,SC2154
# What the package does to a host that is in use.

version_of_creel() { dpkg-query -W -f '${Version}' creel; }

an_upgrade_leaves_a_living_machine_and_says_so() {
    shared main
    local before after creeld keep
    before=$(of_machine "$id")
    echo "${before//$'\n'/$'\n'    }"
    creeld=$(identity "$(main_pid)")
    keep=$(identity "$(main_pid creel-machines.service)")
    expect 0 dpkg -i "$base/upgrade.deb"
    has "$out" "machines are running (1)"
    has "$out" "systemctl restart creeld"
    same "$(version_of_creel)" "$(dpkg-deb -f "$base/upgrade.deb" Version)" "the version"
    after=$(of_machine "$id")
    diff <(echo "$before") <(echo "$after")
    same "$(identity "$(main_pid)")" "$creeld" "creeld"
    same "$(identity "$(main_pid creel-machines.service)")" "$keep" "the holder"
    answers "$id"
}

an_upgrade_without_machines_restarts_creeld_alone() {
    shared main
    expect 0 creel rm "$id"
    eventually 10 no_machines
    local creeld keep
    creeld=$(identity "$(main_pid)")
    keep=$(identity "$(main_pid creel-machines.service)")
    # Back again, which is an upgrade as any other to the package's scripts.
    expect 0 dpkg -i "$base/first.deb"
    has_not "$out" "machines are running"
    eventually 20 machines
    [[ $(identity "$(main_pid)") != "$creeld" ]]
    same "$(identity "$(main_pid creel-machines.service)")" "$keep" "the holder"
    created
    echo "$id" >"$state/machine.main"
}

a_removal_ends_machines_and_leaves_no_cgroup() {
    shared main
    local qemu
    qemu=$(qemu_of "$id")
    expect 0 dpkg -r creel
    not kill -0 "$qemu"
    not test -e /sys/fs/cgroup/creel.slice
    not test -e /usr/sbin/creeld
    not pgrep -x creeld
    not pgrep -x creel-keeper
    not test -e "/run/creel/m-$id"
    # What is the operator's stays.
    test -f /etc/creel/creel.toml
    test -f /etc/creel/keys/trial
    test -d /var/lib/creel/images
    # The links that enable them stay until a purge, so systemd knows the names; nothing runs, and nothing has failed.
    systemctl list-units --no-pager --state=active,activating,deactivating,failed 'creel*' | tee "$out"
    has "$out" "0 loaded units"
}

a_purge_leaves_the_groups_alone() {
    expect 0 dpkg -P creel
    # What users' own embedded runs left is theirs.
    find / /run /sys/fs/cgroup -xdev -iname '*creel*' -not -path '/var/lib/dpkg/*' -not -path "$state/*" \
        -not -path '/home/*' -not -path '/tmp/creel-[1-9]*' | tee "$out"
    same "$(wc -l <"$out")" 0 "files and cgroups that are left"
    expect 0 getent group creel creel-spindle
    expect 0 systemctl --failed --no-pager
    has_not "$out" creel
}

after_a_purge_it_can_be_installed_again() {
    expect 0 dpkg -i "$base/first.deb"
    eventually 20 machines
    expect 0 creel image build tiny
    created
    answers "$id"
    expect 0 creel rm "$id"
    expect 0 dpkg -P creel
}

check 120 an_upgrade_leaves_a_living_machine_and_says_so
check 120 an_upgrade_without_machines_restarts_creeld_alone
check 60 a_removal_ends_machines_and_leaves_no_cgroup
check 60 a_purge_leaves_the_groups_alone
check 150 after_a_purge_it_can_be_installed_again

# shellcheck shell=bash disable=SC2009,SC2034,SC2154
# The package on a host that runs.

units=(creeld.service creel-machines.service creeld.socket creeld-vsock.socket creel.slice)

apt_installs_it_and_all_units_start() {
    # Before the daemon's first start, which hands it over.
    install -d -m 700 /etc/creel /etc/creel/keys
    (umask 077 && echo "a key" >/etc/creel/keys/trial)
    # This host has no network and apt no lists: what it depends on has to be there.
    expect 0 apt-get install -y "$base/first.deb"
    local unit
    for unit in "${units[@]}"; do
        same "$(systemctl is-active "$unit")" active "$unit"
    done
    for unit in "${units[@]:0:4}"; do
        same "$(systemctl is-enabled "$unit")" enabled "$unit"
    done
    systemctl list-units --no-pager 'creel*'
    systemctl status --no-pager --lines=0 creeld creel-machines
    getent group creel creel-spindle
}

man_pages_and_completions_come_with_it() {
    # This host leaves /usr/share/man out of whatever it installs (tests/kvm-host/image).
    dpkg-deb --contents "$base/first.deb" >"$out"
    local page
    for page in man1/creel.1 man1/creel-run.1 man8/creeld.8; do
        has "$out" "./usr/share/man/$page.gz"
    done
    expect 0 bash -c 'source /usr/share/bash-completion/completions/creel && complete -p creel'
    has "$out" "_creel creel"
    grep '^#compdef creel' /usr/share/zsh/vendor-completions/_creel
    grep --max-count=1 'complete -c creel' /usr/share/fish/vendor_completions.d/creel.fish
}

its_sockets_listen() {
    ss --listening --unix --no-header src /run/creel/creel.sock | tee "$out"
    has "$out" /run/creel/creel.sock
    ss --listening --vsock --no-header | tee "$out"
    local port
    for port in 824 825 826 827; do
        has "$out" ":$port"
    done
    same "$(stat -c '%a %U' /run/creel/creel.sock)" "666 root" "the control socket's mode and owner"
}

creeld_is_ready_and_says_what_it_runs_on() {
    eventually 30 says_accel
    systemctl show -p StatusText --value creeld
    mark=$(($(date +%s) - 600))
    journal_says 'accel=kvm transport=kernel'
    journal
}
says_accel() { journalctl -u creeld -o cat | grep -F 'machines can be run'; }

units_are_no_more_exposed_than_recorded() {
    systemd-analyze verify --man=no "${units[@]}" 2>&1 | tee "$out"
    has_not "$out" creel
    local unit exposure recorded
    while read -r unit recorded; do
        exposure=$(systemd-analyze security --no-pager "$unit" | sed -nE 's/.*exposure level for .*: ([0-9.]+) .*/\1/p')
        echo "    $unit: $exposure, recorded $recorded"
        ((10#${exposure/./} <= 10#${recorded/./}))
    done < <(grep -v '^#' "$base/security-scores")
}

creeld_is_confined_and_has_its_keys() {
    local pid
    pid=$(main_pid)
    grep -E '^(NoNewPrivs|Seccomp|CapBnd|CapEff):' "/proc/$pid/status" | tee "$out"
    grep -qE '^NoNewPrivs:\s1$' "$out"
    grep -qE '^Seccomp:\s2$' "$out"
    same "$(cat "/proc/$pid/root/run/credentials/creeld.service/keys_trial")" "a key" "its key"
    # In its own mount namespace: what it may write to, and what not.
    expect 0 nsenter -t "$pid" -m touch /run/creel/trial /var/lib/creel/trial
    rm /run/creel/trial /var/lib/creel/trial
    expect 1 nsenter -t "$pid" -m touch /etc/creel/trial
    has "$err" "Read-only file system"
    expect 1 nsenter -t "$pid" -m touch /etc/trial
    expect 2 nsenter -t "$pid" -m ls /etc/creel/keys/trial
    expect 0 ls /etc/creel/keys/trial
    expect 1 nsenter -t "$pid" -m mkdir /sys/fs/cgroup/trial
    has "$err" "Read-only file system"
}

creeld_and_its_slice_have_the_memory_that_their_units_keep_for_them() {
    local unit said
    # The slice's too: the protection of a cgroup is capped by that of those above.
    for unit in creeld.service creel.slice; do
        said=$(sed -n 's/^MemoryMin=//p' "$(systemctl show -p FragmentPath --value "$unit")")
        same "$(cat "/sys/fs/cgroup$(systemctl show -p ControlGroup --value "$unit")/memory.min")" \
            "$(numfmt --from=iec "$said")" "memory.min of $unit, which says $said"
    done
    same "$(cat "$holder/memory.min")" 0 "memory.min of the machines' cgroup"
}

an_image_is_built() {
    expect 0 creel image build tiny
    expect 0 creel image ls
    has "$out" tiny
}

doctor_finds_nothing_amiss() {
    expect 0 creel doctor
    has "$out" "a trial guest ran under KVM"
    not grep -E '^(limited|missing)' "$out"
    expect 0 creel doctor --json
    same "$(jq -r 'map(select(.status == "limited" or .status == "missing")) | length' "$out")" 0 "findings"
}

check 90 apt_installs_it_and_all_units_start
check 60 man_pages_and_completions_come_with_it
check 20 its_sockets_listen
check 60 creeld_is_ready_and_says_what_it_runs_on
check 60 units_are_no_more_exposed_than_recorded
check 30 creeld_is_confined_and_has_its_keys
check 20 creeld_and_its_slice_have_the_memory_that_their_units_keep_for_them
check 60 an_image_is_built
check 60 doctor_finds_nothing_amiss

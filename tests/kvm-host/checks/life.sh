# shellcheck shell=bash disable=SC2009,SC2034,SC2154
# Machines from their creation to their end, of creeld and embedded.

a_machine_is_created_and_listed() {
    local begin=$EPOCHREALTIME
    shared main
    record_note "a machine was ready after $(seconds_since "$begin") s"
    expect 0 creel ps
    expect 0 creel ps --json
    same "$(field "$id" '[.state, .accel, .transport] | join(" ")')" "ready kvm kernel" "state, accel, transport"
    same "$(field "$id" .cgroup)" "$holder/m-$id" "its cgroup"
    same "$(field "$id" '.cid > 2')" true "its CID is a guest's"
}

its_processes_and_limits_are_where_they_belong() {
    shared main
    local vm=$holder/m-$id/vm keeper qemu pid file
    systemd-cgls --no-pager --full /creel.slice | cut -c1-120
    keeper=$(keeper_of "$id")
    qemu=$(qemu_of "$id")
    same "$(wc -w <<<"$keeper") $(cat "/proc/$keeper/comm")" "1 creel-keeper" "in keeper/"
    same "$keeper" "$(field "$id" .keeper_pid)" "the keeper that creeld names"
    same "$(wc -w <<<"$qemu") $(cat "/proc/$qemu/comm")" "1 qemu-system-x86" "in vm/"
    while read -r pid; do echo "    in vm/ in all: $pid $(cat "/proc/$pid/comm")"; done <"$vm/cgroup.procs"
    same "$(cat "$holder/m-$id/cgroup.procs")" "" "in the machine's cgroup itself"
    same "$(cut -d' ' -f4 "/proc/$qemu/stat")" "$keeper" "QEMU's parent"
    for file in memory.max memory.swap.max memory.oom.group memory.high memory.peak pids.max pids.peak cpu.max cpu.weight \
        io.weight; do
        [[ -e $vm/$file ]] && echo "    vm/$file: $(cat "$vm/$file")"
    done
    record_note "a machine of 256 MiB: limit $(($(cat "$vm/memory.max") >> 20)) MiB, peak $(($(cat "$vm/memory.peak") >> 20)) MiB, $(cat "$vm/pids.current") processes and threads"
    # The image's size, and the defaults of `[cgroups]`: `memory_overhead`, `max_pids` and `cpu_weight`.
    same "$(field "$id" '"\(.memory_mib) \(.vcpus)"')" "256 1" "the guest's MiB of memory and CPUs"
    same "$(cat "$vm/memory.max")" $(((256 + 160) << 20)) "memory.max"
    same "$(field "$id" .memory_limit_mib)" $((256 + 160)) "the limit in MiB that creeld names"
    same "$(cat "$vm/memory.swap.max")" 0 "memory.swap.max"
    same "$(cat "$vm/memory.oom.group")" 1 "memory.oom.group"
    same "$(cat "$vm/memory.high")" max "memory.high"
    same "$(cat "$vm/pids.max")" 512 "pids.max"
    # One CPU more than the guest has.
    same "$(cat "$vm/cpu.max")" "$(((1 + 1) * 100000)) 100000" "cpu.max"
    same "$(cat "$vm/cpu.weight")" 100 "cpu.weight"
    same "$(cat "$vm/io.weight")" "default 100" "io.weight"
    same "$(cat "$holder/m-$id/keeper/memory.max")" max "keeper/memory.max"
    # A kernel that has to choose takes the machine, not the daemon.
    same "$(cat "/proc/$qemu/oom_score_adj")" 0 "QEMU's oom_score_adj"
}

# That a CID which another program holds is passed over can't be brought about here: the search for one begins at a random
# number of 32 bits (src/runtime/microvm/cids.rs, whose tests show it).
only_qemu_holds_the_vsock_device() {
    shared main
    local qemu holders
    qemu=$(qemu_of "$id")
    holders=$(find /proc/[0-9]*/fd -lname /dev/vhost-vsock 2>/dev/null | cut -d/ -f3 | sort -u)
    echo "    creeld $(main_pid), keeper $(keeper_of "$id"), QEMU $qemu"
    same "$holders" "$qemu" "processes with /dev/vhost-vsock open"
}

qemu_has_a_seccomp_filter_a_pid_namespace_and_no_new_privileges() {
    shared main
    local qemu
    qemu=$(qemu_of "$id")
    grep -E '^(Uid|CapEff|CapPrm|NoNewPrivs|Seccomp):' "/proc/$qemu/status" | tee "$out"
    grep -qE '^NoNewPrivs:\s1$' "$out"
    grep -qE '^Seccomp:\s2$' "$out"
    [[ $(readlink "/proc/$qemu/ns/pid") != $(readlink /proc/self/ns/pid) ]]
    echo "    its pid namespace is its own"
}

qemu_is_in_a_jail_and_its_keeper_too() {
    shared main
    local qemu keeper of set kind uid
    qemu=$(qemu_of "$id")
    keeper=$(keeper_of "$id")
    grep -E '^(Name|Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp)' "/proc/$qemu/status"
    uid=$(awk '/^Uid:/ { print $2 }' "/proc/$qemu/status")
    ((uid >= 2000000000 && uid < 2000065536))
    same "$(pgrep -u "$uid" | tr '\n' ' ')" "$qemu " "the processes of its user"
    for set in CapInh CapPrm CapEff CapBnd CapAmb; do
        same "$(awk "/^$set:/ { print \$2 }" "/proc/$qemu/status")" 0000000000000000 "QEMU's $set"
    done
    # CAP_KILL.
    same "$(awk '/^CapEff:/ { print $2 }' "/proc/$keeper/status")" 0000000000000020 "the keeper's CapEff"
    same "$(awk '/^CapBnd:/ { print $2 }' "/proc/$keeper/status")" 0000000000000000 "the keeper's CapBnd"
    for of in "$qemu" "$keeper"; do
        for kind in mnt net ipc uts pid; do
            [[ $(readlink "/proc/$of/ns/$kind") != $(readlink "/proc/$(main_pid)/ns/$kind") ]]
        done
        same "$(ls "/proc/$of/root/dev" | tr '\n' ' ')" "kvm null " "its devices"
        [[ ! -e /proc/$of/root/etc && ! -e /proc/$of/root/proc && ! -e /proc/$of/root/run ]]
    done
    same "$(wc -c <"/proc/$qemu/environ")" 0 "bytes of its environment"
    same "$(readlink "/proc/$qemu/cwd")" / "its working directory"
}

exec_gives_output_and_exit_code() {
    shared main
    expect 0 creel exec "$id" -- sh -c 'echo to stdout; echo to stderr >&2'
    same "$(cat "$out")" "to stdout" stdout
    same "$(cat "$err")" "to stderr" stderr
    expect 7 creel exec "$id" -- sh -c 'exit 7'
    # shellcheck disable=SC2016 # The guest's.
    expect 143 creel exec "$id" -- sh -c 'kill -TERM $$'
    has "$err" "killed by signal 15"
    # shellcheck disable=SC2016
    expect 0 creel exec -e GREETING=hello --cwd /tmp "$id" -- sh -c 'echo "$GREETING from $(pwd), $(id -u)"'
    grep -qE '^hello from /tmp, [1-9][0-9]*$' "$out"
    expect 124 creel exec --timeout 2s "$id" -- sleep 60
    has "$err" "timed out"
    answers "$id"
}

a_shell_opens_over_kernel_vsock() {
    shared main
    printf 'tty; id -un\nexit 7\n' >"$state/typed"
    local status=0
    timeout 60 creel shell "$id" <"$state/typed" >"$out" 2>"$err" || status=$?
    cat "$out" "$err"
    same "$status" 7 "exit code of the shell"
    has "$out" /dev/pts/
    has "$out" spindle-workflow
}

the_journal_knows_whose_machine_it_is() {
    shared main
    journalctl --sync
    journalctl -u creeld "CREEL_MACHINE=$id" -o json | head -n 1 | jq '{MESSAGE, CREEL_MACHINE, CREEL_TENANT, CREEL_UID, PRIORITY}' >"$out"
    cat "$out"
    same "$(jq -r .CREEL_MACHINE "$out")" "$id" "the machine of a journal entry"
    same "$(jq -r .CREEL_UID "$out")" 0 "its user"
}

mistakes_are_told() {
    expect 2 creel exec nosuchmach -- true
    has "$err" nosuchmach
    expect 2 creel create --image nosuchimage
    has "$err" nosuchimage
    expect 2 creel rm nosuchmach
}

rm_leaves_nothing() {
    created
    local removed=$id keeper qemu
    keeper=$(keeper_of "$id")
    qemu=$(qemu_of "$id")
    expect 0 creel rm "$removed"
    gone "$removed"
    not kill -0 "$keeper"
    not kill -0 "$qemu"
    expect 0 creel ps -a
    same "$(field "$removed" .state)" ended "its state"
    field "$removed" '.ended_as, .usage'
    same "$(field "$removed" '.usage.cpu_us > 0 and .usage.peak_memory_kib > 0 and .usage.peak_pids > 0')" true \
        "usage was counted"
    # It is no error to end what has ended.
    expect 0 creel rm "$removed"
}

a_machine_that_is_too_old_ends() {
    created --max-age 4s
    ended_as "$id" "timed out (it was 4 s old, which is its limit)"
    counted "$id"
}

creeld_runs_workflows() {
    local before
    before=$(machines_of_creeld)
    a_run 0 hello
    has "$out" "Hello from Linux"
    has "$out" "# kvm-host"
    has "$err" "workflow hello: ok"
    has_not "$err" "without creeld"
    same $(($(machines_of_creeld) - before)) 1 "machines that creeld made for it"
    same "$(machines | jq '[.[] | select(.workflow_id | test("hello"))] | length')" 0 "of them living"
}

creeld_tells_how_workflows_fail() {
    a_run 1 fail
    has "$err" 'exited with code 1'
    has_not "$out" deployed
    a_run 124 sleep --timeout 20s
    has "$out" napping
    has "$err" "timed out"
}

eight_mib_of_output_arrive_through_creeld() {
    a_run 0 probe
    local bytes
    bytes=$(tr -dc x <"$out" | wc -c)
    echo "    $bytes times x"
    ((bytes >= 8 * 1024 * 1024))
}

# Embedded runs are listed beside them.
machines_of_creeld() { machines -a | jq length; }

embedded_runs_go_beside_creeld() {
    shared main
    local before
    before=$(machines_of_creeld)
    sleeper --embedded
    # The hybrid transport's helper.
    pgrep -a vhost-device-vs | cut -c1-120
    a_run 0 hello --embedded
    has "$out" "Hello from Linux"
    same "$(machines_of_creeld)" "$before" "machines that creeld knows"
    local status=0
    kill -TERM "$sleeper_pid"
    wait "$sleeper_pid" || status=$?
    same "$status" 130 "exit code of the run that was told to end"
    answers "$id"
}

an_embedded_run_is_told_that_the_vsock_port_is_taken() {
    CREEL_MACHINE__TRANSPORT=kernel a_run 3 hello --embedded
    has "$err" "vsock port 824"
    has "$err" hybrid
}

a_killed_client_leaves_no_machine_of_creeld() {
    local before
    before=$(machines | jq length)
    sleeper
    id=$(machines | jq -r '.[-1].id')
    test -d "$holder/m-$id"
    kill -KILL "$sleeper_pid"
    eventually 5 ended "$id"
    gone "$id"
    same "$(machines | jq length)" "$before" "living machines"
}

a_killed_embedded_run_leaves_no_machine() {
    sleeper --embedded
    local qemu
    qemu=$(pgrep -x qemu-system-x86 | while read -r pid; do
        grep -q creel-machines "/proc/$pid/cgroup" || echo "$pid"
    done)
    same "$(wc -w <<<"$qemu")" 1 "QEMUs outside of creeld's cgroup"
    kill -KILL "$sleeper_pid"
    eventually 5 not kill -0 "$qemu"
    eventually 5 not pgrep -x vhost-device-vs
}

check 60 a_machine_is_created_and_listed
check 20 its_processes_and_limits_are_where_they_belong
check 20 only_qemu_holds_the_vsock_device
check 20 qemu_has_a_seccomp_filter_a_pid_namespace_and_no_new_privileges
check 20 qemu_is_in_a_jail_and_its_keeper_too
check 60 exec_gives_output_and_exit_code
check 30 a_shell_opens_over_kernel_vsock
check 20 the_journal_knows_whose_machine_it_is
check 20 mistakes_are_told
check 60 rm_leaves_nothing
check 60 a_machine_that_is_too_old_ends
check 90 creeld_runs_workflows
check 120 creeld_tells_how_workflows_fail
check 90 eight_mib_of_output_arrive_through_creeld
check 150 embedded_runs_go_beside_creeld
check 30 an_embedded_run_is_told_that_the_vsock_port_is_taken
check 60 a_killed_client_leaves_no_machine_of_creeld
check 60 a_killed_embedded_run_leaves_no_machine

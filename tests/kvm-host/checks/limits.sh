# shellcheck shell=bash disable=SC2009,SC2034,SC2154
# Each way for a machine to come to a bad end has words of its own, and is the end of that machine alone.

# A machine that none of this may touch: created first, asked after each end.
neighbour_answers() {
    local dead=${id:-}
    shared main
    same "$(qemu_of "$id")" "$(cat "$state/neighbour")" "the neighbour's QEMU"
    answers "$id"
    id=$dead
}

a_neighbour_is_there() {
    shared main
    qemu_of "$id" >"$state/neighbour"
    answers "$id"
}

neighbour_is_alone() { [[ $(compgen -G "$holder/m-*") == "$holder/m-$(cat "$state/machine.main")" ]]; }

# Seconds from the kernel's last OOM kill to the end that creeld gave machine $1. The kernel's log and ended_at both have
# microseconds; the former's clock is the monotonic one, which is put beside the wall clock by the journal.
seconds_from_kill_to_verdict() {
    local killed_us ended_us
    killed_us=$(journalctl -k -o json --since="@$mark" | jq -r 'select(.MESSAGE | test("Killed process")) |
        (.__REALTIME_TIMESTAMP | tonumber) - (.__MONOTONIC_TIMESTAMP | tonumber) + (._SOURCE_MONOTONIC_TIMESTAMP | tonumber)' |
        tail -n 1)
    ended_us=$(date -d "$(field "$1" .ended_at)" +%s%6N)
    awk -v killed="$killed_us" -v ended="$ended_us" 'BEGIN { printf "%.3f", (ended - killed) / 1e6 }'
}

over_its_memory_limit_a_machine_dies_alone_within_a_second() {
    mark
    created --memory-limit-mib 130
    same "$(cat "$holder/m-$id/vm/memory.max")" $((130 << 20)) "memory.max"
    expect 1 creel exec "$id" -- awk "$(hold_mib 180)"
    has "$err" "out of memory (the machine's limit of 130 MiB; peak 130 MiB)"
    ended_as "$id" "out of memory (the machine's limit of 130 MiB; peak 130 MiB)"
    counted "$id"
    local seconds
    seconds=$(seconds_from_kill_to_verdict "$id")
    echo "    $seconds s from the kernel's kill to the verdict"
    record_note "out of memory: $seconds s from the kernel's kill to creeld's verdict"
    awk -v seconds="$seconds" 'BEGIN { exit !(seconds >= 0 && seconds < 1) }'
    journalctl -k --since="@$mark" -o short-monotonic --no-hostname | grep -E 'oom-kill|Killed process|oom.group' |
        cut -c1-200 | tee "$out"
    has "$out" "m-$id/vm"
    # The kernel took vm/ and nothing else, with vhost's own thread: the keeper was there to say so.
    same "$(grep 'Killed process' "$out" | grep -cvE '\((qemu-system-x86|vhost-[0-9]+)\)' || true)" 0 \
        "kills of others than QEMU"
    neighbour_answers
}

a_machine_that_the_slice_has_no_memory_for_is_told_apart_from_one_at_its_limit() {
    created
    local slice=/sys/fs/cgroup/creel.slice
    # What is there and a little: the hog is the largest in it.
    systemctl set-property --runtime creel.slice MemoryMax=$(($(cat "$slice/memory.current") + (48 << 20)))
    creel exec "$id" -- awk "$(hold_mib 180)" >"$state/exec" 2>&1 || true
    systemctl set-property --runtime creel.slice MemoryMax=infinity
    cat "$state/exec"
    ended_as "$id" "machine crashed (killed for want of memory on the host, or in creel.slice, below its own limit)"
    counted "$id"
    same "$(cat "$slice/memory.max")" max "the slice's limit"
    neighbour_answers
}

a_guest_that_kills_a_process_of_the_step_goes_on() {
    created
    expect 1 creel exec "$id" -- awk "$(hold_mib 400)"
    has "$err" "out of memory (the guest kernel killed a process of this step)"
    # Where there is room it ends well, and the machine lives on.
    expect 0 creel exec "$id" -- awk "$(hold_mib 20)"
    has "$out" held
    same "$(field "$id" .state)" ready "its state"
    expect 0 creel rm -f "$id"
    neighbour_answers
}

a_guest_kernel_out_of_memory_is_a_panic_with_its_words() {
    local images=/var/lib/creel/images
    if [[ ! -e $images/panicky ]]; then
        cp -rL "$images/tiny" "$images/panicky"
        sed -i 's/quiet/quiet sysctl.vm.panic_on_oom=1/' "$images/panicky/spec.json"
    fi
    created --image panicky
    expect 125 creel exec "$id" -- awk "$(hold_mib 400)"
    has "$err" "machine crashed (guest reset or panic)"
    grep -qi "out of memory" "$err"
    ended_as "$id" "machine crashed (guest reset or panic)"
    counted "$id"
    neighbour_answers
}

qemu_killed_by_a_signal_is_told_with_its_number() {
    local signal
    for signal in 9 15; do
        created
        creel exec "$id" -- sleep 600 >"$state/exec" 2>&1 &
        local exec_pid=$! status=0
        eventually 10 executing "$id"
        kill "-$signal" "$(qemu_of "$id")"
        wait "$exec_pid" || status=$?
        cat "$state/exec"
        same "$status" 125 "exit code of the exec under it"
        has "$state/exec" "machine crashed (QEMU: signal $signal)"
        ended_as "$id" "machine crashed (QEMU: signal $signal)"
        counted "$id"
    done
    neighbour_answers
}

the_keeper_killed_is_told() {
    created
    kill -KILL "$(keeper_of "$id")"
    # Nobody is left who could say how QEMU ended.
    ended_as "$id" "creel's own fault: the machine's keeper ended: signal 9"
    counted "$id"
    neighbour_answers
}

too_few_processes_are_told_with_the_limit() {
    configured '[cgroups]' 'max_pids = 4'
    local status=0
    creel create >"$out" 2>"$err" || status=$?
    cat "$err"
    configured
    same "$status" 125 "exit code"
    has "$err" "the machine's limit of 4 processes and threads"
    eventually 5 neighbour_is_alone
    # With the package's configuration it works again.
    created
    expect 0 creel rm -f "$id"
    neighbour_answers
}

a_full_disk_of_the_host_is_told() {
    local small=/var/lib/creel/small
    mkdir -p "$small"
    truncate -s 96M "$state/small.ext4"
    mke2fs -q -t ext4 "$state/small.ext4"
    mount -o loop "$state/small.ext4" "$small"
    configured '[cache]' "dir = \"$small/cache\""
    created
    configured
    expect 125 timeout 60 creel exec "$id" -- sh -c 'dd if=/dev/zero of=/workspace/big bs=1M count=400 && sync'
    has "$err" "host disk full"
    ended_as "$id" "host disk full"
    counted "$id"
    df -h "$small" | tail -n 1
    umount "$small"
    rmdir "$small"
    neighbour_answers
}

usage_is_on_verdicts() {
    # What is in the host's cache already costs no reading. Writing is not asked for: what a guest writes to its throw-away
    # disk stays in that cache, and the kernel may count it for who made the file.
    echo 3 >/proc/sys/vm/drop_caches
    created
    expect 0 creel exec "$id" -- sh -c 'dd if=/dev/zero of=/workspace/some bs=1M count=16 && sync'
    expect 0 creel rm "$id"
    field "$id" '.verdict.usage.machine' | tee "$out"
    local figure
    for figure in cpu_us peak_memory_kib memory_limit_kib read_bytes peak_pids cpu_pressure_us; do
        echo "    $figure: $(jq ".$figure" "$out")"
        jq -e ".$figure > 0" "$out" >/dev/null
    done
}

# What running a guest costs beside the guest's own memory: the reason for the default of `cgroups.memory_overhead`. In
# docs/machines.md it is 31 MiB; twice as much would be something new.
# A machine of $1 MiB and $2 CPUs, whose memory programs had first, and then the guest's page cache. That is written, since the
# host's cache of it has to give way at the limit.
filled() {
    created --memory-mib "$1" --vcpus "$2"
    expect 0 creel exec "$id" -- awk "$(hold_mib $(($1 / 3)))"
    expect 0 creel exec "$id" -- dd if=/dev/zero of=/workspace/fill bs=1M count=$(($1 + 192))
}

a_guest_that_uses_all_its_memory_stays_below_its_limit() {
    local recorded_mib=31 size mib vcpus vm used_kib
    for size in "192 1" "256 1" "256 2" "512 1"; do
        read -r mib vcpus <<<"$size"
        filled "$mib" "$vcpus"
        vm=$holder/m-$id/vm
        grep -E '^(anon|file|kernel|shmem|pagetables|percpu|sock) ' "$vm/memory.stat"
        used_kib=$(awk '/^(anon|shmem|kernel) / { sum += $2 } END { printf "%d", sum / 1024 }' "$vm/memory.stat")
        record_note "a full guest of $mib MiB and $vcpus CPUs: $((used_kib / 1024 - mib)) MiB beside its memory that can't be \
reclaimed, peak $(($(cat "$vm/memory.peak") >> 20)) MiB with page cache, limit $(($(cat "$vm/memory.max") >> 20)) MiB"
        # A guest that was not full would show nothing.
        ((used_kib >= mib * 1024))
        ((used_kib < (mib + 2 * recorded_mib) * 1024))
        same "$(field "$id" .state)" ready "its state"
        expect 0 creel rm -f "$id"
    done
}

# What comes of a machine that has this program in QEMU's place, while its neighbour has QEMU.
attacked_by() {
    configured '[qemu]' "path = \"$base/attackers/$1\"" '[machine]' 'accel = "tcg"' 'allow_tcg = true'
    shift
    run_shown creel create "$@" || true
    configured
}

a_taken_over_qemu_that_takes_memory_without_end_is_stopped_at_its_machine_s_limit() {
    mark
    attacked_by memory --memory-limit-mib 130
    has "$err" "out of memory (the machine's limit of 130 MiB; peak 130 MiB)"
    neighbour_answers
}

one_that_makes_processes_without_end_is_stopped_at_its_machine_s_limit() {
    local most made
    most=$(cat "$holder/m-$(cat "$state/machine.main")/vm/pids.max")
    attacked_by processes
    has "$err" "made "
    made=$(sed -n 's/.*made \([0-9]*\) processes.*/\1/p' "$err")
    echo "    $made processes of $most"
    # Itself is one.
    ((made == most - 1))
    neighbour_answers
}

# pgrep fails where there is none, which the trap of a check would tell in the middle of this.
sixteen_compute() { (($(pgrep -cx processor || true) >= 16)); }
cpu_us() { awk '$1 == "usage_usec" { print $2 }' "$holder/m-$1/vm/cpu.stat"; }

one_that_computes_without_end_leaves_its_neighbour_its_share() {
    shared main
    local neighbour=$id before gained
    # What it says goes into files of its own.
    (out=$state/attack.out err=$state/attack.err && attacked_by processor) >"$state/attack" 2>&1 &
    local attack=$!
    eventually 20 sixteen_compute
    # What the neighbour gets in five seconds of wanting one of the two processors, beside sixteen that want both.
    before=$(cpu_us "$neighbour")
    expect 0 creel exec "$neighbour" -- sh -c 'timeout 5 sh -c "while :; do :; done" || true'
    gained=$(($(cpu_us "$neighbour") - before))
    sixteen_compute
    echo "    the neighbour had $gained us of CPU time in five seconds"
    record_note "beside 16 processes that compute in QEMU's place, a machine that wants a CPU for 5 s has it for $((gained / 1000)) ms"
    ((gained > 2000000))
    pkill -KILL -x processor
    wait "$attack"
    cat "$state/attack"
    has "$state/attack" "QEMU: signal 9"
    id=$neighbour
    neighbour_answers
}

# The last one here: the creeld that returns ends the neighbour too.
the_keeper_records_a_kill_for_memory_while_creeld_is_away() {
    # It returns when it is told to, below.
    drop_in away RestartSec=120
    created --memory-limit-mib 130
    local machine=$holder/m-$id directory=/run/creel/m-$id keeper qemu creeld
    keeper=$(keeper_of "$id")
    qemu=$(qemu_of "$id")
    creeld=$(main_pid)
    # It goes on by itself, and begins when creeld is away.
    expect 0 creel exec "$id" -- sh -c "(sleep 8; exec awk '$(hold_mib 180)') </dev/null >/dev/null 2>&1 &"
    mark
    kill -KILL "$creeld"
    eventually 5 test ! -e "/proc/$creeld"
    # It lives still, or none of this says anything.
    kill -0 "$qemu"
    eventually 60 test -e "$directory/exit-qemu.json"
    cat "$directory/exit-qemu.json"
    same "$(jq .end.signalled.signal "$directory/exit-qemu.json")" 9 "the signal that ended QEMU"
    eventually 10 test -e "$directory/keeper-done.json"
    same "$(jq -c '[.ending, .left_behind]' "$directory/keeper-done.json")" '[{"process_ended":{"process":"qemu"}},[]]' \
        "why the keeper is done, and what it left"
    # It has nothing more to do. What it wrote, and what the kernel counted, stays for a creeld to come.
    eventually 10 not kill -0 "$keeper"
    eventually 10 grep -x 'populated 0' "$machine/cgroup.events"
    grep -x 'populated 0' "$machine/vm/cgroup.events"
    grep -E '^oom' "$machine/vm/memory.events" | tee "$out"
    grep -qE '^oom [1-9]' "$out"
    grep -qE '^oom_kill [1-9]' "$out"
    same "$(main_pid)" 0 "creeld's pid"
    same "$(qemu_of "$(cat "$state/machine.main")")" "$(cat "$state/neighbour")" "the neighbour's QEMU"
    restart_creeld
    eventually 30 gone "$id"
    eventually 30 no_machines
    says_what_it_ended "$id"
    no_drop_ins
    created
    answers "$id"
    expect 0 creel rm -f "$id"
}

check 60 a_neighbour_is_there
check 400 a_guest_that_uses_all_its_memory_stays_below_its_limit
check 90 over_its_memory_limit_a_machine_dies_alone_within_a_second
check 90 a_machine_that_the_slice_has_no_memory_for_is_told_apart_from_one_at_its_limit
check 90 a_guest_that_kills_a_process_of_the_step_goes_on
check 90 a_guest_kernel_out_of_memory_is_a_panic_with_its_words
check 120 qemu_killed_by_a_signal_is_told_with_its_number
check 60 the_keeper_killed_is_told
check 90 too_few_processes_are_told_with_the_limit
check 120 a_full_disk_of_the_host_is_told
check 60 usage_is_on_verdicts
check 60 a_taken_over_qemu_that_takes_memory_without_end_is_stopped_at_its_machine_s_limit
check 60 one_that_makes_processes_without_end_is_stopped_at_its_machine_s_limit
check 120 one_that_computes_without_end_leaves_its_neighbour_its_share
check 120 the_keeper_records_a_kill_for_memory_while_creeld_is_away

# shellcheck shell=bash disable=SC2009,SC2034,SC2154
# creeld dies and comes back; what is told to systemd reaches whom it should.

while_creeld_is_away_machines_stay_as_they_were() {
    drop_in away RestartSec=10
    created
    local before after pid
    before=$(of_machine "$id")
    echo "${before//$'\n'/$'\n'    }"
    echo "$id" >"$state/orphan"
    mark
    echo "$mark" >"$state/killed_at"
    pid=$(main_pid)
    kill -KILL "$pid"
    eventually 5 test ! -e "/proc/$pid"
    # A client that comes meanwhile waits in the socket.
    (begin=$EPOCHREALTIME && timeout 60 creel ps --socket /run/creel/creel.sock >"$state/waiting" 2>&1 && seconds_since "$begin" >"$state/waited") &
    local client=$!
    systemctl daemon-reload
    systemctl set-property --runtime creel.slice CPUWeight=50
    same "$(cat /sys/fs/cgroup/creel.slice/cpu.weight)" 50 "the slice's cpu.weight"
    after=$(of_machine "$id")
    diff <(echo "$before") <(echo "$after")
    # It is away still, or none of this says anything.
    same "$(main_pid)" 0 "creeld's pid"
    # What creeld has written down is there without it.
    creel debug state --json "$id" | tee "$out" | jq -c '.[0] | {stage, leases, keeper, keeper_lives}'
    jq -e '.[0] | .stage == "ready" and .keeper_lives and .leases.cid > 2' "$out"
    same "$(jq '.[0].keeper.pid' "$out")" "$(keeper_of "$id")" "the keeper's pid in the machine's record"
    kill -0 "$client"
    echo "    the client waits"
    wait "$client"
    echo "    it was served after $(cat "$state/waited") s"
    systemctl revert creel.slice
}

a_returning_creeld_ends_what_it_finds_and_says_so() {
    id=$(cat "$state/orphan")
    # Since the kill of the check before: the machine's life is in the journal too.
    mark=$(cat "$state/killed_at")
    eventually 30 gone "$id"
    eventually 30 no_machines
    says_what_it_ended "$id"
    not pgrep -x qemu-system-x86
    same "$(creel debug state --json | jq length)" 0 "records of machines"
    no_drop_ins
    restart_creeld
}

restarts() { systemctl show -p NRestarts --value creeld; }

creeld_comes_back_from_twenty_kills() {
    local kill pid before
    before=$(restarts)
    for kill in {1..20}; do
        pid=$(main_pid)
        kill -KILL "$pid"
        eventually 20 back_after "$pid" >"$state/back" || {
            cat "$state/back"
            return 1
        }
        echo "    $kill: $pid, then $(main_pid), $(cut -d: -f1 "$state/back")"
    done
    same "$(($(restarts) - before))" 20 "restarts that systemd counts"
    created
    answers "$id"
    expect 0 creel rm -f "$id"
}

a_creeld_that_hangs_is_replaced() {
    drop_in watchdog WatchdogSec=5
    restart_creeld
    mark
    local pid
    pid=$(main_pid)
    # It is left alone while it is well.
    sleep 7
    same "$(main_pid)" "$pid" "creeld's pid after more than the watchdog's time"
    kill -STOP "$pid"
    eventually 40 back_after "$pid"
    journal_says "Watchdog timeout"
    no_drop_ins
    restart_creeld
}

a_bad_configuration_is_refused_and_the_old_one_kept() {
    local pid
    pid=$(main_pid)
    configured '[cgroups]' 'max_pid = 4'
    journal | tee "$out"
    grep -qE 'creel.toml:2:.*max_pid' "$out"
    has "$out" "the old one stays in force"
    systemctl show -p StatusText --value creeld | tee "$out"
    has "$out" "configuration"
    same "$(main_pid)" "$pid" "creeld's pid"
    # The command reads that file too, and would refuse it by itself.
    created --config "$state/creel.toml"
    configured
    journal | tee "$out"
    has "$out" "the new configuration is in force"
    same "$(main_pid)" "$pid" "creeld's pid"
    answers "$id"
    expect 0 creel rm -f "$id"
}

a_stopped_creeld_ends_its_machines_first() {
    created
    creel exec "$id" -- sleep 600 >"$state/exec" 2>&1 &
    local exec_pid=$! status=0
    eventually 10 executing "$id"
    mark
    expect 0 systemctl restart creeld
    # Not later, by the one that starts.
    journal_says "creeld ended"
    journal | grep -B 20 "creeld ended" | tee "$out"
    has "$out" "machine=$id"
    has "$out" "the machine has ended"
    gone "$id"
    wait "$exec_pid" || status=$?
    cat "$state/exec"
    same "$status" 130 "exit code of the exec under it"
    eventually 20 machines
}

stopping_the_holder_ends_every_machine_and_creeld_stays() {
    created
    local first=$id second pid
    created
    second=$id
    pid=$(main_pid)
    expect 0 systemctl stop creel-machines.service
    ended_as "$first" "ended from outside"
    ended_as "$second" "ended from outside"
    same "$(main_pid)" "$pid" "creeld's pid"
    not test -e "$holder"
    # It can't make machines now, and says so; with the holder it can.
    expect 3 creel create
    has "$err" creel-machines
    expect 0 systemctl start creel-machines.service
    created
    echo "$id" >"$state/machine.main"
}

a_killed_holder_comes_back() {
    shared main
    local dead=$id pid
    pid=$(main_pid creel-machines.service)
    kill -KILL "$pid"
    # With its main process systemd ends all that is in the unit, as it does when it is told to.
    ended_as "$dead" "machine crashed (ended from outside, as stopping creel-machines.service does)"
    eventually 10 systemctl is-active creel-machines.service
    [[ $(main_pid creel-machines.service) != "$pid" ]]
    created
    echo "$id" >"$state/machine.main"
}

metrics_are_served_on_a_socket() {
    drop_in metrics 'Environment=CREEL_DAEMON__METRICS=unix:/run/creel/metrics.sock'
    restart_creeld
    expect 0 timeout 10 socat -t 5 - UNIX-CONNECT:/run/creel/metrics.sock <<<$'GET /metrics HTTP/1.1\r\nHost: creel\r\nConnection: close\r\n\r'
    has "$out" 'creel_build_info'
    has "$out" 'creel_machines{state="ready"}'
    stat -c '%a %U %G' /run/creel/metrics.sock
    same "$(stat -c %a /run/creel/metrics.sock | tail -c 2)" 0 "what others may do there"
    no_drop_ins
    restart_creeld
}

check 90 while_creeld_is_away_machines_stay_as_they_were
check 60 a_returning_creeld_ends_what_it_finds_and_says_so
check 180 creeld_comes_back_from_twenty_kills
check 90 a_creeld_that_hangs_is_replaced
check 60 a_bad_configuration_is_refused_and_the_old_one_kept
check 60 a_stopped_creeld_ends_its_machines_first
check 120 stopping_the_holder_ends_every_machine_and_creeld_stays
check 90 a_killed_holder_comes_back
check 40 metrics_are_served_on_a_socket

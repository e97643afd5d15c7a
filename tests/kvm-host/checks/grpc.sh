# shellcheck shell=bash disable=SC2154
# The control API, as a client sees it that has nothing but its .proto files: `tests/grpc/client.py`, with Python's gRPC.

client() { /usr/bin/python3 -B "$base/grpc/client.py" --stubs "$base/grpc" "$@"; }

python_drives_machines() { expect 0 client machine_life machine_bounds; }
python_uses_all_of_a_machine() { expect 0 client machine_in_use reflection; }
python_drives_workflows() { expect 0 client workflow_life workflow_fails; }
python_cancels_and_is_late() { expect 0 client workflow_bounds; }

users_of_the_workflow_level() {
    local user
    for user in alice bob; do
        useradd --create-home --groups creel-spindle "$user"
    done
    useradd --create-home nobody-s-friend
}

a_stranger_learns_that_creeld_is_healthy_and_no_more() {
    expect 0 runuser -u nobody-s-friend -- /usr/bin/python3 -B "$base/grpc/client.py" --stubs "$base/grpc" stranger
}

two_users_of_the_workflow_level_are_kept_apart() {
    local user status clients=()
    for user in alice bob; do
        mkfifo "$state/$user.in"
        runuser -u "$user" -- /usr/bin/python3 -B "$base/grpc/client.py" --stubs "$base/grpc" --owner "did:plc:$user" spindle \
            <>"$state/$user.in" >"$state/$user.out" 2>&1 &
        clients+=($!)
    done
    eventually 60 grep -qx ready "$state/alice.out"
    eventually 60 grep -qx ready "$state/bob.out"
    expect 0 runuser -u alice -- /usr/bin/python3 -B "$base/grpc/client.py" --stubs "$base/grpc" --owner did:plc:bob intruder
    expect 0 runuser -u bob -- /usr/bin/python3 -B "$base/grpc/client.py" --stubs "$base/grpc" --owner did:plc:alice intruder
    echo "go on" >"$state/alice.in"
    echo "go on" >"$state/bob.in"
    for user in alice bob; do
        status=0
        wait "${clients[0]}" || status=$?
        clients=("${clients[@]:1}")
        cat "$state/$user.out"
        same "$status" 0 "exit code of $user's client"
    done
}

check 90 python_drives_machines
check 150 python_uses_all_of_a_machine
check 120 python_drives_workflows
check 150 python_cancels_and_is_late
check 20 users_of_the_workflow_level
check 20 a_stranger_learns_that_creeld_is_healthy_and_no_more
check 120 two_users_of_the_workflow_level_are_kept_apart

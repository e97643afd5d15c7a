# shellcheck shell=bash disable=SC2154
# Bytes over kernel vsock: in, out, copied, and across connections that break. No more of them than it takes: see
# `guest_faulted`. A gibibyte each way goes through an emulated guest in tests/microvm.

# Bytes that are no text, in a file, and their digest in $digest.
noise() {
    head -c "$1" /dev/urandom >"$state/noise"
    digest=$(sha256sum <"$state/noise" | cut -d' ' -f1)
}

input_and_output_are_the_same_bytes() {
    shared main
    noise 16M
    local begin=$EPOCHREALTIME
    creel exec -i "$id" -- sha256sum <"$state/noise" >"$out"
    same "$(cut -d' ' -f1 "$out")" "$digest" "the digest of 16 MiB of input, in the guest"
    record_note "16 MiB of input took $(seconds_since "$begin") s"
    begin=$EPOCHREALTIME
    creel exec -i "$id" -- cat <"$state/noise" >"$state/back"
    same "$(sha256sum <"$state/back" | cut -d' ' -f1)" "$digest" "16 MiB there and back"
    record_note "16 MiB there and back took $(seconds_since "$begin") s"
}

a_connection_that_breaks_costs_no_byte() {
    shared main
    noise 16M
    local cid cuts=0 n number
    cid=$(field "$id" .cid)
    creel exec -i "$id" -- sh -c 'cat; exit 7' <"$state/noise" >"$state/back" &
    local copying=$!
    for number in 1 2 3 4 5; do
        sleep "0.$number"
        n=$(/usr/bin/python3 -B "$base/cut.py" "$(main_pid)" "$cid")
        cuts=$((cuts + n))
    done
    local status=0
    wait "$copying" || status=$?
    same "$status" 7 "exit code"
    same "$(sha256sum <"$state/back" | cut -d' ' -f1)" "$digest" "16 MiB there and back"
    record_note "$cuts connections were cut meanwhile"
    ((cuts > 0))
    answers "$id"
}

a_tree_is_copied_there_and_back() {
    shared main
    rm -rf "$state/tree" "$state/copy"
    mkdir -p "$state/tree/below"
    echo text >"$state/tree/file"
    chmod 640 "$state/tree/file"
    ln -s ../file "$state/tree/below/link"
    ln "$state/tree/file" "$state/tree/below/same"
    truncate -s 1G "$state/tree/hole"
    touch -d '2001-02-03 04:05:06.789' "$state/tree/below"
    expect 0 creel cp "$state/tree" "$id:/tmp/tree"
    expect 0 creel cp "$id:/tmp/tree" "$state/copy"
    diff -r "$state/tree" "$state/copy"
    same "$(cd "$state/copy" && find . -printf '%P %y %m %T@ %l\n' | sort)" \
        "$(cd "$state/tree" && find . -printf '%P %y %m %T@ %l\n' | sort)" "names, kinds, modes, times and links"
    same "$(stat -c %i "$state/copy/file")" "$(stat -c %i "$state/copy/below/same")" "a hard link"
    (($(stat -c %b "$state/copy/hole") < 100))
}

check 90 input_and_output_are_the_same_bytes
check 90 a_connection_that_breaks_costs_no_byte
check 60 a_tree_is_copied_there_and_back

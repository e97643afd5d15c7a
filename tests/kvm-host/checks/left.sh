# shellcheck shell=bash disable=SC2009,SC2034,SC2154
# At the end of it all.

nothing_is_left() {
    if command -v creel >/dev/null; then
        # Topics were left out, and with them the end of what they share.
        machines | jq -r '.[].id' | xargs -r creel rm -f
    fi
    # Of the package only the holder may run, where it is installed.
    ps -eo pid,args | grep -E '[c]reel-keeper|[c]reel run|[v]host-device|[q]emu' | grep -v -- --hold >"$out" || true
    same "$(wc -l <"$out")" 0 "processes: $(cat "$out")"
    not compgen -G "$holder/m-*"
    not compgen -G '/run/creel/m-*'
    losetup --list
    same "$(losetup --list --noheadings | wc -l)" 0 "loop devices"
    same "$(find /proc/[0-9]*/fd -lname /dev/vhost-vsock 2>/dev/null | wc -l)" 0 "descriptors of the vsock device"
}

no_machine_was_left_by_an_end_that_failed() {
    journalctl -u creeld -o cat | grep -E 'failed to (free|remove)' | tee "$out" || true
    same "$(wc -l <"$out")" 0 "complaints of creeld"
}

check 30 nothing_is_left
check 20 no_machine_was_left_by_an_end_that_failed

# shellcheck shell=bash disable=SC2009,SC2034,SC2154
# Who is let in: at the vsock ports that guests dial, and at the control socket.

# Users of the host: nobody's friend, an operator, a runner of workflows.
there_are_users() {
    useradd --create-home stranger
    useradd --create-home --groups creel ada
    useradd --create-home --groups creel-spindle runner
    id stranger && id ada && id runner
}

as() { runuser -u "$1" -- "${@:2}"; }

# A machine that can dial as any process of a guest may: with socat in its image.
image_that_dials() {
    [[ -e $state/overlay ]] && return
    local file
    mkdir -p "$state/overlay"
    for file in /usr/bin/socat $(ldd /usr/bin/socat | grep -oE '/[^ ]+'); do
        install -D -m 755 "$(realpath "$file")" "$state/overlay$file"
    done
    expect 0 creel image build tiny --name dials --overlay "$state/overlay"
}

# Those that guests dial (creeld-vsock.socket): for their agents, nix's reads and uploads, DNS.
vsock_ports=(824 825 826 827)

a_host_process_that_dials_a_port_of_the_guests_is_turned_away() {
    # With it every process of the host reaches ports of the host.
    modprobe vsock_loopback
    local port user cid
    mark
    for port in "${vsock_ports[@]}"; do
        for user in stranger root; do
            # 1 is this host by the loopback's name, 2 by the one that guests use.
            for cid in 1 2; do
                expect 0 as "$user" timeout 10 socat -u "VSOCK-CONNECT:$cid:$port" STDOUT
                same "$(wc -c <"$out")" 0 "bytes that it was given"
            done
        done
    done
    for port in "${vsock_ports[@]}"; do
        # As many as are told one by one in a minute, which each port has for itself.
        eventually 10 refused_at "$port" 4
    done
    journal | grep -F "refused a vsock connection"
    # The same dial at a port that somebody serves.
    timeout 20 socat -u SYSTEM:'echo served' VSOCK-LISTEN:1824 &
    sleep 1
    expect 0 as stranger timeout 10 socat -u VSOCK-CONNECT:1:1824 STDOUT
    has "$out" served
}
# refused_at PORT COUNT
refused_at() {
    local refused="refused a vsock connection: it comes from a process of this host"
    [[ $(journal | grep -F "$refused" | grep -cw "port=$1") == "$2" ]]
}

nobody_can_bind_the_ports() {
    local port
    for port in "${vsock_ports[@]}"; do
        expect 1 as stranger timeout 5 socat -u "VSOCK-LISTEN:$port" STDOUT
        has "$err" "Permission denied"
        expect 1 timeout 5 socat -u "VSOCK-LISTEN:$port" STDOUT
        has "$err" "Address already in use"
    done
    # The same works at a port that nobody has.
    expect 124 timeout 1 socat -u VSOCK-LISTEN:1824 STDOUT
}

a_second_process_of_a_guest_is_turned_away() {
    image_that_dials
    created --image dials
    mark
    expect 0 creel exec "$id" -- socat -u VSOCK-CONNECT:2:824 STDOUT
    same "$(wc -c <"$out")" 0 "bytes that it was given"
    journal_says "turned a connection away that was not the agent's"
    journal | grep "turned a connection away" | tee "$out"
    has "$out" "machine=$id"
    # Its agent's own connection is as it was.
    answers "$id"
    expect 0 creel rm -f "$id"
}

a_guest_that_is_not_creelds_is_turned_away() {
    local image qemu_pid
    image=$(realpath /var/lib/creel/images/tiny)
    mark
    timeout 60 qemu-system-x86_64 -M microvm,accel=kvm,acpi=on,pcie=off,pic=off,pit=off,rtc=on -cpu host -m 256 \
        -nodefaults -no-user-config -no-reboot -display none -serial none \
        -kernel "$image/vmlinux" -initrd "$image/initrd" \
        -append "reboot=t panic=-1 creel.root=erofs shuttle.vsock_port=824" \
        -drive "if=none,id=store,file=$image/store.erofs,format=raw,readonly=on" \
        -device virtio-blk-device,drive=store,serial=creel-store -device vhost-vsock-device,guest-cid=4242 \
        >"$state/stranger" 2>&1 &
    qemu_pid=$!
    eventually 40 journal_has 4242 || cat "$state/stranger"
    kill "$qemu_pid"
    wait "$qemu_pid" || true
    journal | grep 4242 | tee "$out"
    has "$out" "refused"
    has "$out" "cid=4242 port=824"
}

strangers_are_refused_at_the_control_socket() {
    expect 3 as stranger creel ps
    has "$err" "creel"
    grep -qE 'group|member' "$err"
    expect 3 as stranger creel create
    expect 3 as runner creel create
    grep -qE 'creel-spindle|operator|group' "$err"
    expect 3 as runner creel ps
    expect 0 as ada creel ps
    expect 0 creel ps
}

an_operator_creates_and_ends_a_machine() {
    expect 0 as ada creel create
    id=$(cat "$out")
    same "$(field "$id" .creator_uid)" "$(id -u ada)" "its creator"
    expect 0 as ada creel exec "$id" -- echo "an operator was here"
    expect 3 as stranger creel exec "$id" -- true
    expect 3 as stranger creel rm "$id"
    same "$(field "$id" .state)" ready "its state after a stranger's rm"
    expect 0 as ada creel rm "$id"
    gone "$id"
}

a_stranger_runs_embedded_and_is_told_why() {
    # The images are everybody's; KVM is group kvm's.
    usermod --append --groups kvm stranger
    cp -r "$state/repository" /home/stranger/repository 2>/dev/null || {
        git init -q -b main /home/stranger/repository
        git -C /home/stranger/repository -c user.name=t -c user.email=t@localhost commit -q --allow-empty -m x
    }
    chown -R stranger: /home/stranger/repository
    cd /home/stranger/repository || return
    expect 0 as stranger env HOME=/home/stranger creel run -f "$base/workflows/works.yml"
    has "$err" "running without creeld"
    has "$out" "it runs"
    # Asked for, creeld's refusal is the end.
    expect 3 as stranger env HOME=/home/stranger creel run --socket /run/creel/creel.sock -f "$base/workflows/works.yml"
}

check 30 there_are_users
check 90 a_host_process_that_dials_a_port_of_the_guests_is_turned_away
check 30 nobody_can_bind_the_ports
check 90 a_second_process_of_a_guest_is_turned_away
check 90 a_guest_that_is_not_creelds_is_turned_away
check 30 strangers_are_refused_at_the_control_socket
check 60 an_operator_creates_and_ends_a_machine
check 90 a_stranger_runs_embedded_and_is_told_why

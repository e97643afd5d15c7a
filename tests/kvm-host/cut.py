#!/usr/bin/python3
"""cut.py PID CID: shuts down each vsock connection that process PID has with guest CID, and prints how many there were.

Both ends see the connection end, as when it breaks. Its descriptor is borrowed by pidfd_getfd(2).
"""

import ctypes
import os
import socket
import sys

PIDFD_GETFD = 438  # The same number on every architecture.


def main() -> None:
    pid, cid = int(sys.argv[1]), int(sys.argv[2])
    libc = ctypes.CDLL(None, use_errno=True)
    pidfd = os.pidfd_open(pid)
    cut = 0
    for number in os.listdir(f"/proc/{pid}/fd"):
        try:
            if not os.readlink(f"/proc/{pid}/fd/{number}").startswith("socket:"):
                continue
        except FileNotFoundError:
            continue
        borrowed = libc.syscall(PIDFD_GETFD, pidfd, int(number), 0)
        if borrowed < 0:
            continue
        with socket.socket(fileno=borrowed) as connection:
            if connection.family != socket.AF_VSOCK:
                continue
            try:
                peer = connection.getpeername()
            except OSError:
                continue
            if peer[0] == cid:
                connection.shutdown(socket.SHUT_RDWR)
                cut += 1
    print(cut)


main()

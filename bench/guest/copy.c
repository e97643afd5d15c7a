// The least that carries a pipe out of a guest: read(2), write(2), nothing else. What creel's agent is held against.
// Its standard input goes to the host's vsock port that its one argument names.
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include <linux/vm_sockets.h>

int main(int argc, char **argv) {
    static char buffer[64 << 10];
    struct sockaddr_vm host = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST};
    if (argc != 2) return 2;
    host.svm_port = strtoul(argv[1], NULL, 10);
    int out = socket(AF_VSOCK, SOCK_STREAM, 0);
    if (out < 0 || connect(out, (struct sockaddr *)&host, sizeof host) < 0) return 3;
    ssize_t got;
    while ((got = read(0, buffer, sizeof buffer)) > 0) {
        for (ssize_t done = 0, put; done < got; done += put) {
            put = write(out, buffer + done, got - done);
            if (put < 0) return 4;
        }
    }
    return got < 0 ? 5 : 0;
}

/* Runs in QEMU's place, in its jail, and tries what somebody would who had taken QEMU over. It says what came of each attempt
 * on standard output, which is the machine's console, as "name: result", and ends. See jail.rs. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static void say(const char *name, long result) {
    if (result < 0)
        printf("attack %s: %s\n", name, strerrorname_np(errno));
    else
        printf("attack %s: done\n", name);
    fflush(stdout);
}

static long opened(const char *path, int flags) {
    int fd = open(path, flags, 0600);
    if (fd >= 0) close(fd);
    return fd;
}

static long connected(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0) return -1;
    long result = connect(fd, (struct sockaddr *)&address, sizeof address);
    int error = errno;
    close(fd);
    errno = error;
    return result;
}

/* What becomes of a child that does this. */
static void in_child(const char *name, void (*act)(void)) {
    pid_t child = fork();
    if (child < 0) { say(name, -1); return; }
    if (child == 0) { act(); _exit(0); }
    int status = 0;
    waitpid(child, &status, 0);
    if (WIFSIGNALED(status)) printf("attack %s: killed by %s\n", name, sigabbrev_np(WTERMSIG(status)));
    else printf("attack %s: done\n", name);
    fflush(stdout);
}

static void old_call(void) {
#ifdef __x86_64__
    /* getpid of 32-bit programs. */
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(20) : "memory");
#endif
}

/* What it may write, made longer than any disk of the host. */
static void grow(void) {
    for (int fd = 0; fd < 64; fd++) {
        struct stat status;
        if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && (fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDONLY)
            if (ftruncate(fd, status.st_size + (1 << 20)) == 0) printf("file %d is longer now\n", fd);
    }
}

static void x32_call(void) {
    syscall(0x40000000 | SYS_getpid);
}

static void forks(void) {
    int count = 0;
    pid_t children[600];
    while (count < 600) {
        pid_t child = fork();
        if (child < 0) break;
        if (child == 0) { pause(); _exit(0); }
        children[count++] = child;
    }
    say("forking without end", count < 600 ? -1 : 0);
    for (int i = 0; i < count; i++) { kill(children[i], SIGKILL); waitpid(children[i], 0, 0); }
}

static void descriptors(void) {
    int highest = 0, directories = 0;
    for (int fd = 0; fd < 4096; fd++) {
        struct stat status;
        if (fstat(fd, &status) < 0) continue;
        highest = fd;
        if (S_ISDIR(status.st_mode)) directories++;
    }
    printf("directories that it has open: %d of %d descriptors\n", directories, highest + 1);
    int fd;
    do fd = dup(0); while (fd >= 0);
    say("opening without end", -1);
    for (int each = highest + 1; each < 1 << 20; each++) if (close(each) < 0 && each > 1 << 16) break;
}

int main(int count, char **arguments) {
    if (count > 1 && strcmp(arguments[1], "--version") == 0) {
        puts("QEMU emulator version 7.2.0 (an attacker)");
        return 0;
    }
#ifdef STAYS
    /* A name that is no text. */
    prctl(PR_SET_NAME, "\xff) \xfe");
    for (;;) pause();
#endif
    printf("who: uid %u, gid %u, pid %d, in %s\n", getuid(), getgid(), getpid(), getcwd(0, 0));

    say("reading the host's users", opened("/etc/passwd", O_RDONLY));
    say("reading /proc", opened("/proc/1/status", O_RDONLY));
    say("writing /proc/sys", opened("/proc/sys/kernel/core_pattern", O_WRONLY));
    say("reading /sys", opened("/sys/kernel", O_RDONLY));
    say("reading other machines", opened("/run/creel", O_RDONLY));
    say("reading the host's memory", opened("/dev/mem", O_RDONLY));
    say("taking another machine's address", opened("/dev/vhost-vsock", O_RDWR));
    say("changing the kernel that machines boot", opened("/kernel", O_WRONLY));
    say("changing QEMU", opened("/usr/share/qemu/x", O_CREAT | O_WRONLY));
    say("making a file", opened("/x", O_CREAT | O_WRONLY));
    say("making a file where it may make sockets", opened("/sockets/x", O_CREAT | O_WRONLY));
    say("removing a socket", unlink("/sockets/vsock_824"));
    say("making a device", mknod("/sockets/d", S_IFCHR | 0600, 0x0101));
    say("leaving by ..", opened("../../../../etc/passwd", O_RDONLY));
    say("asking the daemon", connected("/run/creel/creel.sock"));

    say("a vsock socket", socket(AF_VSOCK, SOCK_STREAM, 0));
    say("a network socket", socket(AF_INET, SOCK_STREAM, 0));
    say("a netlink socket", socket(AF_NETLINK, SOCK_RAW, 0));
    say("a packet socket", socket(AF_PACKET, SOCK_RAW, 0));
    say("io_uring", syscall(SYS_io_uring_setup, 1, 0));
    in_child("a 32-bit call", old_call);
    in_child("an x32 call", x32_call);

    say("mounting", mount("none", "/", "tmpfs", 0, 0));
    say("unmounting", umount2("/dev/null", MNT_DETACH));
    say("the new way to mount", syscall(SYS_fsopen, "tmpfs", 0));
    say("a user namespace", unshare(CLONE_NEWUSER));
    say("a user namespace by clone", syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0));
    say("a user namespace by clone3", syscall(SYS_clone3, 0, 0));
    say("entering a namespace", setns(0, 0));
    say("another root", chroot("/usr"));
    say("opening by handle", syscall(SYS_open_by_handle_at, 0, 0, 0));

    say("tracing the keeper", ptrace(PTRACE_ATTACH, 1, 0, 0));
    say("reading the keeper's memory", syscall(SYS_process_vm_readv, 1, 0, 0, 0, 0, 0));
    say("taking the keeper's descriptors", syscall(SYS_pidfd_getfd, 0, 0, 0));
    kill(1, SIGTERM);
    kill(1, SIGKILL);

    say("becoming root", setuid(0));
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct all[2] = {{~0u, ~0u, ~0u}, {~0u, ~0u, ~0u}};
    say("taking capabilities", syscall(SYS_capset, &header, all));
    say("a key", syscall(SYS_keyctl, 0, 0, 0, 0, 0));
    say("a BPF program", syscall(SYS_bpf, 0, 0, 0));
    say("performance counters", syscall(SYS_perf_event_open, 0, 0, 0, 0, 0));
    say("userfaultfd", syscall(SYS_userfaultfd, 0));
    say("a kernel module", syscall(SYS_finit_module, 0, "", 0));
    say("another kernel", syscall(SYS_kexec_load, 0, 0, 0, 0));
    say("a restart", syscall(SYS_reboot, 0, 0, 0, 0));
    say("another host name", sethostname("x", 1));
    say("another time", syscall(SYS_settimeofday, 0, 0));
    say("typing into a terminal", syscall(SYS_ioctl, 0, 0x5412, "x"));

    in_child("making a disk longer", grow);

    struct rlimit core = {0, 0};
    getrlimit(RLIMIT_CORE, &core);
    printf("core dumps: %s\n", core.rlim_max <= 1 ? "none" : "some");
    descriptors();
    forks();
    /* Left behind, in a session of its own. */
    if (fork() == 0) { setsid(); for (;;) pause(); }
    puts("that was all");
    fflush(stdout);
#ifdef HELPER
    /* Until somebody has read it. */
    for (;;) pause();
#endif
    return 0;
}

/*
 * The app of most system tests: does what its arguments say, one word after the other, in one process.
 * A shell would start a process for each word, and a process costs seconds where KVM is software.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static void hex(const char *name, const unsigned char *bytes, int count) {
    printf("%s ", name);
    for (int at = 0; at < count; at++) printf("%02x", bytes[at]);
    printf("\n");
}

/* The lines of a file that begin with one of the names, or all of them. */
static void lines(const char *path, const char *const *names) {
    char line[4096];
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        printf("%s %s\n", path, strerrorname_np(errno));
        return;
    }
    while (fgets(line, sizeof line, file) != NULL)
        for (const char *const *name = names; *name != NULL; name++)
            if (strncmp(line, *name, strlen(*name)) == 0) fputs(line, stdout);
    fclose(file);
}

static void facts(void) {
    static const char *const status[] = {"Cap", "NoNewPrivs:", "Seccomp:", "Uid:", "Gid:", "Groups:", NULL};
    struct utsname system;
    char cwd[PATH_MAX];
    uname(&system);
    printf("release %s\nhost %s\npid %d\n", system.release, system.nodename, getpid());
    printf("cwd %s\n", getcwd(cwd, sizeof cwd) == NULL ? "none" : cwd);
    printf("processors %ld\n", sysconf(_SC_NPROCESSORS_ONLN));
    lines("/proc/self/status", status);
    for (char **entry = environ; *entry != NULL; entry++) printf("env:%s\n", *entry);
}

/* Everything that two machines restored from one template must not have in common. */
static void unique(void) {
    unsigned char bytes[32];
    char text[64] = {0}, name[] = "/tmp/XXXXXX";
    struct timespec now;
    static const char *const files[] = {"boot_id", "uuid", NULL};
    for (const char *const *file = files; *file != NULL; file++) {
        char path[64];
        snprintf(path, sizeof path, "/proc/sys/kernel/random/%s", *file);
        int fd = open(path, O_RDONLY);
        ssize_t count = fd < 0 ? -1 : read(fd, text, 36);
        printf("%s %.*s\n", *file, count < 0 ? 0 : (int)count, text);
        close(fd);
    }
    int fd = open("/dev/urandom", O_RDONLY);
    if (read(fd, bytes, sizeof bytes) == sizeof bytes) hex("urandom", bytes, sizeof bytes);
    close(fd);
    if (getrandom(bytes, sizeof bytes, 0) == sizeof bytes) hex("getrandom", bytes, sizeof bytes);
    hex("at_random", (const unsigned char *)getauxval(AT_RANDOM), 16);
    printf("stack %p\nvdso %lx\n", (void *)&now, getauxval(AT_SYSINFO_EHDR));
    printf("temporary %s\n", mkstemp(name) < 0 ? strerrorname_np(errno) : name);
    clock_gettime(CLOCK_REALTIME, &now);
    printf("clock %lld\n", (long long)now.tv_sec);
    clock_gettime(CLOCK_MONOTONIC, &now);
    printf("uptime_ms %lld\n", (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000);
}

static void outcome(const char *word, const char *what, int failed) {
    printf("%s %s %s\n", word, what, failed ? strerrorname_np(errno) : "ok");
}

/* Whether a file can be opened so. */
static void opens(const char *word, const char *what, int flags) {
    int fd = open(what, flags, 0600);
    outcome(word, what, fd < 0);
    close(fd);
}

/* A node of the named kind and number, made and opened where the app may write. */
/* What a file system knows a file by, of whatever mount (open_by_handle_at(2)), in hexadecimal digits. */
static void handle(const char *what) {
    union { struct file_handle head; unsigned char bytes[sizeof(struct file_handle) + MAX_HANDLE_SZ]; } found;
    int mount;
    found.head.handle_bytes = MAX_HANDLE_SZ;
    if (name_to_handle_at(AT_FDCWD, what, &found.head, &mount, 0) < 0)
        printf("handle %s\n", strerrorname_np(errno));
    else
        hex("handle", found.bytes, sizeof found.head + found.head.handle_bytes);
}

/* Opens what these digits stand for, by the mount at /x. */
static void grab(const char *word, const char *digits) {
    union { struct file_handle head; unsigned char bytes[sizeof(struct file_handle) + MAX_HANDLE_SZ]; } wanted = {0};
    for (size_t at = 0; at < sizeof wanted.bytes && digits[2 * at] != 0; at++)
        sscanf(digits + 2 * at, "%2hhx", &wanted.bytes[at]);
    int mount = open("/x", O_RDONLY);
    outcome(word, "/x", open_by_handle_at(mount, &wanted.head, O_RDONLY) < 0);
    close(mount);
}

/* Whether somebody who listens at a path can be reached. */
static void reach(const char *word, const char *what) {
    struct sockaddr_un place = {.sun_family = AF_UNIX};
    snprintf(place.sun_path, sizeof place.sun_path, "%s", what);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    outcome(word, what, connect(fd, (struct sockaddr *)&place, sizeof place));
    close(fd);
}

static void node(const char *what) {
    char kind;
    unsigned int major_number, minor_number;
    if (sscanf(what, "%c%u:%u", &kind, &major_number, &minor_number) != 3) return;
    mode_t mode = (kind == 'b' ? S_IFBLK : S_IFCHR) | 0600;
    int failed = mknod("/tmp/node", mode, makedev(major_number, minor_number));
    outcome("mknod", what, failed);
    if (failed) return;
    int fd = open("/tmp/node", O_RDONLY | O_NONBLOCK);
    outcome("opens", what, fd < 0);
    close(fd);
    unlink("/tmp/node");
}

static void descriptors(void) {
    DIR *directory = opendir("/proc/self/fd");
    printf("descriptors");
    for (struct dirent *entry; directory != NULL && (entry = readdir(directory)) != NULL;)
        if (entry->d_name[0] != '.' && atoi(entry->d_name) != dirfd(directory)) printf(" %s", entry->d_name);
    printf("\n");
}

/* Writes more than a few blocks, has them on the disk, and takes them off it again. */
static void churn(const char *path) {
    static char buffer[1 << 16];
    int fd = open(path, O_CREAT | O_WRONLY, 0600);
    int failed = fd < 0;
    for (int at = 0; at < 32 && !failed; at++) failed = write(fd, buffer, sizeof buffer) < 0;
    failed = failed || fsync(fd) < 0 || close(fd) < 0 || unlink(path) < 0;
    sync();
    outcome("churn", path, failed);
}

static void slurp(const char *path) {
    static char buffer[1 << 16];
    long long total = 0;
    int fd = open(path, O_RDONLY);
    ssize_t count = fd < 0 ? -1 : 0;
    while (fd >= 0 && (count = read(fd, buffer, sizeof buffer)) > 0) total += count;
    if (count < 0) printf("slurp %s %s after %lld\n", path, strerrorname_np(errno), total);
    else printf("slurp %s ok %lld\n", path, total);
    close(fd);
}

/* Numbered lines of 64 bytes, so many that they are at least `total` bytes. */
static void flood(long long total) {
    char line[80];
    for (long long at = 0; at < total; at += 64) {
        snprintf(line, sizeof line, "%063lld\n", at);
        fwrite(line, 1, 64, stdout);
    }
}

/* Writes so many bytes to a file, 16 KiB at a time, each on the disk before the next. */
static void fill(long long total) {
    static char buffer[1 << 14];
    int fd = open("/tmp/fill", O_CREAT | O_WRONLY | O_DSYNC, 0600);
    ssize_t count = fd < 0 ? -1 : 1;
    for (long long at = 0; at < total && count > 0; at += count) count = write(fd, buffer, sizeof buffer);
    outcome("fill", "/tmp/fill", count < 0);
    close(fd);
}

static unsigned char pattern(long long at) { return (unsigned char)((at * 2654435761u) >> 24); }

/* Writes so many bytes that no other file has, or looks whether they are still there. */
static void keep(const char *word, long long total, int check) {
    static unsigned char buffer[1 << 14];
    int fd = open("/keep", check ? O_RDONLY : O_CREAT | O_WRONLY, 0600);
    int failed = fd < 0;
    for (long long at = 0; at < total && !failed; at += sizeof buffer) {
        if (check && read(fd, buffer, sizeof buffer) != sizeof buffer) failed = 1;
        for (int byte = 0; byte < (int)sizeof buffer && !failed; byte++) {
            if (check) failed = buffer[byte] != pattern(at + byte);
            else buffer[byte] = pattern(at + byte);
        }
        if (!check && !failed) failed = write(fd, buffer, sizeof buffer) != sizeof buffer;
    }
    outcome(word, "/keep", failed || fsync(fd) != 0);
    close(fd);
}

/* Bytes of the file system that the root is on. */
static void space(void) {
    struct statvfs facts;
    if (statvfs("/", &facts) == 0)
        printf("space %lld\n", (long long)facts.f_blocks * (long long)facts.f_frsize);
}

/* Takes so many bytes of the disk at once, and uses the last of them. */
static void claim(long long total) {
    int fd = open("/claim", O_CREAT | O_RDWR, 0600);
    char byte = 0;
    errno = fd < 0 ? errno : posix_fallocate(fd, 0, total);
    int failed = errno != 0;
    if (!failed)
        failed = pwrite(fd, "x", 1, total - 1) != 1 || fsync(fd) != 0 || pread(fd, &byte, 1, total - 1) != 1 || byte != 'x';
    outcome("claim", "/claim", failed);
    close(fd);
}

static void on_term(int number) {
    static const char text[] = "heard TERM\n";
    (void)number;
    if (write(1, text, sizeof text - 1) < 0) _exit(1);
    _exit(9);
}

static void copy(void) {
    static char buffer[1 << 16];
    ssize_t count;
    while ((count = read(0, buffer, sizeof buffer)) > 0) fwrite(buffer, 1, (size_t)count, stdout);
}

static void line(void) {
    char text[256];
    if (fgets(text, sizeof text, stdin) == NULL) strcpy(text, "end\n");
    printf("line %s", text);
}

static void eat(void) {
    for (;;) {
        volatile char *block = malloc(1 << 20);
        for (int at = 0; block != NULL && at < 1 << 20; at += 4096) block[at] = 1;
    }
}

/* Touches so many MiB, and gives them back to the kernel when it is told to. */
static void borrow(int mib) {
    size_t size = (size_t)mib << 20;
    volatile char *block = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (size_t at = 0; block != MAP_FAILED && at < size; at += 4096) block[at] = 1;
    outcome("borrow", "memory", block == MAP_FAILED);
    fflush(NULL);
    line();
    outcome("return", "memory", munmap((void *)block, size));
}

/* Makes these system calls, numbers with commas between them, with arguments that are nothing. */
static void calls(const char *numbers) {
    for (const char *at = numbers; *at != 0; at += strspn(at, ",")) {
        char *end;
        long number = strtol(at, &end, 10);
        errno = 0;
        syscall(number, 0, 0, 0, 0, 0, 0);
        printf("call %ld %d\n", number, errno);
        at = end;
    }
}

/* Of a process that is being started beside this one, until stdin ends: whatever can be seen that is not the app's. */
static void prowl(void) {
    static const char *const names[] = {"exe", "root", "cwd", "fd/0", "fd/3", "fd/4", "fd/5", "fd/6", "fd/7", "fd/8", "fd/9", "fd/10", "fd/12"};
    int self = getpid(), met = 0;
    fcntl(0, F_SETFL, O_NONBLOCK);
    char byte;
    while (read(0, &byte, 1) != 0) {
        for (int pid = 2; pid < 4000; pid++) {
            char path[64], what[256], text[64] = "";
            snprintf(path, sizeof path, "/proc/%d/comm", pid);
            int comm = pid == self ? -1 : open(path, O_RDONLY);
            if (comm < 0) continue;
            ssize_t length = read(comm, text, sizeof text - 1);
            close(comm);
            if (length <= 0 || strstr(text, "casemate") == NULL) continue;
            met = 1;
            for (size_t at = 0; at < sizeof names / sizeof *names; at++) {
                snprintf(path, sizeof path, "/proc/%d/%s", pid, names[at]);
                ssize_t count = readlink(path, what, sizeof what - 1);
                int fd = open(path, O_RDWR | O_NONBLOCK), listed = fd < 0 ? open(path, O_RDONLY | O_NONBLOCK) : fd;
                /* Between the two it may have become the app's: what was opened is then judged by itself. */
                char opened[64];
                snprintf(opened, sizeof opened, "/proc/self/fd/%d", listed);
                if (count < 0 && listed >= 0) count = readlink(opened, what, sizeof what - 1);
                what[count < 0 ? 0 : count] = 0;
                int is_own = strncmp(what, "/bin/", 5) == 0 || strcmp(what, "/") == 0 || strncmp(what, "pipe:", 5) == 0 || strncmp(what, "/dev/", 5) == 0;
                if ((count >= 0 || listed >= 0) && !is_own) printf("saw %s %s\n", path, what);
                if (listed >= 0) close(listed);
            }
        }
    }
    printf("prowled %s\n", met ? "met" : "alone");
}

/* A fault, not raise(): the first process of a namespace can ignore a signal, but not this. */
static int *volatile nowhere;

/* Words without an argument; 0 when it is none of them. */
static int plain(const char *word) {
    static const struct {
        const char *name;
        void (*run)(void);
    } words[] = {{"facts", facts}, {"unique", unique}, {"fds", descriptors}, {"cat", copy}, {"line", line}, {"eat", eat}, {"space", space}, {"prowl", prowl}};
    for (size_t at = 0; at < sizeof words / sizeof *words; at++)
        if (strcmp(word, words[at].name) == 0) return words[at].run(), 1;
    if (strcmp(word, "crash") == 0) return *nowhere = 0, 1;
    if (strcmp(word, "trap") == 0) return signal(SIGTERM, on_term), 1;
    if (strcmp(word, "deaf") == 0) return signal(SIGTERM, SIG_IGN), 1;
    if (strcmp(word, "hold") == 0)
        for (;;) pause();
    return 0;
}

static void with(const char *word, const char *what) {
    if (strcmp(word, "say") == 0) printf("%s\n", what);
    if (strcmp(word, "err") == 0) fprintf(stderr, "%s\n", what);
    if (strcmp(word, "touch") == 0) opens(word, what, O_CREAT | O_WRONLY);
    if (strcmp(word, "see") == 0) outcome(word, what, access(what, F_OK));
    if (strcmp(word, "write") == 0) opens(word, what, O_WRONLY);
    if (strcmp(word, "handle") == 0) handle(what);
    if (strcmp(word, "grab") == 0) grab(word, what);
    if (strcmp(word, "reach") == 0) reach(word, what);
    if (strcmp(word, "node") == 0) node(what);
    if (strcmp(word, "slurp") == 0) slurp(what);
    if (strcmp(word, "churn") == 0) churn(what);
    if (strcmp(word, "flood") == 0) flood(atoll(what));
    if (strcmp(word, "fill") == 0) fill(atoll(what));
    if (strcmp(word, "keep") == 0) keep(word, atoll(what), 0);
    if (strcmp(word, "check") == 0) keep(word, atoll(what), 1);
    if (strcmp(word, "claim") == 0) claim(atoll(what));
    if (strcmp(word, "borrow") == 0) borrow(atoi(what));
    if (strcmp(word, "calls") == 0) calls(what);
    if (strcmp(word, "exit") == 0) {
        fflush(NULL);
        _exit(atoi(what));
    }
}

int main(int count, char **words) {
    for (int at = 1; at < count; at++) {
        if (!plain(words[at]) && at + 1 < count) {
            with(words[at], words[at + 1]);
            at++;
        }
        fflush(NULL);
    }
    return 0;
}

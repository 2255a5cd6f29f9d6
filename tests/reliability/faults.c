/* Faults at file-system calls: a library that is loaded before all others (LD_PRELOAD) and stands between a process
 * and the calls by which it changes files, or reads them. Python's calls pass here, and DuckDB's and SQLite's.
 *
 * A call counts where its path, or the path of its descriptor, lies below the root. All processes of a tree share one
 * counter: it lies in the file that SEEKNAL_FAULTS names, which whoever arms the library maps as well (faults.py). The
 * k-th call that counts is where the fault happens.
 *
 * Calls that make data durable count, and do nothing: a process that is killed loses nothing that it wrote.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

/* What a call does, as bits. */
enum { MAKE = 1, WRITE = 2, NAME = 4, REMOVE = 8, CHANGE = 16, SYNC = 32, READ = 64 };

/* What happens at the k-th call. */
enum { NOTHING, KILL, KILL_ONE, KILL_GROUP, TEAR, FAIL, FAIL_ON, FULL, SHORT, SHORT_ON };

#define LOG_BYTES (4 << 20)

struct shared {
    _Atomic int64_t calls; /* that counted so far */
    int64_t at;            /* k, from 1; 0: none */
    _Atomic int64_t fired; /* how often the fault happened */
    int32_t mode;
    int32_t error;         /* the errno of FAIL and FAIL_ON */
    uint32_t kinds;        /* which calls count */
    int32_t logs;          /* whether they are noted */
    _Atomic int64_t log_used;
    char root[1024];
    char log[LOG_BYTES];   /* lines: kind, name, path, second path, separated by tabs */
};

static struct shared *shared;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("SEEKNAL_FAULTS");
    if (!path) return;
    int descriptor = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC);
    if (descriptor < 0) return;
    void *mapped = mmap(NULL, sizeof(struct shared), PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    syscall(SYS_close, descriptor);
    if (mapped != MAP_FAILED) shared = mapped;
}

#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

/* Where a path or a descriptor leads; whether that lies below the root. Links in it are not followed. */
static int below_root(int folder, const char *path, char *full) {
    full[0] = 0;
    if (!path || path[0] != '/') {
        char link[64];
        if (folder == AT_FDCWD) strcpy(link, "/proc/self/cwd");
        else snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, full, PATH_MAX - 1);
        if (length < 0) return 0;
        full[length] = 0;
        if (path && path[0]) {
            strncat(full, "/", PATH_MAX - strlen(full) - 1);
            strncat(full, path, PATH_MAX - strlen(full) - 1);
        }
    } else {
        strncat(full, path, PATH_MAX - 1);
    }
    size_t length = strlen(shared->root);
    return strncmp(full, shared->root, length) == 0 && (full[length] == '/' || !full[length]);
}

static void note(int kind, const char *name, const char *path, const char *second) {
    char line[2 * PATH_MAX + 64];
    int length = snprintf(line, sizeof line, "%d\t%s\t%s\t%s\n", kind, name, path, second);
    int64_t start = atomic_fetch_add(&shared->log_used, length);
    if (start + length < LOG_BYTES) memcpy(shared->log + start, line, (size_t)length);
}

__attribute__((noreturn)) static void die(int whom) {
    syscall(SYS_kill, whom, SIGKILL);
    for (;;) pause();
}

/* Count a call. Gives 0: go on; an errno: fail so; -1: do half of it, -2: do half of it and die. */
static int step(int kind, const char *name, int folder, const char *path, int second_folder, const char *second) {
    if (!shared || shared->mode < 0 || !(shared->kinds & (uint32_t)kind)) return 0;
    int before = errno;
    char full[PATH_MAX], other[PATH_MAX];
    other[0] = 0;
    int counts = below_root(folder, path, full);
    if (second) counts |= below_root(second_folder, second, other);
    errno = before;
    if (!counts) return 0;
    if (shared->logs) note(kind, name, full, other);
    int64_t call = atomic_fetch_add(&shared->calls, 1) + 1;
    int lasts = shared->mode == FAIL_ON || shared->mode == FULL || shared->mode == SHORT_ON;
    if (!shared->at || !(call == shared->at || (lasts && call > shared->at))) return 0;
    atomic_fetch_add(&shared->fired, 1);
    switch (shared->mode) {
    case KILL: case KILL_ONE: die((int)syscall(SYS_getpid));
    case KILL_GROUP: die(0);
    case TEAR: return -2;
    case FAIL: case FAIL_ON: return shared->error;
    /* A disk that gets full takes what still fits. */
    case FULL: return kind == WRITE && call == shared->at ? -1 : ENOSPC;
    case SHORT: case SHORT_ON: return -1;
    }
    return 0;
}

#define STEP(kind, ...) \
    do { \
        int fault_ = step(kind, __func__, __VA_ARGS__, AT_FDCWD, NULL); \
        if (fault_ > 0) { errno = fault_; return -1; } \
    } while (0)
#define STEP_TWO(kind, ...) \
    do { \
        int fault_ = step(kind, __func__, __VA_ARGS__); \
        if (fault_ > 0) { errno = fault_; return -1; } \
    } while (0)

/* opening */

#define OPENING(flags) ((flags) & (O_CREAT | O_TRUNC) ? MAKE : ((flags) & O_ACCMODE) == O_RDONLY ? READ : CHANGE)
#define MODE(flags, last) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { va_list rest; va_start(rest, last); mode = va_arg(rest, mode_t); va_end(rest); }

int open(const char *path, int flags, ...) { REAL(open); MODE(flags, flags); STEP(OPENING(flags), AT_FDCWD, path); return real(path, flags, mode); }
int open64(const char *path, int flags, ...) { REAL(open64); MODE(flags, flags); STEP(OPENING(flags), AT_FDCWD, path); return real(path, flags, mode); }
int openat(int folder, const char *path, int flags, ...) { REAL(openat); MODE(flags, flags); STEP(OPENING(flags), folder, path); return real(folder, path, flags, mode); }
int openat64(int folder, const char *path, int flags, ...) { REAL(openat64); MODE(flags, flags); STEP(OPENING(flags), folder, path); return real(folder, path, flags, mode); }
int creat(const char *path, mode_t mode) { REAL(creat); STEP(MAKE, AT_FDCWD, path); return real(path, mode); }
int creat64(const char *path, mode_t mode) { REAL(creat64); STEP(MAKE, AT_FDCWD, path); return real(path, mode); }
int __open_2(const char *path, int flags) { STEP(OPENING(flags), AT_FDCWD, path); return (int)syscall(SYS_openat, AT_FDCWD, path, flags); }
int __open64_2(const char *path, int flags) { STEP(OPENING(flags), AT_FDCWD, path); return (int)syscall(SYS_openat, AT_FDCWD, path, flags); }

#define FOPEN(name) \
    FILE *name(const char *path, const char *mode) { \
        REAL(name); \
        int fault = step(mode[0] == 'r' ? READ : MAKE, #name, AT_FDCWD, path, AT_FDCWD, NULL); \
        if (fault > 0) { errno = fault; return NULL; } \
        return real(path, mode); \
    }
FOPEN(fopen)
FOPEN(fopen64)

/* writing */

#define WRITING(descriptor, size, whole, half) \
    int fault = (size) > 0 ? step(WRITE, __func__, descriptor, NULL, AT_FDCWD, NULL) : 0; \
    if (fault > 0) { errno = fault; return -1; } \
    if (fault < 0 && (size) > 1) { \
        ssize_t done = half; \
        if (fault == -2) die((int)syscall(SYS_getpid)); \
        return done; \
    } \
    if (fault == -2) die((int)syscall(SYS_getpid)); \
    return whole

ssize_t write(int descriptor, const void *data, size_t size) { REAL(write); WRITING(descriptor, size, real(descriptor, data, size), real(descriptor, data, size / 2)); }
ssize_t pwrite(int descriptor, const void *data, size_t size, off_t at) { REAL(pwrite); WRITING(descriptor, size, real(descriptor, data, size, at), real(descriptor, data, size / 2, at)); }
ssize_t pwrite64(int descriptor, const void *data, size_t size, off64_t at) { REAL(pwrite64); WRITING(descriptor, size, real(descriptor, data, size, at), real(descriptor, data, size / 2, at)); }
ssize_t writev(int descriptor, const struct iovec *parts, int count) { REAL(writev); WRITING(descriptor, count, real(descriptor, parts, count), real(descriptor, parts, count / 2)); }
ssize_t pwritev(int descriptor, const struct iovec *parts, int count, off_t at) { REAL(pwritev); WRITING(descriptor, count, real(descriptor, parts, count, at), real(descriptor, parts, count / 2, at)); }
ssize_t pwritev64(int descriptor, const struct iovec *parts, int count, off64_t at) { REAL(pwritev64); WRITING(descriptor, count, real(descriptor, parts, count, at), real(descriptor, parts, count / 2, at)); }
ssize_t sendfile(int to, int from, off_t *at, size_t size) { REAL(sendfile); WRITING(to, size, real(to, from, at, size), real(to, from, at, size / 2)); }
ssize_t sendfile64(int to, int from, off64_t *at, size_t size) { REAL(sendfile64); WRITING(to, size, real(to, from, at, size), real(to, from, at, size / 2)); }
ssize_t copy_file_range(int from, off64_t *from_at, int to, off64_t *to_at, size_t size, unsigned flags) { REAL(copy_file_range); WRITING(to, size, real(from, from_at, to, to_at, size, flags), real(from, from_at, to, to_at, size / 2, flags)); }

/* room and length */

int ftruncate(int descriptor, off_t size) { REAL(ftruncate); STEP(CHANGE, descriptor, NULL); return real(descriptor, size); }
int ftruncate64(int descriptor, off64_t size) { REAL(ftruncate64); STEP(CHANGE, descriptor, NULL); return real(descriptor, size); }
int truncate(const char *path, off_t size) { REAL(truncate); STEP(CHANGE, AT_FDCWD, path); return real(path, size); }
int truncate64(const char *path, off64_t size) { REAL(truncate64); STEP(CHANGE, AT_FDCWD, path); return real(path, size); }
int fallocate(int descriptor, int mode, off_t at, off_t size) { REAL(fallocate); STEP(WRITE, descriptor, NULL); return real(descriptor, mode, at, size); }
int fallocate64(int descriptor, int mode, off64_t at, off64_t size) { REAL(fallocate64); STEP(WRITE, descriptor, NULL); return real(descriptor, mode, at, size); }
/* These give their error instead of setting it. */
int posix_fallocate(int descriptor, off_t at, off_t size) { REAL(posix_fallocate); int fault = step(WRITE, __func__, descriptor, NULL, AT_FDCWD, NULL); return fault > 0 ? fault : real(descriptor, at, size); }
int posix_fallocate64(int descriptor, off64_t at, off64_t size) { REAL(posix_fallocate64); int fault = step(WRITE, __func__, descriptor, NULL, AT_FDCWD, NULL); return fault > 0 ? fault : real(descriptor, at, size); }

/* names */

int rename(const char *from, const char *to) { REAL(rename); STEP_TWO(NAME, AT_FDCWD, from, AT_FDCWD, to); return real(from, to); }
int renameat(int a, const char *from, int b, const char *to) { REAL(renameat); STEP_TWO(NAME, a, from, b, to); return real(a, from, b, to); }
int renameat2(int a, const char *from, int b, const char *to, unsigned flags) { REAL(renameat2); STEP_TWO(NAME, a, from, b, to); return real(a, from, b, to, flags); }
int link(const char *from, const char *to) { REAL(link); STEP_TWO(NAME, AT_FDCWD, from, AT_FDCWD, to); return real(from, to); }
int linkat(int a, const char *from, int b, const char *to, int flags) { REAL(linkat); STEP_TWO(NAME, a, from, b, to); return real(a, from, b, to, flags); }
int symlink(const char *text, const char *path) { REAL(symlink); STEP(NAME, AT_FDCWD, path); return real(text, path); }
int symlinkat(const char *text, int folder, const char *path) { REAL(symlinkat); STEP(NAME, folder, path); return real(text, folder, path); }
/* A folder that is there already is asked for often, and nothing happens. */
int mkdirat(int folder, const char *path, mode_t mode) { REAL(mkdirat); if (syscall(SYS_faccessat, folder, path, F_OK)) STEP(NAME, folder, path); return real(folder, path, mode); }
int mkdir(const char *path, mode_t mode) { REAL(mkdir); if (syscall(SYS_faccessat, AT_FDCWD, path, F_OK)) STEP(NAME, AT_FDCWD, path); return real(path, mode); }
int unlink(const char *path) { REAL(unlink); STEP(REMOVE, AT_FDCWD, path); return real(path); }
int unlinkat(int folder, const char *path, int flags) { REAL(unlinkat); STEP(REMOVE, folder, path); return real(folder, path, flags); }
int rmdir(const char *path) { REAL(rmdir); STEP(REMOVE, AT_FDCWD, path); return real(path); }
int remove(const char *path) { REAL(remove); STEP(REMOVE, AT_FDCWD, path); return real(path); }

/* modes and times */

int chmod(const char *path, mode_t mode) { REAL(chmod); STEP(CHANGE, AT_FDCWD, path); return real(path, mode); }
int fchmod(int descriptor, mode_t mode) { REAL(fchmod); STEP(CHANGE, descriptor, NULL); return real(descriptor, mode); }
int fchmodat(int folder, const char *path, mode_t mode, int flags) { REAL(fchmodat); STEP(CHANGE, folder, path); return real(folder, path, mode, flags); }
int utimensat(int folder, const char *path, const struct timespec times[2], int flags) { REAL(utimensat); STEP(CHANGE, folder, path); return real(folder, path, times, flags); }
int futimens(int descriptor, const struct timespec times[2]) { REAL(futimens); STEP(CHANGE, descriptor, NULL); return real(descriptor, times); }
int utimes(const char *path, const struct timeval times[2]) { REAL(utimes); STEP(CHANGE, AT_FDCWD, path); return real(path, times); }

/* durability */

int fsync(int descriptor) { STEP(SYNC, descriptor, NULL); return 0; }
int fdatasync(int descriptor) { STEP(SYNC, descriptor, NULL); return 0; }
int syncfs(int descriptor) { STEP(SYNC, descriptor, NULL); return 0; }
int sync_file_range(int descriptor, off64_t at, off64_t size, unsigned flags) { (void)at; (void)size; (void)flags; STEP(SYNC, descriptor, NULL); return 0; }
void sync(void) {}

/* reading */

ssize_t read(int descriptor, void *data, size_t size) { REAL(read); STEP(READ, descriptor, NULL); return real(descriptor, data, size); }
ssize_t pread(int descriptor, void *data, size_t size, off_t at) { REAL(pread); STEP(READ, descriptor, NULL); return real(descriptor, data, size, at); }
ssize_t pread64(int descriptor, void *data, size_t size, off64_t at) { REAL(pread64); STEP(READ, descriptor, NULL); return real(descriptor, data, size, at); }
ssize_t readv(int descriptor, const struct iovec *parts, int count) { REAL(readv); STEP(READ, descriptor, NULL); return real(descriptor, parts, count); }
ssize_t __read_chk(int descriptor, void *data, size_t size, size_t room) { (void)room; return read(descriptor, data, size); }
ssize_t __pread64_chk(int descriptor, void *data, size_t size, off64_t at, size_t room) { (void)room; return pread64(descriptor, data, size, at); }

/* Makes one system call of a process fail, for LD_PRELOAD: the N-th of those that concern a folder fails once with an
   error, or the process gets SIGKILL just before or just after it. The process arms it by `arm`; until then all calls
   pass. Every call met, up to the one struck, is logged as "KIND PATH", the one struck with a "!" before. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { PASS, FAIL, DIE_AFTER };

static char watched[PATH_MAX];
static size_t watched_length; /* 0: not armed */
static long met, wanted;
static int failure, to_log = -1; /* failure: an errno; 0: SIGKILL before the call; -1: SIGKILL after it */

/* Call number `number` (from 1; 0: none) that concerns something below `folder` fails; see `failure`. */
void arm(const char *folder, long number, int how, int log) {
  met = 0, wanted = number, failure = how, to_log = log;
  strncpy(watched, folder, sizeof watched - 1);
  watched_length = strlen(watched);
}

static void link_target(char *found, const char *link) {
  long length = syscall(SYS_readlink, link, found, PATH_MAX - 1);
  found[length < 0 ? 0 : length] = 0;
}

/* Decides what happens to a call on `path`, relative to a folder's descriptor, or on a descriptor if `path` is null. */
static int meet(const char *kind, int descriptor, const char *path) {
  if (!watched_length) return PASS;
  int before = errno; /* `readdir` tells an error from the end by it */
  char place[2 * PATH_MAX], link[40];
  if (path && *path == '/') {
    strncpy(place, path, PATH_MAX - 1)[PATH_MAX - 1] = 0;
  } else {
    if (descriptor == AT_FDCWD) strcpy(link, "/proc/self/cwd");
    else snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    link_target(place, link);
    if (path) snprintf(place + strlen(place), PATH_MAX, "/%s", path);
  }
  if (strncmp(place, watched, watched_length) || (place[watched_length] && place[watched_length] != '/')) return errno = before, PASS;
  long number = __atomic_add_fetch(&met, 1, __ATOMIC_SEQ_CST);
  if (wanted && number > wanted) return errno = before, PASS;
  int struck = number == wanted;
  dprintf(to_log, "%s%s %s\n", struck ? "!" : "", kind, place + watched_length);
  errno = before;
  if (!struck) return PASS;
  if (!failure) raise(SIGKILL);
  if (failure < 0) return DIE_AFTER;
  errno = failure;
  return FAIL;
}

#define CALL(type, name, parameters, arguments, failed, kind, descriptor, path) \
  type name parameters {                                                      \
    static type(*next) parameters;                                            \
    if (!next) next = (type(*) parameters)dlsym(RTLD_NEXT, #name);            \
    int fate = meet(kind, descriptor, path);                                  \
    if (fate == FAIL) return failed;                                          \
    type result = next arguments;                                             \
    if (fate == DIE_AFTER) raise(SIGKILL);                                    \
    return result;                                                            \
  }
#define OF_PATH(name, parameters, arguments, kind, folder, path) \
  CALL(int, name, parameters, arguments, -1, kind, folder, path)
#define OF_FILE(type, name, parameters, arguments, kind) CALL(type, name, parameters, arguments, -1, kind, file, NULL)

OF_PATH(rename, (const char *from, const char *to), (from, to), "rename", AT_FDCWD, to)
OF_PATH(renameat, (int a, const char *from, int b, const char *to), (a, from, b, to), "rename", b, to)
OF_PATH(link, (const char *from, const char *to), (from, to), "link", AT_FDCWD, to)
OF_PATH(linkat, (int a, const char *from, int b, const char *to, int how), (a, from, b, to, how), "link", b, to)
OF_PATH(symlink, (const char *from, const char *to), (from, to), "link", AT_FDCWD, to)
OF_PATH(unlink, (const char *path), (path), "unlink", AT_FDCWD, path)
OF_PATH(unlinkat, (int folder, const char *path, int how), (folder, path, how), how & AT_REMOVEDIR ? "rmdir" : "unlink", folder, path)
OF_PATH(rmdir, (const char *path), (path), "rmdir", AT_FDCWD, path)
OF_PATH(mkdir, (const char *path, mode_t mode), (path, mode), "mkdir", AT_FDCWD, path)
OF_PATH(mkdirat, (int folder, const char *path, mode_t mode), (folder, path, mode), "mkdir", folder, path)
OF_PATH(truncate64, (const char *path, off64_t size), (path, size), "truncate", AT_FDCWD, path)
OF_PATH(utimensat, (int folder, const char *path, const struct timespec t[2], int how), (folder, path, t, how), "touch", folder, path)
OF_PATH(chmod, (const char *path, mode_t mode), (path, mode), "touch", AT_FDCWD, path)
OF_FILE(int, futimens, (int file, const struct timespec times[2]), (file, times), "touch")
OF_FILE(int, fchmod, (int file, mode_t mode), (file, mode), "touch")
OF_FILE(ssize_t, write, (int file, const void *data, size_t size), (file, data, size), "write")
OF_FILE(ssize_t, pwrite64, (int file, const void *data, size_t size, off64_t at), (file, data, size, at), "write")
OF_FILE(ssize_t, pwrite, (int file, const void *data, size_t size, off_t at), (file, data, size, at), "write")
OF_FILE(ssize_t, writev, (int file, const struct iovec *data, int count), (file, data, count), "write")
OF_FILE(ssize_t, sendfile64, (int file, int from, off64_t *at, size_t size), (file, from, at, size), "write")
OF_FILE(ssize_t, copy_file_range, (int from, off64_t *a, int file, off64_t *b, size_t size, unsigned how), (from, a, file, b, size, how), "write")
OF_FILE(int, fsync, (int file), (file), "sync")
OF_FILE(int, fdatasync, (int file), (file), "sync")
OF_FILE(int, ftruncate64, (int file, off64_t size), (file, size), "truncate")
OF_FILE(int, ftruncate, (int file, off_t size), (file, size), "truncate")
OF_FILE(int, flock, (int file, int how), (file, how), "lock")
OF_FILE(ssize_t, read, (int file, void *data, size_t size), (file, data, size), "read")
OF_FILE(ssize_t, pread64, (int file, void *data, size_t size, off64_t at), (file, data, size, at), "read")
CALL(DIR *, opendir, (const char *path), (path), NULL, "list", AT_FDCWD, path)
CALL(DIR *, fdopendir, (int file), (file), NULL, "list", file, NULL)

/* One call of the system reads many entries: only the first of a listing counts. */
CALL(struct dirent64 *, readdir64, (DIR * folder), (folder), NULL, "list", telldir(folder) ? -1 : dirfd(folder), NULL)

static const char *opened(int flags) {
  if (flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE) return "create";
  return (flags & O_ACCMODE) != O_RDONLY ? "open to write" : flags & O_DIRECTORY ? "list" : "open to read";
}

#define OPEN(name, parameters, arguments, folder)                                  \
  int name parameters {                                                            \
    static __typeof__(&name) next;                                                 \
    if (!next) next = (__typeof__(&name))dlsym(RTLD_NEXT, #name);                  \
    va_list rest;                                                                  \
    va_start(rest, flags);                                                         \
    mode_t mode = va_arg(rest, mode_t);                                            \
    va_end(rest);                                                                  \
    int fate = meet(opened(flags), folder, path);                                  \
    if (fate == FAIL) return -1;                                                   \
    int result = next arguments;                                                   \
    if (fate == DIE_AFTER) raise(SIGKILL);                                         \
    return result;                                                                 \
  }

OPEN(open, (const char *path, int flags, ...), (path, flags, mode), AT_FDCWD)
OPEN(open64, (const char *path, int flags, ...), (path, flags, mode), AT_FDCWD)
OPEN(openat, (int folder, const char *path, int flags, ...), (folder, path, flags, mode), folder)
OPEN(openat64, (int folder, const char *path, int flags, ...), (folder, path, flags, mode), folder)

int close(int file) {
  static int (*next)(int);
  if (!next) next = (int (*)(int))dlsym(RTLD_NEXT, "close");
  int flags = watched_length ? fcntl(file, F_GETFL) : 0;
  int fate = flags > 0 && (flags & O_ACCMODE) != O_RDONLY ? meet("close", file, NULL) : PASS;
  int cause = errno, result = next(file); /* a close that fails closes nevertheless */
  if (fate == DIE_AFTER) raise(SIGKILL);
  if (fate != FAIL) return result;
  errno = cause;
  return -1;
}

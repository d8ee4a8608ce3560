/*
 * POSIX shared memory where there is no /dev/shm, as in an ordinary Lambda environment.
 *
 * Preloaded, it makes shm_open and shm_unlink work on files of the folder SYNAPSE_SHM_DIR. That is
 * all they ever were, files to be mapped; these are on a disk instead of in a tmpfs, which for
 * regions that fit into the page cache is the same but for the write-back.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static int path_of(const char *name, char path[PATH_MAX]) {
    const char *folder = getenv("SYNAPSE_SHM_DIR");
    while (*name == '/')
        name++;
    if (folder == NULL || *name == '\0' || strchr(name, '/') != NULL) {
        errno = EINVAL;
        return -1;
    }
    if (snprintf(path, PATH_MAX, "%s/%s", folder, name) >= PATH_MAX) {
        errno = ENAMETOOLONG;
        return -1;
    }
    return 0;
}

int shm_open(const char *name, int flags, mode_t mode) {
    char path[PATH_MAX];
    return path_of(name, path) < 0 ? -1 : open(path, flags | O_NOFOLLOW | O_CLOEXEC, mode);
}

int shm_unlink(const char *name) {
    char path[PATH_MAX];
    return path_of(name, path) < 0 ? -1 : unlink(path);
}

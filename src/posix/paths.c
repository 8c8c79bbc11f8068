// Where things are: programs, folders, randomness.
#include "backend.h"

#include "core/env.h"
#include "core/strbuf.h"
#include "error.h"
#include "sys.h"

#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(HAVE_GETRANDOM) || defined(HAVE_GETENTROPY)
#include <sys/random.h>
#endif
#include <sys/stat.h>

// ------------------------------------------------------------------------------------------------
// Search
// ------------------------------------------------------------------------------------------------

// 0 if `path` is a file that we may execute, else errno.
static int check_program(const char *path)
{
    struct stat st;
    if (stat(path, &st) < 0)
        return errno;
    if (S_ISDIR(st.st_mode))
        return EISDIR;
    if (!S_ISREG(st.st_mode))
        return EACCES;
    return faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) == 0 ? 0 : errno;
}

static char *join(const char *folder, size_t length, const char *name)
{
    struct pmi_strbuf sb = PMI_STRBUF_INIT;
    pmi_strbuf_add_bytes(&sb, folder, length);
    if (length > 0 && folder[length - 1] != '/')
        pmi_strbuf_add_char(&sb, '/');
    pmi_strbuf_add(&sb, name);
    return pmi_strbuf_take(&sb);
}

static int fail_search(struct pm_error *err, int e, const char *hint, const char *what)
{
    pmi_fail(err, PM_STAGE_SEARCH, e == EISDIR ? EACCES : e);
    pmi_fail_field(err, "program");
    if (e == EISDIR)
        pmi_fail_hint(err, "%s is a folder", what);
    else
        pmi_fail_hint(err, "%s%s", hint, what);
    return err->code;
}

static int search_by_path(const char *program, const char *cwd, char **ret_path,
                          struct pm_error *err)
{
    char *absolute = NULL;
    char *path;
    uint32_t os_code = 0;
    if (program[0] == '/') {
        path = strdup(program);
    } else {
        int result = pmi_os_absolute(cwd, &absolute, &os_code);
        if (result != PM_OK) {
            pmi_fail(err, PM_STAGE_SEARCH, (int)os_code);
            pmi_fail_field(err, "cwd");
            return err->code;
        }
        path = join(absolute, strlen(absolute), program);
        free(absolute);
    }
    if (path == NULL)
        return pmi_fail_code(err, PM_STAGE_SEARCH, PM_ERR_NO_MEMORY);
    int e = check_program(path);
    if (e != 0) {
        int result = fail_search(err, e, "looked at ", path);
        free(path);
        return result;
    }
    *ret_path = path;
    return PM_OK;
}

// One entry of PATH. 0 = found, errno = not here.
static int look_in(const char *folder, size_t length, const char *program, char **ret_path)
{
    // Empty, "." and relative entries mean the current folder, which anybody may have filled.
    if (length == 0 || folder[0] != '/')
        return ENOENT;
    char *path = join(folder, length, program);
    if (path == NULL)
        return ENOMEM;
    int e = check_program(path);
    if (e == 0)
        *ret_path = path;
    else
        free(path);
    return e;
}

int pmi_os_search(const struct pm_spec *spec, const char *cwd, const char *const *env,
                  char **ret_path, struct pm_error *err)
{
    const char *program = spec->program;
    if (strchr(program, '/') != NULL)
        return search_by_path(program, cwd, ret_path, err);
    const char *path = pmi_env_get(env, "PATH", false);
    if (path == NULL)
        return fail_search(err, ENOENT, "", "the child's environment has no PATH");
    int worst = ENOENT;
    for (const char *at = path;; at++) {
        size_t length = strcspn(at, ":");
        int e = look_in(at, length, program, ret_path);
        if (e == 0)
            return PM_OK;
        if (e == ENOMEM)
            return pmi_fail_code(err, PM_STAGE_SEARCH, PM_ERR_NO_MEMORY);
        if (e == EACCES) // Something of this name is there, further ones may do.
            worst = EACCES;
        at += length;
        if (*at == '\0')
            break;
    }
    return fail_search(err, worst, "looked in PATH=", path);
}

// ------------------------------------------------------------------------------------------------
// Folders
// ------------------------------------------------------------------------------------------------

static char *current_folder(void)
{
    for (size_t size = 256; size < 1u << 20; size *= 2) {
        char *path = malloc(size);
        if (path == NULL || getcwd(path, size) != NULL)
            return path;
        int e = errno;
        free(path);
        errno = e;
        if (e != ERANGE)
            return NULL;
    }
    return NULL;
}

int pmi_os_absolute(const char *path, char **ret_path, uint32_t *ret_os_code)
{
    char *result = NULL;
    errno = 0;
    if (path != NULL && path[0] == '/') {
        result = strdup(path);
    } else {
        char *cwd = current_folder();
        if (cwd != NULL && path != NULL) {
            result = join(cwd, strlen(cwd), path);
            free(cwd);
        } else {
            result = cwd;
        }
    }
    if (result == NULL) {
        *ret_os_code = (uint32_t)(errno != 0 ? errno : ENOMEM);
        return pmi_error_from_errno((int)*ret_os_code);
    }
    *ret_path = result;
    return PM_OK;
}

static char *home_folder(void)
{
    const char *home = getenv("HOME");
    if (home != NULL && home[0] == '/')
        return strdup(home);
    struct passwd entry, *found = NULL;
    char *buffer = malloc(16384);
    char *result = NULL;
    if (buffer != NULL && getpwuid_r(geteuid(), &entry, buffer, 16384, &found) == 0 &&
        found != NULL && found->pw_dir != NULL && found->pw_dir[0] == '/')
        result = strdup(found->pw_dir);
    free(buffer);
    return result;
}

// Makes what is missing of an absolute path from `from` characters on.
static int make_folders(char *path, size_t from)
{
    for (char *at = path + from;; at++) {
        if (*at != '/' && *at != '\0')
            continue;
        char kept = *at;
        *at = '\0';
        int made = mkdir(path, 0700);
        int e = errno;
        if (made == 0) // The umask may have taken even our own rights.
            (void)fchmodat(AT_FDCWD, path, 0700, AT_SYMLINK_NOFOLLOW);
        *at = kept;
        if (made < 0 && e != EEXIST)
            return pmi_error_from_errno(e);
        if (kept == '\0')
            return PM_OK;
    }
}

int pmi_os_default_state_dir(const char *app, char **ret_path)
{
    const char *state = getenv("XDG_STATE_HOME");
    struct pmi_strbuf sb = PMI_STRBUF_INIT;
    size_t exists;
    // The specification: a relative path is to be ignored.
    if (state != NULL && state[0] == '/') {
        pmi_strbuf_add(&sb, state);
        exists = 1;
    } else {
        char *home = home_folder();
        if (home == NULL)
            return PM_ERR_NOT_FOUND;
        pmi_strbuf_add(&sb, home);
        exists = strlen(home) + 1;
        pmi_strbuf_add(&sb, "/.local/state");
        free(home);
    }
    pmi_strbuf_addf(&sb, "/%s", app);
    char *path = pmi_strbuf_take(&sb);
    if (path == NULL)
        return PM_ERR_NO_MEMORY;
    int result = make_folders(path, exists);
    if (result != PM_OK) {
        free(path);
        return result;
    }
    *ret_path = path;
    return PM_OK;
}

// ------------------------------------------------------------------------------------------------
// The rest
// ------------------------------------------------------------------------------------------------

// From the kernel at once: without a descriptor, and in a root without /dev.
static bool random_by_call(void *buffer, size_t size)
{
#ifdef HAVE_GETRANDOM
    ssize_t n;
    do
        n = PMI_SYS(getrandom)(buffer, size, 0);
    while (n < 0 && errno == EINTR);
    return n == (ssize_t)size;
#elif defined(HAVE_GETENTROPY)
    return PMI_SYS(getentropy)(buffer, size) == 0;
#else
    (void)buffer;
    (void)size;
    return false;
#endif
}

int pmi_os_random(void *buffer, size_t size)
{
    if (random_by_call(buffer, size))
        return PM_OK;
    int fd = pmi_sys_open("/dev/urandom", O_RDONLY, 0);
    if (fd < 0)
        return pmi_error_from_errno(errno);
    size_t done = 0;
    ssize_t n = 1;
    while (done < size && (n = pmi_sys_read(fd, (char *)buffer + done, size - done)) > 0)
        done += (size_t)n;
    (void)pmi_sys_close(fd);
    return done == size ? PM_OK : PM_ERR_IO;
}

int pmi_os_stop_event_open(pm_native *ret_native)
{
    (void)ret_native;
    return PM_ERR_UNSUPPORTED;
}

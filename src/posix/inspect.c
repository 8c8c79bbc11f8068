#include "inspect.h"

#include "sys.h"

#include <sys/stat.h>
#ifdef HAVE_GETAUXVAL
#include <sys/auxv.h>
#endif
#ifdef HAVE_PRCTL
#include <sys/prctl.h>
#endif

bool pmi_is_set_id(void)
{
#ifdef HAVE_GETAUXVAL
    if (getauxval(AT_SECURE) != 0)
        return true;
#elif defined(HAVE_ISSETUGID)
    if (issetugid())
        return true;
#endif
    return getuid() != geteuid() || getgid() != getegid();
}

enum pmi_fd_kind pmi_fd_kind(int fd)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return PMI_FD_NONE;
    return S_ISFIFO(st.st_mode) ? PMI_FD_PIPE : S_ISSOCK(st.st_mode) ? PMI_FD_SOCKET : PMI_FD_OTHER;
}

bool pmi_fd_is_fixed(int fd)
{
    struct stat st;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        return false;
#ifdef F_GET_SEALS
    const int wanted = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals >= 0 && (seals & wanted) == wanted)
        return true;
#endif
    return st.st_nlink == 0 && st.st_uid == geteuid() && (st.st_mode & 077) == 0;
}

long long pmi_fd_size(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 ? (long long)st.st_size : -1;
}

void pmi_set_process_name(const char *name)
{
#ifdef HAVE_PRCTL
    (void)prctl(PR_SET_NAME, name, 0, 0, 0);
#else
    (void)name;
#endif
}

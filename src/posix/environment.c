#include "backend.h"

extern char **environ;

int pmi_os_environ(const char *const **ret_env)
{
    static const char *const empty[] = {NULL};
    // No copy: a host that changes its environment while another thread starts a program has the
    // same race with every getenv().
    *ret_env = environ != NULL ? (const char *const *)environ : empty;
    return PM_OK;
}

void pmi_os_environ_free(const char *const *env)
{
    (void)env;
}

bool pmi_os_env_folds_case(void)
{
    return false;
}

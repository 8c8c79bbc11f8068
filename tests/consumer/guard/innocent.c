#include <processmgr/processmgr.h>

int innocent(void);
// A name of our own that is another's elsewhere.
int daemon_count(void);
int daemon_count(void)
{
    return 0;
}

int innocent(void)
{
    return pm_spawn(NULL, NULL, NULL, NULL) == PM_ERR_INVALID ? daemon_count() : 1;
}

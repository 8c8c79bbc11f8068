#include "backend.h"

enum pm_containment pmi_os_containment_offered(const struct pmi_plan *plan)
{
    (void)plan;
    return PM_CONTAIN_JOB;
}

bool pmi_os_orphans_collect(struct pmi_os_manager *om, uint64_t *ret_reaped)
{
    (void)om;
    *ret_reaped = 0;
    return false;
}

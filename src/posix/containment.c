#include "backend.h"

enum pm_containment pmi_os_containment_offered(const struct pmi_plan *plan)
{
    if (plan->spec->cgroup != NULL)
        return PM_CONTAIN_CGROUP;
    if (plan->own_process && plan->mode != PM_MODE_DAEMON)
        return PM_CONTAIN_SUBREAPER;
    return plan->group == PM_GROUP_HOST ? PM_CONTAIN_NONE : PM_CONTAIN_GROUP;
}

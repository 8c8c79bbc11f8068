#include "backend.h"

enum pm_containment pmi_os_containment_offered(const struct pmi_plan *plan)
{
    (void)plan;
    return PM_CONTAIN_JOB;
}

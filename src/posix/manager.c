#include "backend.h"

#include "cgroup.h"
#include "daemon.h"
#include "error.h"
#include "family.h"
#include "foreground.h"
#include "keeper.h"
#include "look.h"
#include "low_fds.h"
#include "reactor.h"
#include "reap.h"
#include "start.h"
#include "sys.h"

#include <errno.h>
#include <stdatomic.h>

static atomic_int open_managers;

int pmi_os_manager_open(struct pmi_os_manager *om, const struct pmi_os_manager_options *options,
                        struct pm_error *err)
{
    struct pmi_os_manager opened = PMI_OS_MANAGER_INIT;
    uint32_t os_code = 0;
    *om = opened;
    int result = pmi_reactor_open(om, &os_code);
    if (result == PM_OK) {
        result = pmi_posix_launcher_open(om, options->launcher_path);
        if (result != PM_OK)
            pmi_reactor_close(om);
    }
    if (result != PM_OK) {
        (void)pmi_fail_code(err, PM_STAGE_NONE, result);
        err->os_code = os_code;
        return result;
    }
    if (options->own_process) {
        result = pmi_family_open(&om->family, err);
        if (result != PM_OK) {
            pmi_posix_launcher_close(om);
            pmi_reactor_close(om);
            return result;
        }
    }
    pmi_keeper_init(&om->keeper);
    pmi_spawner_init(&om->spawner);
    pmi_low_fds_open(&om->low_fds);
    om->caller_loop = options->caller_loop;
    om->open = true;
    atomic_fetch_add(&open_managers, 1);
    if (options->prestart_keeper)
        pmi_keeper_begin(om);
    return PM_OK;
}

void pmi_os_manager_close(struct pmi_os_manager *om)
{
    if (!om->open)
        return;
    // Who was killed at the last moment is about to leave its control group.
    int64_t deadline = pmi_now_ms() + PMI_DYING_MS;
    while (pmi_cgroup_sweep() && pmi_now_ms() < deadline)
        pmi_sleep_ms(1);
    (void)pmi_foreground_take_back(atomic_fetch_sub(&open_managers, 1) == 1);
    pmi_spawner_stop(&om->spawner);
    pmi_keeper_stop(om);
    pmi_family_close(&om->family);
    pmi_low_fds_close(&om->low_fds);
    pmi_posix_launcher_close(om);
    pmi_reactor_close(om);
    om->open = false; // And no more: who holds a Handle may be in the family's lock just now.
}

void pmi_os_forget_parent(void)
{
    atomic_store(&open_managers, 0);
    pmi_foreground_forget_parent();
    pmi_cgroup_forget_parent();
    pmi_reap_forget_parent();
    pmi_look_forget_parent();
}

void pmi_os_sweep(void)
{
    (void)pmi_cgroup_sweep();
}

// The headers of the backend are C alone.
#include "posix/identity.h"

#include "strays_table.h"

int table_stat_read(pid_t pid, struct pmi_stat *ret_stat);

int table_stat_read(pid_t pid, struct pmi_stat *ret_stat)
{
    struct table_row row;
    int result = table_look(pid, &row);
    if (result == PM_OK) {
        *ret_stat = (struct pmi_stat){.state = row.dead ? 'Z' : 'S',
                                      .ppid = row.parent,
                                      .pgrp = row.session,
                                      .session = row.session,
                                      .num_threads = row.threads,
                                      .starttime = row.start};
    }
    return result;
}

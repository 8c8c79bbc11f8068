#include "runner/placement.h"

#include <string.h>

bool placement_is_own(const char *group)
{
    const char *last = strrchr(group, '/');
    return last != NULL && strncmp(last + 1, PLACEMENT_PREFIX, sizeof PLACEMENT_PREFIX - 1) == 0;
}

void placement_warn(const struct placement *placement, json_t *warnings)
{
    if (placement->warning[0] != '\0') {
        (void)json_array_append_new(warnings, json_string(placement->warning));
    }
}

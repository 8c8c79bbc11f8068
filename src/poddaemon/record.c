// The file that is left of the session (pod/tomb.h), on the disk before anybody is told of the
// exit.
#include <string.h>

#include "pod/tomb.h"
#include "poddaemon/daemon.h"

struct target {
    struct pod_new_file file;
};

static int put(void *user, const void *data, size_t size)
{
    struct target *target = user;
    return pod_file_put(&target->file, data, size);
}

static int write_once(struct pod *pod, bool without_output)
{
    struct pod_tomb_source source = {.without_output = without_output};
    struct target target;
    source.head = (struct pod_tomb){.version = 1, .epoch = pod->rules.epoch};
    source.head.daemon_pid = (uint64_t)uv_os_getpid();
    source.head.session = (struct pod_bytes){(const uint8_t *)pod->session, strlen(pod->session)};
    source.exit = pod->exit;
    for (unsigned i = 0; i < POD_CHANNELS; i++) {
        source.rings[i] = &pod->channels[i].ring;
        source.truncated[i] = pod->channels[i].ending.truncated;
    }
    int result = pod_file_begin(&pod->dir, &target.file);
    if (result != PM_OK) {
        return result;
    }
    result = pod_tomb_write(&source, put, &target);
    if (result != PM_OK) {
        pod_file_abandon(&pod->dir, &target.file);
        return result;
    }
    result = pod_file_commit(&pod->dir, &target.file, POD_FILE_EXIT, POD_SYNC_NAME);
    pod->record_named = target.file.named;
    return result;
}

int pod_record_write(struct pod *pod)
{
    // Once it has its name a runner may claim it: it is never made a second time.
    int result = pod->record_named ? pod_dir_sync(&pod->dir) : write_once(pod, false);
    if (result == PM_OK) {
        return result;
    }
    pod_fault(pod, POD_FAULT_RECORD, result, "write");
    // The output may be what is too large for the disk; how it ended is what must not be lost.
    return result == PM_ERR_NO_SPACE && !pod->record_named ? write_once(pod, true) : result;
}

// The rig: it maps the faults' state, so that every process that it starts does the same, and is
// the parent of whatever a run leaves behind.
#include <gtest/gtest.h>
#include <processmgr/processmgr.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

int main(int argc, char **argv)
{
    pm_launcher_main(argc, argv);
    if (getenv("PM_FAULT_STATE") == nullptr) {
        // Once more, with the variable set before anything is read.
        char name[] = "/tmp/pm-fault-XXXXXX";
        int fd = mkstemp(name);
        if (fd < 0 || ftruncate(fd, 4096) != 0 || setenv("PM_FAULT_STATE", name, 1) != 0) {
            perror(name);
            return 1;
        }
        close(fd);
        execv("/proc/self/exe", argv);
        perror("exec");
        return 1;
    }
    testing::InitGoogleTest(&argc, argv);
    (void)prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    int result = RUN_ALL_TESTS();
    unlink(getenv("PM_FAULT_STATE"));
    return result;
}

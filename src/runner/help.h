// Texts of --help.
#ifndef RUNNER_HELP_H
#define RUNNER_HELP_H

extern const char help_runner[], help_options[];
extern const char help_serve[], help_create[], help_list[], help_get[], help_attach[], help_send[],
    help_resize[], help_logs[], help_stop[], help_kill[], help_destroy[], help_forget[],
    help_info[], help_events[], help_upgrade[], help_shutdown[], help_who[], help_doctor[],
    help_service[];

#endif

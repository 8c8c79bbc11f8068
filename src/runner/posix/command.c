// Commands of the system, as people type them into its shell.
#include "runner/doctor.h"

#include <stdio.h>
#include <string.h>

void doctor_quote(const char *path, char quoted[4400])
{
    size_t at = 0;
    quoted[at++] = '\'';
    for (const char *c = path; *c != '\0' && at < 4390; c++) {
        if (*c == '\'') {
            memcpy(quoted + at, "'\\'", 3);
            at += 3;
        }
        quoted[at++] = *c;
    }
    quoted[at++] = '\'';
    quoted[at] = '\0';
}

const char *doctor_command(enum doctor_command command, const char *what, char text[4600])
{
    static const char *const commands[] = {"kill -KILL", "ps -o pid,ppid,sid,stat,lstart,args -p",
                                           "ls -la",     "rm",
                                           "df -h",      "${EDITOR:-vi}",
                                           "kill -HUP"};
    char quoted[4400];
    bool path = strspn(what, "0123456789") != strlen(what);
    doctor_quote(what, quoted);
    (void)snprintf(text, 4600, "%s %s", commands[command], path ? quoted : what);
    return text;
}

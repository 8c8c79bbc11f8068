// Commands of the system, as people type them into its shell.
#include "runner/doctor.h"

#include <stdio.h>
#include <string.h>

void doctor_quote(const char *path, char quoted[4400])
{
    (void)snprintf(quoted, 4400, "\"%.4300s\"", path);
    // No path has these, but an id may: the command finds nothing then, and does nothing else.
    for (char *c = quoted + 1; c[0] != '\0' && c[1] != '\0'; c++) {
        *c = (char)(*c == '"' || *c == '%' ? '?' : *c);
    }
}

// Commands of cmd.exe take the other ones for options.
static void turn_slashes(char *path)
{
    for (; *path != '\0'; path++) {
        *path = (char)(*path == '/' ? '\\' : *path);
    }
}

const char *doctor_command(enum doctor_command command, const char *what, char text[4600])
{
    static const char *const commands[] = {
        "taskkill /F /PID", "tasklist /V /FI", "icacls", "del", "dir", "notepad", ""};
    char quoted[4400];
    bool path = strspn(what, "0123456789") != strlen(what);
    doctor_quote(what, quoted);
    turn_slashes(quoted);
    if (command == DOCTOR_PROCESS) {
        (void)snprintf(text, 4600, "%s \"PID eq %.4000s\"", commands[command], what);
    } else if (command == DOCTOR_LISTEN) {
        text[0] = '\0'; // Pipes have no names that could be removed.
    } else {
        (void)snprintf(text, 4600, "%s %s", commands[command], path ? quoted : what);
    }
    return text;
}

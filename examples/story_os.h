// What the story needs of the operating system beside the library. It looks at processes with its
// own eyes, so that the library's answers are checked by something that is not the library.
//
// story_posix.c and story_win32.c define the same names; CMake adds one of them.
#ifndef STORY_OS_H
#define STORY_OS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** Longest path that the story handles, in bytes. */
#define STORY_PATH_MAX 1024
/** A payload ends by itself after this time, whatever becomes of the story. */
#define STORY_PAYLOAD_MS 60000

enum story_look {
    STORY_PLAIN = 0,
    STORY_UTF8 = 1,
    STORY_COLOUR = 2
};

/** "posix" or "win32". */
const char *story_os_backend(void);
/** What standard output can show: enum story_look, or-ed. */
unsigned story_os_look(void);
int64_t story_os_now_ms(void);
void story_os_sleep_ms(unsigned ms);

/** Path of this program, for starting it again in another role. */
bool story_os_self(const char *argv0, char path[STORY_PATH_MAX]);
/** Argument `index` of this program as UTF-8. */
bool story_os_argument(char **argv, int index, char text[STORY_PATH_MAX]);
/** Makes a new empty folder below the system's folder for temporary files. */
bool story_os_make_folder(char path[STORY_PATH_MAX]);
/** Removes a folder with all it holds. */
bool story_os_remove_folder(const char *path);
/** Start of a file as text. False if there is no such file (yet). */
bool story_os_read_file(const char *path, char *text, size_t capacity);

/** Dead children of this process that still stand in the process table; -1 if it is unreadable. */
int story_os_zombies(void);
/** How many of these processes run this program in a role of the story that uses `folder`. pids
 *  NULL: of all processes. -1 if the process table is unreadable. */
int story_os_running(const char *folder, const uint64_t *pids, size_t count);

/** Body of a payload: prints "ready", waits until it is told to stop, prints "stopped". Returns the
 *  exit code: 0 stopped, 1 trouble, 2 nobody stopped it in STORY_PAYLOAD_MS. */
int story_os_payload(void);

/* story_bug.c: the bug that the library is there to end. */

/** Starts children by hand, lets go of them, and returns once all of them are dead (or after 5 s):
 *  how many were started. */
int story_bug_run(const char *self, int count);
/** What became of them, in one line. */
const char *story_bug_remark(void);
/** Cleans up after story_bug_run(). */
void story_bug_clean(void);

#endif

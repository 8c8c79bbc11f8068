// Command lines of Windows, as pure text: one string that the child's runtime splits again.
#ifndef PMI_CMDLINE_H
#define PMI_CMDLINE_H

#include <stdbool.h>

// Joins arguments so that CommandLineToArgvW and the C runtimes give back the same ones. argv[0]
// has rules of its own: it cannot hold a quotation mark. *ret_line is malloc'd. PM_ERR_INVALID,
// PM_ERR_NO_MEMORY.
// https://learn.microsoft.com/cpp/c-language/parsing-c-command-line-arguments
int pmi_cmdline_join(const char *const *argv, char **ret_line);

// The same for a batch file: the line by which cmd.exe, whose full path is `shell`, runs `script`
// with argv[1] and what follows (argv[0] is left out: a batch file is told its own name by
// cmd.exe). What the batch file then makes of its arguments is up to it. PM_ERR_INVALID: a line
// end or a Ctrl-Z, or a quotation mark in `script`; *ret_bad is the text that is meant.
int pmi_cmdline_join_batch(const char *shell, const char *script, const char *const *argv,
                           char **ret_line, const char **ret_bad);

// Whether CreateProcess would hand this path to cmd.exe, whose rules are others: .bat and .cmd in
// any case, also with trailing dots and blanks, as or before a stream name, or with "\." behind it,
// all of which the file system drops (CVE-2024-24576, CVE-2024-43402).
bool pmi_cmdline_is_batch(const char *path);

#endif

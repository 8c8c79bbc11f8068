// Command lines of Windows, as pure text: one string that the child's runtime splits again.
#ifndef PMI_CMDLINE_H
#define PMI_CMDLINE_H

#include <stdbool.h>

// Joins arguments so that CommandLineToArgvW and the C runtimes give back the same ones. argv[0]
// has rules of its own: it cannot hold a quotation mark. *ret_line is malloc'd. PM_ERR_INVALID,
// PM_ERR_NO_MEMORY.
// https://learn.microsoft.com/cpp/c-language/parsing-c-command-line-arguments
int pmi_cmdline_join(const char *const *argv, char **ret_line);

// Whether CreateProcess would hand this path to cmd.exe, whose rules are others: .bat and .cmd in
// any case, also with trailing dots and blanks, as or before a stream name, or with "\." behind it,
// all of which the file system drops (CVE-2024-24576, CVE-2024-43402).
bool pmi_cmdline_is_batch(const char *path);

#endif

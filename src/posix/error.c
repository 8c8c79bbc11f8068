#include "error.h"

#include "backend.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
    int e;
    int code;
} map[] = {
    {ENOMEM, PM_ERR_NO_MEMORY},
    {ENOBUFS, PM_ERR_NO_MEMORY},
    {ENOSYS, PM_ERR_UNSUPPORTED},
    {ENOTSUP, PM_ERR_UNSUPPORTED},
    {EOPNOTSUPP, PM_ERR_UNSUPPORTED},
    {ENOENT, PM_ERR_NOT_FOUND},
    {EACCES, PM_ERR_ACCESS},
    {EPERM, PM_ERR_ACCESS},
    {EROFS, PM_ERR_ACCESS},
    {EEXIST, PM_ERR_EXISTS},
    {ETIMEDOUT, PM_ERR_TIMEOUT},
    {EAGAIN, PM_ERR_NO_PROCESS_SLOTS}, // Only fork and thread creation let it come this far.
    {EMFILE, PM_ERR_NO_DESCRIPTORS},
    {ENFILE, PM_ERR_NO_DESCRIPTORS},
    {EBUSY, PM_ERR_BUSY},
    {ESRCH, PM_ERR_GONE},
    {ENOEXEC, PM_ERR_NOT_EXECUTABLE},
#ifdef ELIBBAD
    {ELIBBAD, PM_ERR_NOT_EXECUTABLE},
#endif
#ifdef EBADARCH
    {EBADARCH, PM_ERR_NOT_EXECUTABLE}, // macOS
    {EBADEXEC, PM_ERR_NOT_EXECUTABLE},
#endif
    {E2BIG, PM_ERR_TOO_BIG},
    {ENAMETOOLONG, PM_ERR_TOO_BIG},
    {ENOTDIR, PM_ERR_NOT_A_DIRECTORY},
    {EPIPE, PM_ERR_BROKEN_PIPE},
    {ECONNRESET, PM_ERR_BROKEN_PIPE},
    {ENOSPC, PM_ERR_NO_SPACE},
    {EFBIG, PM_ERR_NO_SPACE},
#ifdef EDQUOT
    {EDQUOT, PM_ERR_NO_SPACE},
#endif
    {ETXTBSY, PM_ERR_TEXT_BUSY},
    {EIO, PM_ERR_IO},
};

int pmi_error_from_errno(int e)
{
    for (size_t i = 0; i < sizeof(map) / sizeof(map[0]); i++)
        if (map[i].e == e)
            return map[i].code;
    return PM_ERR_SYSTEM;
}

int pmi_fail_code(struct pm_error *err, enum pm_stage stage, int code)
{
    err->code = code;
    err->stage = stage;
    err->os_code = 0;
    err->field[0] = '\0';
    err->hint[0] = '\0';
    return code;
}

void pmi_fail(struct pm_error *err, enum pm_stage stage, int e)
{
    (void)pmi_fail_code(err, stage, pmi_error_from_errno(e));
    err->os_code = (uint32_t)e;
}

void pmi_fail_field(struct pm_error *err, const char *field)
{
    (void)snprintf(err->field, sizeof(err->field), "%s", field);
}

void pmi_fail_hint(struct pm_error *err, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    (void)vsnprintf(err->hint, sizeof(err->hint), format, ap);
    va_end(ap);
}

// There are two strerror_r: GNU's returns the text, which may not be in the buffer; POSIX's returns
// a number. The types tell them apart at compile time.
static inline const char *text_of_gnu(const char *text, const char *buffer)
{
    (void)buffer;
    return text;
}

static inline const char *text_of_posix(int result, const char *buffer)
{
    return result == 0 ? buffer : NULL;
}

#define TEXT_OF(result, buffer)                                                                    \
    _Generic((result), char * : text_of_gnu, int : text_of_posix)(result, buffer)

void pmi_os_error_text(uint32_t os_code, char *buffer, size_t capacity)
{
    char scratch[256] = "";
    const char *text = TEXT_OF(strerror_r((int)os_code, scratch, sizeof(scratch)), scratch);
    if (text != NULL && text[0] != '\0')
        (void)snprintf(buffer, capacity, "%s", text);
    else
        (void)snprintf(buffer, capacity, "error %u", (unsigned)os_code);
}

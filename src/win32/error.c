#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#include "core/utf.h"
#include "win32.h"

static const struct {
    DWORD os_code;
    int code;
} codes[] = {
    {ERROR_FILE_NOT_FOUND, PM_ERR_NOT_FOUND},
    {ERROR_PATH_NOT_FOUND, PM_ERR_NOT_FOUND},
    {ERROR_INVALID_DRIVE, PM_ERR_NOT_FOUND},
    {ERROR_BAD_NETPATH, PM_ERR_NOT_FOUND},
    {ERROR_BAD_NET_NAME, PM_ERR_NOT_FOUND},
    {ERROR_TOO_MANY_OPEN_FILES, PM_ERR_NO_DESCRIPTORS},
    {ERROR_NO_MORE_USER_HANDLES, PM_ERR_NO_DESCRIPTORS},
    {ERROR_ACCESS_DENIED, PM_ERR_ACCESS},
    {ERROR_SHARING_VIOLATION, PM_ERR_ACCESS},
    {ERROR_LOCK_VIOLATION, PM_ERR_ACCESS},
    {ERROR_WRITE_PROTECT, PM_ERR_ACCESS},
    {ERROR_PRIVILEGE_NOT_HELD, PM_ERR_ACCESS},
    {ERROR_INVALID_OWNER, PM_ERR_ACCESS},
    {ERROR_ELEVATION_REQUIRED, PM_ERR_ACCESS},
    {ERROR_ACCESS_DISABLED_BY_POLICY, PM_ERR_ACCESS},
    {ERROR_VIRUS_INFECTED, PM_ERR_ACCESS},
    {ERROR_INVALID_HANDLE, PM_ERR_INVALID},
    {ERROR_INVALID_NAME, PM_ERR_INVALID},
    {ERROR_BAD_PATHNAME, PM_ERR_INVALID},
    {ERROR_NOT_ENOUGH_MEMORY, PM_ERR_NO_MEMORY},
    {ERROR_OUTOFMEMORY, PM_ERR_NO_MEMORY},
    {ERROR_NO_SYSTEM_RESOURCES, PM_ERR_NO_MEMORY},
    {ERROR_WORKING_SET_QUOTA, PM_ERR_NO_MEMORY},
    {ERROR_COMMITMENT_LIMIT, PM_ERR_NO_MEMORY},
    {ERROR_NOT_ENOUGH_QUOTA, PM_ERR_NO_MEMORY},
    {ERROR_NO_PROC_SLOTS, PM_ERR_NO_PROCESS_SLOTS},
    {ERROR_MAX_THRDS_REACHED, PM_ERR_NO_PROCESS_SLOTS},
    {ERROR_BAD_FORMAT, PM_ERR_NOT_EXECUTABLE},
    {ERROR_INVALID_EXE_SIGNATURE, PM_ERR_NOT_EXECUTABLE},
    {ERROR_EXE_MARKED_INVALID, PM_ERR_NOT_EXECUTABLE},
    {ERROR_BAD_EXE_FORMAT, PM_ERR_NOT_EXECUTABLE},
    {ERROR_EXE_MACHINE_TYPE_MISMATCH, PM_ERR_NOT_EXECUTABLE},
    {ERROR_FILENAME_EXCED_RANGE, PM_ERR_TOO_BIG},
    {ERROR_DIRECTORY, PM_ERR_NOT_A_DIRECTORY},
    {ERROR_FILE_EXISTS, PM_ERR_EXISTS},
    {ERROR_ALREADY_EXISTS, PM_ERR_EXISTS},
    {ERROR_BROKEN_PIPE, PM_ERR_BROKEN_PIPE},
    {ERROR_NO_DATA, PM_ERR_BROKEN_PIPE},
    {ERROR_PIPE_NOT_CONNECTED, PM_ERR_BROKEN_PIPE},
    {ERROR_DISK_FULL, PM_ERR_NO_SPACE},
    {ERROR_HANDLE_DISK_FULL, PM_ERR_NO_SPACE},
    {ERROR_DISK_QUOTA_EXCEEDED, PM_ERR_NO_SPACE},
    {WAIT_TIMEOUT, PM_ERR_TIMEOUT},
    {ERROR_SEM_TIMEOUT, PM_ERR_TIMEOUT},
    {ERROR_INVALID_FUNCTION, PM_ERR_UNSUPPORTED},
    {ERROR_NOT_SUPPORTED, PM_ERR_UNSUPPORTED},
    {ERROR_CALL_NOT_IMPLEMENTED, PM_ERR_UNSUPPORTED},
    {ERROR_CRC, PM_ERR_IO},
    {ERROR_WRITE_FAULT, PM_ERR_IO},
    {ERROR_READ_FAULT, PM_ERR_IO},
    {ERROR_GEN_FAILURE, PM_ERR_IO},
    {ERROR_OPERATION_ABORTED, PM_ERR_IO},
    {ERROR_IO_DEVICE, PM_ERR_IO},
    {ERROR_FILE_CORRUPT, PM_ERR_IO},
    {ERROR_DISK_CORRUPT, PM_ERR_IO},
};

int pmi_win_code(DWORD os_code)
{
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        if (codes[i].os_code == os_code) {
            return codes[i].code;
        }
    }
    return PM_ERR_SYSTEM;
}

int pmi_win_fail(struct pm_error *err, enum pm_stage stage, DWORD os_code)
{
    err->code = pmi_win_code(os_code);
    err->stage = stage;
    err->os_code = os_code;
    return err->code;
}

int pmi_win_refuse(struct pm_error *err, int code, enum pm_stage stage, const char *field,
                   const char *hint)
{
    err->code = code;
    err->stage = stage;
    err->os_code = 0;
    if (field != NULL) {
        pmi_win_copy_text(err->field, sizeof err->field, field);
    }
    if (hint != NULL) {
        pmi_win_copy_text(err->hint, sizeof err->hint, hint);
    }
    return code;
}

// Some texts of the system have a place for a name that only the caller knows: "%1 is not a valid
// Win32 application". The name stands before the text in our lines.
static void copy_filled(char *buffer, size_t capacity, const char *text)
{
    const char *at = strstr(text, "%1");
    if (at == NULL) {
        pmi_win_copy_text(buffer, capacity, text);
        return;
    }
    char filled[1024];
    (void)snprintf(filled, sizeof filled, "%.*sthe file%s", (int)(at - text), text, at + 2);
    pmi_win_copy_text(buffer, capacity, filled);
}

void pmi_os_error_text(uint32_t os_code, char *buffer, size_t capacity)
{
    if (capacity == 0) {
        return;
    }
    const DWORD flags = FORMAT_MESSAGE_FROM_SYSTEM | FORMAT_MESSAGE_IGNORE_INSERTS |
                        FORMAT_MESSAGE_MAX_WIDTH_MASK; // No line breaks inside.
    const DWORD english = MAKELANGID(LANG_ENGLISH, SUBLANG_ENGLISH_US);
    wchar_t wide[512];
    DWORD length = FormatMessageW(flags, NULL, os_code, english, wide, 512, NULL);
    if (length == 0) { // English texts are not installed on every Windows.
        length = FormatMessageW(flags, NULL, os_code, 0, wide, 512, NULL);
    }
    while (length > 0 && (wide[length - 1] <= L' ' || wide[length - 1] == L'.')) {
        length--;
    }
    char *text = NULL;
    if (length > 0 && pmi_utf16_to_utf8((const uint16_t *)wide, length, &text) == PM_OK) {
        copy_filled(buffer, capacity, text);
        free(text);
    } else {
        (void)snprintf(buffer, capacity, "system error %lu", (unsigned long)os_code);
    }
}

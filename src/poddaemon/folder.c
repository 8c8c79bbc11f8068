#include "poddaemon/folder.h"

#include <stdlib.h>
#include <string.h>

#define TOKEN_TEXT (2 * POD_TOKEN_SIZE + 1) // With a line end.

int pod_token_make(struct pod_dir *dir, uint8_t ret_token[POD_TOKEN_SIZE])
{
    static const char digits[] = "0123456789abcdef";
    uint8_t token[POD_TOKEN_SIZE];
    char text[TOKEN_TEXT];
    struct pod_new_file file;
    if (uv_random(NULL, NULL, token, sizeof token, 0, NULL) != 0) {
        return PM_ERR_SYSTEM;
    }
    for (size_t i = 0; i < sizeof token; i++) {
        text[2 * i] = digits[token[i] >> 4];
        text[2 * i + 1] = digits[token[i] & 15];
    }
    text[TOKEN_TEXT - 1] = '\n';
    int result = pod_file_begin(dir, &file);
    if (result != PM_OK) {
        return result;
    }
    result = pod_file_put(&file, text, sizeof text);
    if (result != PM_OK) {
        pod_file_abandon(dir, &file);
        return result;
    }
    result = pod_file_commit(dir, &file, POD_FILE_TOKEN, POD_SYNC_NONE);
    if (result == PM_OK) {
        memcpy(ret_token, token, sizeof token);
    }
    return result;
}

static int hex_digit(uint8_t c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int pod_token_read(struct pod_dir *dir, uint8_t ret_token[POD_TOKEN_SIZE])
{
    uint8_t *text, token[POD_TOKEN_SIZE];
    size_t size;
    int result = pod_file_read(dir, POD_FILE_TOKEN, TOKEN_TEXT + 1, &text, &size);
    if (result != PM_OK) {
        return result;
    }
    result = size >= 2 * POD_TOKEN_SIZE ? PM_OK : PM_ERR_CORRUPT;
    for (size_t i = 0; i < POD_TOKEN_SIZE && result == PM_OK; i++) {
        int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);
        result = high < 0 || low < 0 ? PM_ERR_CORRUPT : PM_OK;
        token[i] = (uint8_t)((unsigned)high << 4 | (unsigned)low);
    }
    memset(text, 0, size);
    free(text);
    if (result == PM_OK) {
        memcpy(ret_token, token, sizeof token);
    }
    return result;
}

int pod_exit_read(struct pod_dir *dir, const uint64_t from[POD_CHANNELS],
                  pod_client_handler *handler, void *user, bool *ret_claimed)
{
    uint8_t *bytes;
    size_t size;
    bool claimed = false;
    int result = pod_file_read(dir, POD_FILE_EXIT, POD_TOMB_SIZE_MAX, &bytes, &size);
    if (result == PM_ERR_NOT_FOUND) {
        claimed = true;
        result = pod_file_read(dir, POD_FILE_CLAIMED, POD_TOMB_SIZE_MAX, &bytes, &size);
    }
    if (result != PM_OK) {
        return result;
    }
    *ret_claimed = claimed;
    result = pod_tomb_read(bytes, size, from, handler, user);
    free(bytes);
    return result == 0                  ? PM_OK
           : result == -POD_E_INVALID   ? PM_ERR_INVALID
           : result == -POD_E_NO_MEMORY ? PM_ERR_NO_MEMORY
                                        : PM_ERR_CORRUPT;
}

int pod_exit_claim(struct pod_dir *dir)
{
    uint8_t *bytes;
    size_t size;
    int result = pod_file_rename(dir, POD_FILE_EXIT, POD_FILE_CLAIMED);
    if (result != PM_ERR_NOT_FOUND) {
        return result;
    }
    result = pod_file_read(dir, POD_FILE_CLAIMED, POD_TOMB_SIZE_MAX, &bytes, &size);
    if (result == PM_OK) {
        free(bytes);
        return PM_ERR_GONE;
    }
    return result == PM_ERR_NOT_FOUND ? PM_ERR_NOT_FOUND : PM_ERR_GONE;
}

#include "runner/text.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/utf8.h"

size_t text_letter(const char *at)
{
    uint32_t point = 0;
    size_t length = pmi_utf8_decode((const unsigned char *)at, &point);
    return point >= 0xd800 && point < 0xe000 ? 0 : length;
}

// The beginning of a letter, and the end of the text behind it.
static bool was_cut(const char *at)
{
    const unsigned char *bytes = (const unsigned char *)at;
    size_t length = bytes[0] >= 0xf0 ? 4 : bytes[0] >= 0xe0 ? 3 : bytes[0] >= 0xc2 ? 2 : 0;
    size_t there = 1;
    while (there < length && (bytes[there] & 0xc0) == 0x80) {
        there++;
    }
    return bytes[0] <= 0xf4 && there < length && bytes[there] == '\0';
}

void text_mend(char *text)
{
    for (size_t length; *text != '\0'; text += length > 0 ? length : 1) {
        length = text_letter(text);
        if (length == 0 && was_cut(text)) {
            *text = '\0';
            return;
        }
        if (length == 0) {
            *text = '?';
        }
    }
}

json_t *text_json(const char *text)
{
    json_t *json = json_string(text);
    char *mended = json == NULL ? strdup(text) : NULL;
    if (mended != NULL) {
        text_mend(mended);
        json = json_string(mended);
        free(mended);
    }
    return json;
}

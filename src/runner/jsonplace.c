#include "runner/jsonplace.h"

#include <jansson.h>
#include <stdbool.h>
#include <string.h>

struct scan {
    const char *text;
    size_t size, at;
};

static void blanks(struct scan *scan)
{
    while (scan->at < scan->size && strchr(" \t\r\n", scan->text[scan->at]) != NULL &&
           scan->text[scan->at] != '\0') {
        scan->at++;
    }
}

static char here(const struct scan *scan)
{
    return scan->at < scan->size ? scan->text[scan->at] : '\0';
}

// A string, with its quotation marks.
static void skip_string(struct scan *scan)
{
    for (scan->at++; scan->at < scan->size && here(scan) != '"'; scan->at++) {
        if (here(scan) == '\\') {
            scan->at++;
        }
    }
    scan->at++;
}

// Whatever it is: nothing but the brackets outside of strings counts.
static void skip_value(struct scan *scan)
{
    size_t depth = 0;
    do {
        blanks(scan);
        char c = here(scan);
        if (c == '"') {
            skip_string(scan);
        } else if (c == '{' || c == '[') {
            depth++;
            scan->at++;
        } else if (c == '}' || c == ']') {
            depth--;
            scan->at++;
        } else if (depth > 0) {
            scan->at++;
        } else {
            scan->at += strcspn(scan->text + scan->at, ",:]} \t\r\n");
        }
    } while (depth > 0 && scan->at < scan->size);
}

// A key may be written with escapes.
static bool is_key(const char *text, size_t size, const char *key)
{
    json_t *string = json_loadb(text, size, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    const char *value = json_string_value(string);
    bool is = value != NULL && json_string_length(string) == strlen(key) && strcmp(value, key) == 0;
    json_decref(string);
    return is;
}

// From the bracket of an object to the value of the key. *ret_key: where the key is.
static bool enter_object(struct scan *scan, const char *key, size_t *ret_key)
{
    for (scan->at++;; scan->at++) { // Over the bracket, or a comma.
        blanks(scan);
        if (here(scan) != '"') {
            return false;
        }
        size_t begin = scan->at;
        skip_string(scan);
        bool found = is_key(scan->text + begin, scan->at - begin, key);
        blanks(scan);
        scan->at++; // The colon.
        blanks(scan);
        if (found) {
            *ret_key = begin;
            return true;
        }
        skip_value(scan);
        blanks(scan);
        if (here(scan) != ',') {
            return false;
        }
    }
}

static bool enter_list(struct scan *scan, size_t index)
{
    scan->at++;
    blanks(scan);
    for (; index > 0; index--) {
        skip_value(scan);
        blanks(scan);
        if (here(scan) != ',') {
            return false;
        }
        scan->at++;
        blanks(scan);
    }
    return here(scan) != ']';
}

struct json_place json_place_of(const char *text, size_t size, const struct json_step *steps,
                                size_t count)
{
    struct scan scan = {text, size, 0};
    struct json_place place = {1, 1};
    blanks(&scan);
    size_t found = scan.at;
    for (size_t i = 0; i < count; i++) {
        bool object = steps[i].key != NULL;
        if (here(&scan) != (object ? '{' : '[') ||
            !(object ? enter_object(&scan, steps[i].key, &found)
                     : enter_list(&scan, steps[i].index))) {
            break;
        }
        found = object ? found : scan.at;
    }
    for (size_t i = 0; i < found && i < size; i++) {
        if (text[i] == '\n') {
            place.line++;
            place.column = 1;
        } else {
            place.column++;
        }
    }
    return place;
}

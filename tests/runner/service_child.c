// A server of MCP, or an agent of ACP, that behaves as the test wants it:
//
//   service-child mcp|acp [FLAGS]
//
//   --slow MS           wait before the answer to initialize
//   --garbage           lines that are no messages, before each answer
//   --half              each answer in two writes
//   --lazy MS           wait after each message
//   --late              answer initialize at the end of input
//   --error TEXT        answer initialize with this error
//   --nulls             "error": null beside each result
//   --exit-at METHOD N  end with code N in place of the answer to this method
//   --version V         answer initialize with this version
//   --deaf              read nothing after the handshake
//   --stay              go on at the end of input, and ignore SIGTERM
//   --holder            leave a process behind that holds the pipes, in a session of its own
//   --note FILE         append "METHOD\n" there for each message that comes, "answer ID\n" for an
//                       answer that is one to us, "bad\n" for a line that is none
//   --mark FILE         append a line there at the start
//
// Methods: echo; big {"size"}: a text of so many bytes; die {"code"}; crash; hang; notify
// {"count"}; asks {"count", ...}: how many of so many questions are answered at once; ask
// {"method", "params"}: what we are answered; flood {"size"}: on stderr; long
// {"size"}: a line of garbage; env {"name"}; count {"file", "size"}: numbered notifications until
// the file is there; args: our arguments; close: our stdin; mute: our
// stdout; lines {"to", "count"}: so many short ones; sleep {"file"}: read nothing until it is
// there.
#ifdef _WIN32
#include <fcntl.h>
#include <io.h>
#include <windows.h>

#include <shellapi.h>
#else
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
#endif
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct {
    bool acp, garbage, half, deaf, stay, holder, late, nulls;
    unsigned slow, lazy;
    const char *exit_at, *version, *note, *error;
    int exit_code;
} how;
#ifndef _WIN32
static char **arguments;
#endif

static void pause_ms(unsigned ms)
{
#ifdef _WIN32
    Sleep(ms);
#else
    (void)usleep(ms * 1000);
#endif
}

// ------------------------------------------------------------------------------------------------
// What a system has of its own
// ------------------------------------------------------------------------------------------------

static void hold_for_ever(void)
{
    for (;;) {
        pause_ms(1000);
    }
}

// Somebody who has our pipes and survives us.
static void leave_holder(void)
{
#ifdef _WIN32
    wchar_t path[MAX_PATH], line[MAX_PATH + 16];
    STARTUPINFOW startup = {.cb = sizeof startup, .dwFlags = STARTF_USESTDHANDLES};
    PROCESS_INFORMATION made;
    (void)GetModuleFileNameW(NULL, path, MAX_PATH);
    (void)swprintf(line, MAX_PATH + 16, L"\"%ls\" hold", path);
    startup.hStdInput = GetStdHandle(STD_INPUT_HANDLE);
    startup.hStdOutput = GetStdHandle(STD_OUTPUT_HANDLE);
    startup.hStdError = GetStdHandle(STD_ERROR_HANDLE);
    if (CreateProcessW(path, line, NULL, NULL, TRUE, CREATE_BREAKAWAY_FROM_JOB, NULL, NULL,
                       &startup, &made) ||
        CreateProcessW(path, line, NULL, NULL, TRUE, 0, NULL, NULL, &startup, &made)) {
        (void)CloseHandle(made.hThread);
        (void)CloseHandle(made.hProcess);
    }
#else
    if (fork() == 0) {
        (void)setsid();
        if (fork() == 0) {
            hold_for_ever();
        }
        _exit(0);
    }
    (void)wait(NULL);
#endif
}

static void begin(void)
{
#ifdef _WIN32
    (void)_setmode(0, _O_BINARY);
    (void)_setmode(1, _O_BINARY);
    (void)_setmode(2, _O_BINARY);
    if (how.stay) {
        (void)SetConsoleCtrlHandler(NULL, TRUE);
    }
#else
    if (how.stay) {
        (void)signal(SIGTERM, SIG_IGN);
    }
#endif
}

static void crash(void)
{
#ifdef _WIN32
    TerminateProcess(GetCurrentProcess(), 0xc0000005);
#else
    (void)signal(SIGSEGV, SIG_DFL);
    (void)raise(SIGSEGV);
#endif
}

// ------------------------------------------------------------------------------------------------
// Lines
// ------------------------------------------------------------------------------------------------

static char *read_line(void)
{
    static char *line;
    static size_t capacity;
    size_t have = 0;
    for (;;) {
        if (capacity - have < 65536) {
            capacity = capacity * 2 + 65536;
            line = realloc(line, capacity);
            if (line == NULL) {
                exit(70);
            }
        }
        if (fgets(line + have, (int)(capacity - have), stdin) == NULL) {
            return NULL;
        }
        have += strlen(line + have);
        if (have > 0 && line[have - 1] == '\n') {
            return line;
        }
    }
}

static void put(const char *text, size_t size)
{
    if (fwrite(text, 1, size, stdout) != size || fflush(stdout) != 0) {
        exit(71);
    }
}

static void say(json_t *message)
{
    static const char garbage[] =
        "this is no JSON\n\n[1, 2\n{\"jsonrpc\":\"2.0\"}\n\xff\xfe\n\"text\"\n";
    (void)json_object_set_new(message, "jsonrpc", json_string("2.0"));
    char *text = json_dumps(message, JSON_COMPACT);
    size_t size = strlen(text), half = how.half ? size / 2 : 0;
    if (how.garbage) {
        put(garbage, sizeof garbage - 1);
    }
    if (half > 0) {
        put(text, half);
        pause_ms(20);
    }
    text[size] = '\n';
    put(text + half, size + 1 - half);
    free(text);
    json_decref(message);
}

static void answer(const json_t *request, json_t *result)
{
    json_t *message =
        json_pack("{s:O, s:o}", "id", json_object_get(request, "id"), "result", result);
    if (how.nulls) {
        (void)json_object_set_new(message, "error", json_null());
    }
    say(message);
}

static void note(const char *file, const char *text)
{
    FILE *to = file != NULL ? fopen(file, "ab") : NULL;
    if (to != NULL) {
        (void)fprintf(to, "%s\n", text);
        (void)fclose(to);
    }
}

// ------------------------------------------------------------------------------------------------
// Methods
// ------------------------------------------------------------------------------------------------

static json_int_t number(const json_t *request, const char *name)
{
    return json_integer_value(json_object_get(json_object_get(request, "params"), name));
}

static const char *text(const json_t *request, const char *name)
{
    const char *value =
        json_string_value(json_object_get(json_object_get(request, "params"), name));
    return value != NULL ? value : "";
}

static json_t *big_text(size_t size)
{
    char *bytes = malloc(size + 1);
    if (bytes == NULL) {
        exit(70);
    }
    for (size_t i = 0; i < size; i++) {
        bytes[i] = (char)('a' + i % 26);
    }
    json_t *json = json_stringn(bytes, size);
    free(bytes);
    return json;
}

static void flood(FILE *to, size_t size)
{
    char line[101];
    memset(line, 'f', 100);
    line[99] = to == stderr ? '\n' : 'f';
    for (size_t some; size > 0; size -= some) {
        some = size < 100 ? size : 100;
        (void)fwrite(line, 1, some, to);
    }
    (void)fflush(to);
}

// Each of them is a line of its own for whoever reads them.
static void empty_lines(FILE *to, json_int_t count)
{
    for (json_int_t i = 0; i < count; i++) {
        (void)fputs(to == stderr ? "\n" : "x\n", to);
    }
    (void)fflush(to);
}

static void notify_number(json_int_t i, size_t size)
{
    json_t *padding = big_text(size);
    json_t *params = json_pack("{s:I, s:o}", "number", i, "padding", padding);
    say(json_pack("{s:s, s:o}", "method", how.acp ? "session/update" : "notifications/message",
                  "params", params));
}

static void count(const char *file, size_t size)
{
    unsigned state = 1;
    for (json_int_t i = 0;; i++) {
        FILE *there = fopen(file, "rb");
        if (there != NULL) {
            (void)fclose(there);
            return;
        }
        state = state * 1103515245u + 12345u;
        notify_number(i, size > 0 ? (state >> 16) % size : 0);
        pause_ms((state >> 8) % 5);
    }
}

static void sleep_until(const char *file)
{
    FILE *there;
    while ((there = fopen(file, "rb")) == NULL) {
        pause_ms(5);
    }
    (void)fclose(there);
}

static void note_answer(const char *id)
{
    char line[64];
    (void)snprintf(line, sizeof line, "answer %.50s", id);
    note(how.note, line);
}

// Asks, and reads what comes until it is answered.
static json_t *ask(const char *method, json_t *params)
{
    static int asked;
    char id[32], *line;
    (void)snprintf(id, sizeof id, "q%d", ++asked);
    say(json_pack("{s:s, s:s, s:O}", "id", id, "method", method, "params", params));
    while ((line = read_line()) != NULL) {
        json_t *message = json_loads(line, JSON_ALLOW_NUL, NULL);
        const char *got = json_string_value(json_object_get(message, "id"));
        const char *method_of = json_string_value(json_object_get(message, "method"));
        if (method_of != NULL) {
            note(how.note, method_of);
        }
        if (got != NULL && method_of == NULL) {
            note_answer(got);
        }
        if (got != NULL && strcmp(got, id) == 0) {
            return message;
        }
        json_decref(message);
    }
    exit(0);
}

// Asks many times. What has been answered when a ping is.
static json_t *ask_often(const json_t *request)
{
    json_t *first = NULL, *params = json_object_get(request, "params");
    json_int_t count = 0;
    char *line;
    for (json_int_t i = 0; i < number(request, "count"); i++) {
        say(json_pack("{s:I, s:O, s:O}", "id", i, "method", json_object_get(params, "method"),
                      "params", json_object_get(params, "params")));
    }
    say(json_pack("{s:s, s:s}", "id", "last", "method", "ping"));
    while ((line = read_line()) != NULL) {
        json_t *message = json_loads(line, JSON_ALLOW_NUL, NULL);
        if (json_is_string(json_object_get(message, "id"))) {
            return json_pack("{s:I, s:O*}", "count", count, "first", first);
        }
        count++;
        first = first != NULL ? first : json_incref(json_object_get(message, "result"));
        json_decref(message);
    }
    exit(0);
}

// In UTF-8; those of main() are in the code page of the system.
static json_t *list_arguments(void)
{
    json_t *list = json_array();
#ifdef _WIN32
    int count = 0;
    wchar_t **wide = CommandLineToArgvW(GetCommandLineW(), &count);
    for (int i = 0; i < count; i++) {
        char text[4096] = "";
        (void)WideCharToMultiByte(CP_UTF8, 0, wide[i], -1, text, sizeof text, NULL, NULL);
        (void)json_array_append_new(list, json_string(text));
    }
#else
    for (char **at = arguments; *at != NULL; at++) {
        (void)json_array_append_new(list, json_string(*at));
    }
#endif
    return list;
}

static json_t *initialize(void)
{
    pause_ms(how.slow);
    while (how.late && read_line() != NULL) {
    }
    if (how.acp) {
        return json_pack("{s:i, s:{}}", "protocolVersion",
                         how.version != NULL ? atoi(how.version) : 1, "agentCapabilities");
    }
    return json_pack("{s:s, s:{}, s:{s:s, s:s}}", "protocolVersion",
                     how.version != NULL ? how.version : "2025-06-18", "capabilities", "serverInfo",
                     "name", "mock", "version", "1");
}

// What is more than an answer. false: there is none.
static bool special(const char *method, const json_t *request)
{
    if (strcmp(method, "die") == 0) {
        exit((int)number(request, "code"));
    } else if (strcmp(method, "crash") == 0) {
        crash();
    } else if (strcmp(method, "hang") == 0) {
        return false;
    } else if (strcmp(method, "mute") == 0) {
        (void)fclose(stdout);
        hold_for_ever();
    } else if (strcmp(method, "lines") == 0) {
        empty_lines(strcmp(text(request, "to"), "stderr") == 0 ? stderr : stdout,
                    number(request, "count"));
    } else if (strcmp(method, "flood") == 0) {
        flood(stderr, (size_t)number(request, "size"));
    } else if (strcmp(method, "long") == 0) {
        flood(stdout, (size_t)number(request, "size"));
        put("\n", 1);
    } else if (strcmp(method, "notify") == 0) {
        for (json_int_t i = 0; i < number(request, "count"); i++) {
            notify_number(i, 0);
        }
    } else if (strcmp(method, "count") == 0) {
        count(text(request, "file"), (size_t)number(request, "size"));
    } else if (strcmp(method, "sleep") == 0) {
        sleep_until(text(request, "file"));
    } else if (strcmp(method, "close") == 0) {
        (void)fclose(stdin);
    }
    return true;
}

static json_t *result_of(const char *method, const json_t *request)
{
    json_t *params = json_object_get(request, "params");
    const char *value;
    if (strcmp(method, "initialize") == 0) {
        return initialize();
    }
    if (strcmp(method, "session/new") == 0) {
        return json_pack("{s:s}", "sessionId", "session-of-the-mock");
    }
    if (strcmp(method, "big") == 0) {
        return json_pack("{s:o}", "text", big_text((size_t)number(request, "size")));
    }
    if (strcmp(method, "ask") == 0) {
        return ask(text(request, "method"), json_object_get(params, "params"));
    }
    if (strcmp(method, "asks") == 0) {
        return ask_often(request);
    }
    if (strcmp(method, "env") == 0) {
        value = getenv(text(request, "name"));
        return json_pack("{s:s*}", "value", value);
    }
    if (strcmp(method, "args") == 0) {
        return json_pack("{s:o}", "args", list_arguments());
    }
    return json_pack("{s:O*}", "params", params);
}

static void take(const json_t *message)
{
    const char *method = json_string_value(json_object_get(message, "method"));
    if (message == NULL) {
        note(how.note, "bad");
        return;
    }
    if (method == NULL) {
        const char *id = json_string_value(json_object_get(message, "id"));
        note_answer(id != NULL ? id : "?");
        return;
    }
    note(how.note, method);
    if (how.exit_at != NULL && strcmp(how.exit_at, method) == 0) {
        exit(how.exit_code);
    }
    if (how.error != NULL && strcmp(method, "initialize") == 0) {
        say(json_pack("{s:O, s:{s:i, s:s}}", "id", json_object_get(message, "id"), "error", "code",
                      -32000, "message", how.error));
    } else if (json_object_get(message, "id") != NULL && special(method, message)) {
        answer(message, result_of(method, message));
    }
    bool last = strcmp(method, how.acp ? "session/new" : "notifications/initialized") == 0;
    if (how.deaf && last) {
        hold_for_ever();
    }
}

static void take_flags(int argc, char **argv)
{
    for (int i = 2; i < argc; i++) {
        const char *flag = argv[i];
        const char *next = i + 1 < argc ? argv[i + 1] : "";
        how.garbage = how.garbage || strcmp(flag, "--garbage") == 0;
        how.half = how.half || strcmp(flag, "--half") == 0;
        how.deaf = how.deaf || strcmp(flag, "--deaf") == 0;
        how.stay = how.stay || strcmp(flag, "--stay") == 0;
        how.late = how.late || strcmp(flag, "--late") == 0;
        how.nulls = how.nulls || strcmp(flag, "--nulls") == 0;
        how.holder = how.holder || strcmp(flag, "--holder") == 0;
        if (strcmp(flag, "--slow") == 0) {
            how.slow = (unsigned)atoi(next);
        } else if (strcmp(flag, "--lazy") == 0) {
            how.lazy = (unsigned)atoi(next);
        } else if (strcmp(flag, "--version") == 0) {
            how.version = next;
        } else if (strcmp(flag, "--error") == 0) {
            how.error = next;
        } else if (strcmp(flag, "--note") == 0) {
            how.note = next;
        } else if (strcmp(flag, "--mark") == 0) {
            note(next, "started");
        } else if (strcmp(flag, "--exit-at") == 0 && i + 2 < argc) {
            how.exit_at = next;
            how.exit_code = atoi(argv[i + 2]);
        }
    }
}

int main(int argc, char **argv)
{
    char *line;
#ifndef _WIN32
    arguments = argv;
#endif
    if (argc < 2) {
        return 2;
    }
    if (strcmp(argv[1], "hold") == 0) {
        hold_for_ever();
    }
    how.acp = strcmp(argv[1], "acp") == 0;
    take_flags(argc, argv);
    begin();
    if (how.holder) {
        leave_holder();
    }
    while ((line = read_line()) != NULL) {
        json_t *message = json_loads(line, JSON_ALLOW_NUL, NULL);
        take(message);
        json_decref(message);
        pause_ms(how.lazy);
    }
    if (how.stay) {
        hold_for_ever();
    }
    return 0;
}

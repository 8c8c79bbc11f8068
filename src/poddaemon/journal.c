#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "poddaemon/daemon.h"

#define RETRY_MS 1000

static void open_file(struct pod *pod)
{
    struct pod_journal *journal = &pod->journal;
    journal->is_ours = true;
    journal->torn = false;
    int result = pod_log_open(&pod->dir, POD_FILE_LOG, &journal->file, &journal->size);
    if (result != PM_OK) {
        journal->file = PM_NATIVE_INVALID;
        journal->retry_ms = uv_now(&pod->loop) + RETRY_MS;
        pod->faults[POD_FAULT_LOG]++;
        return;
    }
    pod_crash_arm(journal->file, &journal->events[0][0], sizeof journal->events);
}

static bool move(struct pod *pod, int from, int to)
{
    char from_name[16], to_name[16];
    (void)snprintf(from_name, sizeof from_name, from > 0 ? POD_FILE_LOG ".%d" : POD_FILE_LOG, from);
    (void)snprintf(to_name, sizeof to_name, POD_FILE_LOG ".%d", to);
    int result = pod_file_replace(&pod->dir, from_name, to_name);
    return result == PM_OK || result == PM_ERR_NOT_FOUND;
}

// log -> log.1 -> log.2; the oldest goes. If one cannot be moved, the newer ones stay, too: nothing
// is lost but the oldest, and the log grows on to twice its size.
static void rotate(struct pod *pod)
{
    struct pod_journal *journal = &pod->journal;
    bool moved = true;
    for (int i = POD_LOG_FILES - 1; i > 0 && moved; i--) {
        moved = move(pod, i - 1, i);
    }
    if (!moved) {
        pod->faults[POD_FAULT_LOG]++;
        journal->rotate_ms = uv_now(&pod->loop) + RETRY_MS;
        return;
    }
    // A crash must not write to whatever gets this descriptor next.
    pod_crash_arm(PM_NATIVE_INVALID, &journal->events[0][0], sizeof journal->events);
    pod_file_close(journal->file);
    open_file(pod);
}

static int put(struct pod_journal *journal, const char *text, size_t size)
{
    size_t count;
    int result = pod_log_append(journal->file, text, size, &count);
    journal->size += count;
    journal->torn = count > 0 ? text[count - 1] != '\n' : journal->torn;
    return result;
}

static int put_line(struct pod_journal *journal, const char *line, size_t size)
{
    int result = journal->torn ? put(journal, "\n", 1) : PM_OK;
    return result == PM_OK ? put(journal, line, size) : result;
}

static void append(struct pod *pod, const char *line, size_t size)
{
    struct pod_journal *journal = &pod->journal;
    uint64_t now = uv_now(&pod->loop);
    // Whoever has the lock writes the log. A line that is not written is among the last events.
    if (!journal->is_ours || now < journal->retry_ms) {
        return;
    }
    if (journal->file == PM_NATIVE_INVALID) {
        open_file(pod);
    } else if (journal->size + size > POD_LOG_MAX && now >= journal->rotate_ms) {
        rotate(pod);
    }
    if (journal->file == PM_NATIVE_INVALID || journal->size + size > 2 * POD_LOG_MAX) {
        return;
    }
    int result = put_line(journal, line, size);
    if (result == PM_ERR_TOO_BIG && journal->size > 0 && now >= journal->rotate_ms) {
        rotate(pod); // A limit of the system that is below ours.
        result = journal->file != PM_NATIVE_INVALID ? put_line(journal, line, size) : result;
    }
    if (result != PM_OK) {
        pod->faults[POD_FAULT_LOG]++;
        journal->retry_ms = uv_now(&pod->loop) + RETRY_MS;
    }
}

void pod_journal_flush(struct pod *pod)
{
    struct pod_journal *journal = &pod->journal;
    while (journal->unwritten > 0) {
        const char *line =
            journal->events[(journal->next + POD_EVENTS - journal->unwritten) % POD_EVENTS];
        journal->unwritten--;
        append(pod, line, (size_t)((const char *)memchr(line, '\n', POD_EVENT_SIZE) - line) + 1);
    }
}

static void on_before_sleep(uv_prepare_t *prepare)
{
    pod_journal_flush(prepare->data);
}

void pod_journal_open(struct pod *pod)
{
    uv_prepare_t *writer = &pod->journal.writer;
    open_file(pod);
    (void)uv_prepare_init(&pod->loop, writer);
    writer->data = pod;
    (void)uv_prepare_start(writer, on_before_sleep);
    uv_unref((uv_handle_t *)writer);
}

// UTC, without the C library's time zones.
static size_t write_time(char *to, size_t size)
{
    uv_timeval64_t now = {0, 0};
    (void)uv_gettimeofday(&now);
    int64_t days = now.tv_sec / 86400, second = now.tv_sec % 86400;
    // Days since 0000-03-01, years of 400 years: Howard Hinnant, "chrono-compatible low-level date
    // algorithms".
    int64_t z = days + 719468, era = z / 146097, doe = z - era * 146097;
    int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100), mp = (5 * doy + 2) / 153;
    int64_t day = doy - (153 * mp + 2) / 5 + 1, month = mp < 10 ? mp + 3 : mp - 9;
    int64_t year = yoe + era * 400 + (month <= 2);
    int n = snprintf(to, size,
                     "%04" PRId64 "-%02" PRId64 "-%02" PRId64 "T%02" PRId64 ":%02" PRId64
                     ":%02" PRId64 ".%03dZ ",
                     year, month, day, second / 3600, second / 60 % 60, second % 60,
                     (int)(now.tv_usec / 1000));
    return n > 0 && (size_t)n < size ? (size_t)n : 0;
}

void pod_note(struct pod *pod, const char *format, ...)
{
    struct pod_journal *journal = &pod->journal;
    char *line = journal->events[journal->next];
    size_t at = write_time(line, POD_EVENT_SIZE - 1);
    va_list arguments;
    va_start(arguments, format);
    int n = vsnprintf(line + at, POD_EVENT_SIZE - 1 - at, format, arguments);
    va_end(arguments);
    at += n > 0 ? (size_t)n : 0;
    at = at < POD_EVENT_SIZE - 2 ? at : POD_EVENT_SIZE - 2;
    for (size_t i = 0; i < at; i++) { // One event, one line, whatever a peer has called itself.
        line[i] = (unsigned char)line[i] < ' ' || line[i] == 0x7f ? '?' : line[i];
    }
    // Behind the line: blanks, so that the whole table is text for the crash trace.
    line[at] = '\n';
    memset(line + at + 1, '\n', POD_EVENT_SIZE - at - 1);
    journal->next = (journal->next + 1) % POD_EVENTS;
    // Answers are not held up by a file; a crash tells all that is in the table.
    if (++journal->unwritten == POD_EVENTS / 2) {
        pod_journal_flush(pod);
    }
}

void pod_fault(struct pod *pod, enum pod_fault fault, int result, const char *what)
{
    static const char *const loops[POD_FAULTS] = {"accept", "client", "child", "log", "record"};
    pod->faults[fault]++;
    // The first ones, and then ever fewer: a trouble may come a thousand times.
    uint32_t count = pod->faults[fault];
    if ((count & (count - 1)) == 0) {
        pod_note(pod, "trouble %u in the %s loop: %s: %s", (unsigned)count, loops[fault], what,
                 pm_strerror(result));
    }
}

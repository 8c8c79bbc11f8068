// A look reads the process table, and the processes of a group or of a session are those whose line
// says so. That list is as old as its beginning: who forks and ends meanwhile is not in it, nor is
// his child. But numbers are given out in order, so that everybody new has one of those since.
//
// The looks of a round (pmi_os_round_begin) share one list. A later look finds
// - who was there before: in the list, under his session, which he can only leave, or under his
//   group, unless he goes there in this very round. What his line says is read once more;
// - who was born since, also with the number of somebody in the list: each look begins with the
//   numbers that were given out since;
// - who was just being born, with a number and not to be seen: such numbers, new ones and the last
//   ones before the list, are asked again by each look, for longer than a birth takes.
// A list that was not looked at for a while is read again: the numbers might have been once round.
#include "look.h"

#include "backend.h"
#include "group.h"
#include "guards.h"
#include "identity.h"
#include "proctable.h"
#include "sys.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

// Who forks faster than we look, for that long, cannot be told about.
#define LOOK_MS 500
// More new numbers than there were processes and this: all of the process table is read again.
#define NEW_NUMBERS_MOST 4096

static enum pmi_found both(enum pmi_found a, enum pmi_found b)
{
    return a > b ? a : b;
}

static bool is_enough(const struct pmi_search *search, enum pmi_found found)
{
    return found == PMI_SOMEBODY && search->signal == 0;
}

// ------------------------------------------------------------------------------------------------
// One process
// ------------------------------------------------------------------------------------------------

// Pinned first, then seen to be the same still. A kill of a group's leader takes all of the group
// (6.9): so nobody of it can fork away from us.
static void signal_found(pid_t pid, const struct pmi_stat *found, int signal_number)
{
    struct pmi_stat now;
    int pidfd = -1;
#ifdef HAVE_PIDFD
    pidfd = pmi_sys_pidfd_open(pid);
    if (pidfd < 0 && pmi_sys_is_no_process(errno))
        return; // A thread of somebody who is found by his own number, or just gone.
#endif
    if (pmi_stat_read(pid, &now) == PM_OK && now.starttime == found->starttime &&
        now.session == found->session && (pidfd >= 0 || !pmi_is_thread(pid))) {
#ifdef HAVE_PIDFD
        if (pidfd >= 0 && signal_number == SIGKILL)
            (void)pmi_group_pidfd_signal(pidfd, signal_number);
        if (pidfd < 0 ||
            (pmi_sys_pidfd_send_signal(pidfd, signal_number, 0) != 0 && pmi_sys_is_refused(errno)))
#endif
            (void)pmi_sys_kill(pid, signal_number);
    }
    (void)pmi_sys_close(pidfd);
}

static enum pmi_found look_at(const struct pmi_search *search, pid_t pid)
{
    struct pmi_stat stat;
    int result = pid == search->except ? PM_ERR_GONE : pmi_stat_read(pid, &stat);
    if (result != PM_OK)
        return result == PM_ERR_GONE || result == PM_ERR_ACCESS ? PMI_NOBODY : PMI_CANNOT_TELL;
    bool matches = !pmi_stat_is_dead(&stat) && (search->group == 0 || stat.pgrp == search->group) &&
                   (search->session == 0 || pmi_session_of(&stat) == search->session) &&
                   (search->other == 0 || stat.pgrp != search->other) &&
                   (uint64_t)stat.starttime >= search->oldest;
    if (matches && search->signal != 0)
        signal_found(pid, &stat, search->signal);
    return matches ? PMI_SOMEBODY : PMI_NOBODY;
}

// ------------------------------------------------------------------------------------------------
// Without memory
// ------------------------------------------------------------------------------------------------

struct look {
    const struct pmi_search *search;
    enum pmi_found found;
    long entries;
};

static bool look_at_next(void *context, pid_t pid)
{
    struct look *look = context;
    look->entries++;
    look->found = both(look->found, look_at(look->search, pid));
    return !is_enough(look->search, look->found);
}

static enum pmi_found look_at_all(const struct pmi_search *search, long *ret_entries)
{
    struct look look = {.search = search, .found = PMI_NOBODY};
#ifdef HAVE_KINFO_PROC
    int e = search->group != 0 ? pmi_group_pids_visit(search->group, look_at_next, &look)
                               : pmi_pids_visit(look_at_next, &look);
#else
    int e = pmi_pids_visit(look_at_next, &look);
#endif
    *ret_entries = look.entries;
    return e == 0 ? look.found : both(look.found, PMI_CANNOT_TELL);
}

// The look is over when there are no new numbers. Its time begins behind the list, which may be
// long. Who is born while the list is read may be signalled twice.
static enum pmi_found look_directly(const struct pmi_search *search)
{
    long before = pmi_last_number(), entries;
    enum pmi_found found = look_at_all(search, &entries);
    int64_t deadline = pmi_now_ms() + LOOK_MS;
    while (before >= 0 && !is_enough(search, found) && !PMI_WITHOUT("complete looks")) {
        long after = pmi_last_number();
        if (after == before)
            return found;
        if (after < 0 || pmi_now_ms() >= deadline)
            return both(found, PMI_CANNOT_TELL);
        if (after < before || after - before > entries + NEW_NUMBERS_MOST)
            found = both(found, look_at_all(search, &entries));
        else
            for (long pid = before + 1; pid <= after; pid++)
                found = both(found, look_at(search, (pid_t)pid));
        before = after;
    }
    return found;
}

// ------------------------------------------------------------------------------------------------
// A table
// ------------------------------------------------------------------------------------------------

// Numbers from before the list that are asked for all the same, and for how long a number is that
// has nobody yet: a birth goes from the one to the other in microseconds, unless it is preempted.
#define UNBORN_NUMBERS 32
#define UNBORN_MS 50
#define UNBORN_MOST 256
// Long before the numbers can have been once round.
#define UNCHECKED_MS 50

#define BUCKETS 1024

enum key {
    BY_GROUP,
    BY_SESSION,
    KEYS
};

struct row {
    pid_t pid; // 0 = a thread: its process has a row of its own.
    pid_t keys[KEYS];
    uint64_t start;
    bool is_new;       // Found by its number, which may be that of a thread.
    size_t next[KEYS]; // Of the same bucket, counted from 1; 0 = none.
};

struct unborn {
    pid_t pid;
    int64_t until_ms;
};

struct table {
    struct row *rows; // Of those who lived.
    size_t count, capacity;
    size_t buckets[KEYS][BUCKETS]; // Counted from 1; 0 = empty.
    struct unborn unborn[UNBORN_MOST];
    size_t unborn_count;
    long last;     // Up to this number everybody is in it who is to be seen.
    size_t missed; // Of the numbers since it was looked at before: whose process was gone, or dead.
    bool full;
    unsigned fillings;
    int64_t checked_ms;
};

static size_t *bucket_of(struct table *table, enum key key, pid_t value)
{
    return &table->buckets[key][(unsigned)value % BUCKETS];
}

static void empty(struct table *table)
{
    table->count = table->unborn_count = 0;
    memset(table->buckets, 0, sizeof(table->buckets));
    table->full = false;
}

static bool push(struct table *table, pid_t pid, const struct pmi_stat *stat, bool is_new)
{
    if (table->count == table->capacity) {
        size_t capacity = table->capacity > 0 ? table->capacity * 2 : 512;
        struct row *rows = realloc(table->rows, capacity * sizeof(*rows));
        if (rows == NULL)
            return false;
        table->rows = rows;
        table->capacity = capacity;
    }
    struct row *row = &table->rows[table->count++];
    *row = (struct row){.pid = pid,
                        .keys = {stat->pgrp, stat->session},
                        .start = (uint64_t)stat->starttime,
                        .is_new = is_new};
    for (enum key key = 0; key < KEYS; key++) {
        size_t *bucket = bucket_of(table, key, row->keys[key]);
        row->next[key] = *bucket;
        *bucket = table->count;
    }
    return true;
}

static bool is_listed(const struct table *table, pid_t pid, const struct pmi_stat *stat)
{
    for (size_t i = 0; i < table->count; i++)
        if (table->rows[i].pid == pid && table->rows[i].start == (uint64_t)stat->starttime)
            return true;
    return false;
}

// PM_OK; PM_ERR_GONE: nobody to be seen.
static int add(struct table *table, pid_t pid, bool is_new)
{
    struct pmi_stat stat;
    int result = pmi_stat_read(pid, &stat);
    table->missed += result == PM_ERR_GONE || (result == PM_OK && pmi_stat_is_dead(&stat));
    if (result == PM_ERR_ACCESS || (result == PM_OK && pmi_stat_is_dead(&stat)))
        return PM_OK;
    if (result != PM_OK || (is_new && is_listed(table, pid, &stat)))
        return result;
    return push(table, pid, &stat, is_new) ? PM_OK : PM_ERR_NO_MEMORY;
}

struct filling {
    struct table *table;
    int result;
};

static bool add_next(void *context, pid_t pid)
{
    struct filling *filling = context;
    int result = add(filling->table, pid, false);
    if (result != PM_ERR_GONE)
        filling->result = result;
    return filling->result == PM_OK;
}

// From there on catch_up() takes it to be up to date. False: look without it.
static bool fill(struct table *table)
{
    struct filling filling = {.table = table, .result = PM_OK};
    empty(table);
    long before = pmi_last_number();
    if (before < 0 || pmi_pids_visit(add_next, &filling) != 0 || filling.result != PM_OK)
        return false;
    table->last = before > UNBORN_NUMBERS ? before - UNBORN_NUMBERS : 0;
    table->checked_ms = pmi_now_ms();
    table->full = true;
    table->fillings++;
    return true;
}

// False: it cannot be told.
static bool add_new(struct table *table, pid_t pid, int64_t until_ms)
{
    int result = add(table, pid, true);
    if (result != PM_ERR_GONE || pmi_now_ms() >= until_ms)
        return result == PM_OK || result == PM_ERR_GONE;
    if (table->unborn_count == UNBORN_MOST) // The first of them have had the most time.
        memmove(table->unborn, table->unborn + 1, --table->unborn_count * sizeof(table->unborn[0]));
    table->unborn[table->unborn_count++] = (struct unborn){pid, until_ms};
    return true;
}

static bool add_unborn(struct table *table)
{
    bool good = true;
    size_t count = table->unborn_count;
    table->unborn_count = 0;
    for (size_t i = 0; i < count && good; i++) // Who is unborn still moves forward in the list.
        good = add_new(table, table->unborn[i].pid, table->unborn[i].until_ms);
    return good;
}

// Those behind `after`, up to `last`.
static bool add_numbers(struct table *table, long after, long last)
{
    bool good = true;
    int64_t until_ms = pmi_now_ms() + UNBORN_MS;
    for (long pid = after + 1; pid <= last && good; pid++)
        good = add_new(table, (pid_t)pid, until_ms);
    return good;
}

static bool add_since(struct table *table, long last)
{
    long most = (long)table->count + NEW_NUMBERS_MOST;
    long end = last < table->last ? pmi_end_of_numbers() : last; // Once round.
    if (end < table->last || end - table->last + (end == last ? 0 : last) > most)
        return false;
    table->missed = 0;
    bool good =
        add_numbers(table, table->last, end) && (end == last || add_numbers(table, 0, last));
    table->last = last;
    return good;
}

// False: look without it.
static bool catch_up(struct table *table, int64_t unchecked_ms)
{
    for (int i = 0; i < 3; i++) {
        int64_t now = pmi_now_ms();
        long last = pmi_last_number();
        if (last < 0)
            return false;
        if (table->full && now - table->checked_ms < unchecked_ms && add_since(table, last)) {
            table->checked_ms = now;
            return true;
        }
        if (!fill(table))
            return false;
    }
    return false;
}

// How many there are to be looked at, from the row `from` on.
static size_t look_at_rows(struct table *table, const struct pmi_search *search, size_t from,
                           enum pmi_found *found)
{
    enum key key = search->group != 0 ? BY_GROUP : BY_SESSION;
    pid_t value = search->group != 0 ? search->group : search->session;
    size_t looked_at = 0, next = *bucket_of(table, key, value);
    // The latest first.
    for (; next > from && !is_enough(search, *found); next = table->rows[next - 1].next[key]) {
        struct row *row = &table->rows[next - 1];
        // A process may be killed twice, and a kill is in a hurry.
        if (row->keys[key] == value && row->is_new && search->signal != SIGKILL &&
            pmi_is_thread(row->pid))
            row->pid = 0;
        if (row->keys[key] != value || row->pid == 0)
            continue;
        *found = both(*found, look_at(search, row->pid));
        looked_at++;
    }
    return looked_at;
}

// Until nobody was left to be looked at, nor anybody new had gone before he could be: he might have
// left a child behind the last number. False: look without it.
static bool look_in(struct table *table, const struct pmi_search *search, enum pmi_found *ret_found)
{
    enum pmi_found found = PMI_NOBODY;
    if (!add_unborn(table) || !catch_up(table, UNCHECKED_MS))
        return false;
    int64_t deadline = pmi_now_ms() + LOOK_MS; // It begins behind the list, which may be long.
    unsigned fillings = table->fillings;
    size_t from = 0;
    while (look_at_rows(table, search, from, &found) > 0 || table->missed > 0) {
        if (is_enough(search, found) || PMI_WITHOUT("complete looks"))
            break;
        from = table->count;
        // Its own time is the bound here: nobody is to be met again in another list.
        if (!add_unborn(table) || !catch_up(table, INT64_MAX) || pmi_now_ms() >= deadline) {
            found = both(found, PMI_CANNOT_TELL);
            break;
        }
        from = table->fillings == fillings ? from : 0;
        fillings = table->fillings;
    }
    *ret_found = found;
    return true;
}

static void destroy(struct table *table)
{
    if (table != NULL)
        free(table->rows);
    free(table);
}

// ------------------------------------------------------------------------------------------------
// Rounds
// ------------------------------------------------------------------------------------------------

static _Thread_local struct {
    unsigned depth;
    struct table *table; // Not before the first look.
} round_of_thread;

void pmi_os_round_begin(void)
{
    round_of_thread.depth++;
}

void pmi_os_round_end(void)
{
    if (round_of_thread.depth > 0 && --round_of_thread.depth == 0) { // 0: in a copy.
        destroy(round_of_thread.table);
        round_of_thread.table = NULL;
    }
}

void pmi_look_forget_parent(void)
{
    destroy(round_of_thread.table);
    round_of_thread.table = NULL;
    round_of_thread.depth = 0;
}

enum pmi_found pmi_look_for(const struct pmi_search *search)
{
    enum pmi_found found;
    bool in_round = round_of_thread.depth > 0;
    if (pmi_proc_is_foreign()) // Its numbers are those of another namespace: of strangers.
        return PMI_CANNOT_TELL;
    // A look that is the only one, and ends with the first one found, needs no list.
    if (!in_round && search->signal == 0)
        return look_directly(search);
    struct table *table = in_round ? round_of_thread.table : NULL;
    if (table == NULL)
        table = calloc(1, sizeof(*table));
    if (table == NULL || !look_in(table, search, &found)) {
        destroy(table);
        table = NULL;
        found = look_directly(search);
    }
    if (in_round)
        round_of_thread.table = table;
    else
        destroy(table);
    return found;
}

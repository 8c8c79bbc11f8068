// Work for the loop from other threads, and threads of one's own for what blocks longer than a
// worker of libuv should: there are only four of those, and ends and kills are theirs.
#ifndef RUNNER_POST_H
#define RUNNER_POST_H

#include <stdbool.h>
#include <uv.h>

struct post;
struct post_item { // Part of what it is about: sending needs no memory.
    struct post_item *next;
    void (*run)(void *user); // On the loop.
    void *user;
};
// NULL: no memory. `most` of the threads below run at once, the others wait for their turn; 0: all.
struct post *post_open(uv_loop_t *loop, unsigned most);
// Any thread. Once it is closed, nothing is run any more.
void post_send(struct post *post, struct post_item *item);
void post_close(struct post *post); // On the loop; when the last thread below is back.
// Somebody may send at any time, on the loop: until he is let go of, the post is not freed. That of
// a child that could not be ended stays for ever.
void post_hold(struct post *post);
void post_let(struct post *post);
void post_free(struct post *post); // When the loop has come round.

// Runs `block` on a thread of its own and then `after` on the loop. The struct is the caller's,
// until then. 0 or a uv error: nothing was begun.
struct post_thread {
    struct post_item item;
    struct post *post;
    uv_thread_t thread;
    void (*block)(void *user);
    void (*after)(void *user);
    void *user;
    bool passes;  // It waits for no turn: somebody's end is in it.
    bool dropped; // Said to `after`: there was no `block`.
};
int post_thread(struct post *post, struct post_thread *thread);
// On the loop: those that wait for their turn have none any more, and are told that by the loop.
void post_drop_waiting(struct post *post);

#endif

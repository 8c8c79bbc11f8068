#include "runner/post.h"

#include <limits.h>
#include <stdlib.h>

#include "runner/os.h"

struct post {
    uv_async_t wake;
    uv_mutex_t lock;
    struct post_item *first, **last;
    bool closed;
    bool closing;           // On the loop, as is the next.
    unsigned threads, held; // Threads: with those that wait.
    unsigned running, most;
    struct post_item *waiting, **last_waiting;
};

static void on_wake(uv_async_t *async)
{
    struct post *post = async->data;
    uv_mutex_lock(&post->lock);
    struct post_item *item = post->first;
    post->first = NULL;
    post->last = &post->first;
    uv_mutex_unlock(&post->lock);
    while (item != NULL) {
        struct post_item *next = item->next; // Running it may free it.
        item->run(item->user);
        item = next;
    }
}

struct post *post_open(uv_loop_t *loop, unsigned most)
{
    struct post *post = calloc(1, sizeof *post);
    if (post == NULL || uv_mutex_init(&post->lock) != 0) {
        free(post);
        return NULL;
    }
    if (uv_async_init(loop, &post->wake, on_wake) != 0) {
        uv_mutex_destroy(&post->lock);
        free(post);
        return NULL;
    }
    post->wake.data = post;
    post->last = &post->first;
    post->last_waiting = &post->waiting;
    post->most = most > 0 ? most : UINT_MAX;
    return post;
}

void post_send(struct post *post, struct post_item *item)
{
    item->next = NULL;
    uv_mutex_lock(&post->lock);
    *post->last = item;
    post->last = &item->next;
    if (!post->closed) {
        (void)uv_async_send(&post->wake);
    }
    uv_mutex_unlock(&post->lock);
}

void post_close(struct post *post)
{
    post->closing = true;
    if (post->threads > 0 || post->closed) {
        return;
    }
    uv_mutex_lock(&post->lock);
    post->closed = true;
    uv_mutex_unlock(&post->lock);
    uv_close((uv_handle_t *)&post->wake, NULL);
}

void post_hold(struct post *post)
{
    post->held++;
}

void post_let(struct post *post)
{
    post->held--;
}

void post_free(struct post *post)
{
    if (post != NULL && post->held == 0) {
        uv_mutex_destroy(&post->lock);
        free(post);
    }
}

static void run_thread(void *user)
{
    struct post_thread *thread = user;
    thread->block(thread->user);
    post_send(thread->post, &thread->item);
}

static int begin(struct post *post, struct post_thread *thread)
{
    // Born so, it takes no signal, also when the loop listens to none any more.
    bool held = os_signals_hold();
    int result = uv_thread_create(&thread->thread, run_thread, thread);
    if (held) {
        os_signals_let();
    }
    post->running += result == 0 ? 1 : 0;
    return result;
}

static struct post_thread *take_waiting(struct post *post)
{
    struct post_thread *thread = post->waiting->user;
    post->waiting = post->waiting->next;
    post->last_waiting = post->waiting != NULL ? post->last_waiting : &post->waiting;
    return thread;
}

static void put_back(struct post *post, struct post_thread *thread)
{
    thread->item.next = post->waiting;
    post->last_waiting = post->waiting != NULL ? post->last_waiting : &thread->item.next;
    post->waiting = &thread->item;
}

static void begin_waiting(struct post *post)
{
    while (post->waiting != NULL && post->running < post->most) {
        // Before it runs: it sends its item when it is done.
        struct post_thread *thread = take_waiting(post);
        if (begin(post, thread) == 0) {
            continue;
        }
        if (post->running > 0) { // No thread can be had: again when the next one is back.
            put_back(post, thread);
            return;
        }
        post->threads--; // Nobody comes back. Late is better than never.
        thread->block(thread->user);
        thread->after(thread->user);
    }
}

static void after_thread(void *user)
{
    struct post_thread *thread = user;
    struct post *post = thread->post;
    if (!thread->dropped) {
        (void)uv_thread_join(&thread->thread);
        post->running--;
    }
    post->threads--;
    thread->after(thread->user); // It may free the thread's struct.
    begin_waiting(post);
    if (post->closing) {
        post_close(post);
    }
}

int post_thread(struct post *post, struct post_thread *thread)
{
    int result = 0;
    thread->post = post;
    thread->item = (struct post_item){NULL, after_thread, thread};
    if (post->running < post->most || thread->passes) {
        result = begin(post, thread);
    } else {
        *post->last_waiting = &thread->item;
        post->last_waiting = &thread->item.next;
    }
    post->threads += result == 0 ? 1 : 0;
    return result;
}

void post_drop_waiting(struct post *post)
{
    while (post->waiting != NULL) {
        struct post_thread *thread = take_waiting(post);
        thread->dropped = true;
        // Not from here: what it is about may be in our caller's hands.
        post_send(post, &thread->item);
    }
}

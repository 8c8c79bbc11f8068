// One thread that lives as long as its manager and gives birth to the die_with_parent children, one
// at a time.
#include "start.h"

#include <assert.h>

struct pmi_spawner_order {
    void (*run)(void *);
    void *arg;
    bool done;
};

void pmi_spawner_init(struct pmi_spawner *spawner)
{
    *spawner = (struct pmi_spawner){.running = false};
    pmi_mutex_init(&spawner->lock);
    pmi_cond_init(&spawner->changed);
}

static void serve(void *arg)
{
    struct pmi_spawner *spawner = arg;
    pmi_mutex_lock(&spawner->lock);
    for (;;) {
        while (spawner->order == NULL && !spawner->quit)
            pmi_cond_wait(&spawner->changed, &spawner->lock, PMI_NEVER);
        struct pmi_spawner_order *order = spawner->order;
        if (order == NULL)
            break;
        pmi_mutex_unlock(&spawner->lock);
        order->run(order->arg);
        pmi_mutex_lock(&spawner->lock);
        order->done = true;
        spawner->order = NULL;
        pmi_cond_broadcast(&spawner->changed);
    }
    pmi_mutex_unlock(&spawner->lock);
}

int pmi_spawner_run(struct pmi_spawner *spawner, void (*run)(void *), void *arg, int64_t deadline)
{
    struct pmi_spawner_order order = {.run = run, .arg = arg};
    int result = PM_OK;
    pmi_mutex_lock(&spawner->lock);
    assert(!spawner->quit);
    if (!spawner->running) {
        result = pmi_thread_start(&spawner->thread, serve, spawner);
        spawner->running = result == PM_OK;
    }
    while (result == PM_OK && spawner->order != NULL) {
        if (pmi_now_ms() >= deadline)
            result = PM_ERR_TIMEOUT;
        else
            pmi_cond_wait(&spawner->changed, &spawner->lock, deadline);
    }
    if (result == PM_OK) {
        spawner->order = &order;
        pmi_cond_broadcast(&spawner->changed);
        while (!order.done)
            pmi_cond_wait(&spawner->changed, &spawner->lock, PMI_NEVER);
    }
    pmi_mutex_unlock(&spawner->lock);
    return result;
}

void pmi_spawner_stop(struct pmi_spawner *spawner)
{
    pmi_mutex_lock(&spawner->lock);
    spawner->quit = true;
    pmi_cond_broadcast(&spawner->changed);
    pmi_mutex_unlock(&spawner->lock);
    pmi_thread_join(&spawner->thread);
    spawner->running = false;
    pmi_cond_destroy(&spawner->changed);
    pmi_mutex_destroy(&spawner->lock);
}

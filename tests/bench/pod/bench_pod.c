// bench_pod [--json] [--quick] [GROUP...]: what a pod costs its session, beside a bare terminal and
// other holders in the same run. Rivals take turns, so that what disturbs one disturbs all.
#include "../bench.h"
#include "fleet.h"
#include "floor.h"
#include "holders.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MIB (1024u * 1024u)

struct rival {
    struct holder holder;
    struct holder_client client;
    struct bench_samples samples, cpu;
};

static struct rival rivals[HOLDER_KINDS];

static void start_rivals(const char *role, size_t size, enum holder_kind first)
{
    for (enum holder_kind kind = first; kind < HOLDER_KINDS; kind++) {
        struct rival *rival = &rivals[kind];
        memset(rival, 0, sizeof *rival);
        if (!holder_is_here(kind)) {
            fprintf(stderr, "bench: %s left out: it is not installed\n", holder_name(kind));
        } else {
            holder_start(&rival->holder, kind, role, size);
            holder_connect(&rival->holder, &rival->client, false);
        }
    }
}

static void end_rivals(enum holder_kind first)
{
    for (enum holder_kind kind = first; kind < HOLDER_KINDS; kind++) {
        if (holder_is_here(kind)) {
            holder_disconnect(&rivals[kind].client);
            holder_end(&rivals[kind].holder);
        }
    }
}

// ------------------------------------------------------------------------------------------------
// Echo: a key, and what the program makes of it
// ------------------------------------------------------------------------------------------------

static double one_echo(struct holder_client *client)
{
    double begin = bench_now_us();
    holder_type(client, 'k');
    holder_receive(client, client->received + 1);
    return bench_now_us() - begin;
}

static void group_echo(void)
{
    int rounds = 5000 / bench_scale;
    start_rivals("echo", 0, HOLDER_BARE);
    for (int i = 0; i < rounds + 20; i++) {
        for (enum holder_kind kind = 0; kind < HOLDER_KINDS; kind++) {
            if (holder_is_here(kind)) {
                double us = one_echo(&rivals[kind].client);
                if (i >= 20) { // Warm-up.
                    bench_add(&rivals[kind].samples, us);
                }
            }
        }
    }
    end_rivals(HOLDER_BARE);
    for (enum holder_kind kind = 0; kind < HOLDER_KINDS; kind++) {
        if (holder_is_here(kind)) {
            bench_row("echo", holder_name(kind), "", &rivals[kind].samples);
        }
    }
    bench_added("pod: echo on top of a bare terminal, p50", "echo", "", "pod", "bare pty", 40,
                " us");
    bench_added("dtach: the same", "echo", "", "dtach", "bare pty", 0, " us");
    bench_added("conmon: the same", "echo", "", "conmon", "bare pty", 0, " us");
}

// ------------------------------------------------------------------------------------------------
// Flood: a program that writes as fast as it can
// ------------------------------------------------------------------------------------------------

// Once. Adds the rate of what arrived, and what it cost the holder.
static void one_flood(struct rival *rival, size_t size)
{
    struct holder_client *client = &rival->client;
    uint64_t pid = rival->holder.pid, received = client->received;
    double cpu = pid != 0 ? process_cpu_us(pid) : 0, begin = bench_now_us();
    holder_type(client, 'k');
    holder_receive(client, received + client->skipped + size);
    double us = bench_now_us() - begin;
    bench_add(&rival->samples, (double)(client->received - received) / us); // MB/s
    if (pid != 0) {
        bench_add(&rival->cpu, (process_cpu_us(pid) - cpu) / 1e3 / ((double)size / 1e6));
    }
}

// Two pods in turns. Of one somebody looks on who reads nothing more.
static void flood_beside_stalled(size_t size, const char *parameters)
{
    static const char *const names[] = {"pod", "pod, one stalled"};
    struct rival pods[2];
    struct holder_client stalled;
    memset(pods, 0, sizeof pods);
    for (int i = 0; i < 2; i++) {
        holder_start(&pods[i].holder, HOLDER_POD, "flood", size);
        holder_connect(&pods[i].holder, &pods[i].client, false);
    }
    holder_look_on(&pods[1].holder, &stalled);
    one_flood(&pods[1], size); // Its socket is full from here on.
    bench_clear(&pods[1].samples);
    bench_clear(&pods[1].cpu);
    for (int i = 0; i < 14; i++) {
        one_flood(&pods[i % 2], size);
    }
    holder_disconnect(&stalled);
    for (int i = 0; i < 2; i++) {
        holder_disconnect(&pods[i].client);
        holder_end(&pods[i].holder);
        bench_figure("flood, looked on", names[i], parameters,
                     bench_percentile(&pods[i].samples, 0.5), "MB/s");
        bench_clear(&pods[i].samples);
        bench_clear(&pods[i].cpu);
    }
    bench_ratio("pod: flood beside a stalled viewer : without", "flood, looked on", parameters,
                names[1], names[0], 0.9, false);
}

static void group_flood(void)
{
    size_t size = 32u * MIB / (size_t)bench_scale;
    char parameters[32];
    double cpu = 0;
    (void)snprintf(parameters, sizeof parameters, "bytes=%zu", size);
    start_rivals("flood", size, HOLDER_BARE);
    for (int i = 0; i < 7; i++) {
        for (enum holder_kind kind = 0; kind < HOLDER_KINDS; kind++) {
            if (holder_is_here(kind)) {
                one_flood(&rivals[kind], size);
            }
        }
    }
    double skipped = (double)rivals[HOLDER_POD].client.skipped / 1e6;
    end_rivals(HOLDER_BARE);
    for (enum holder_kind kind = 0; kind < HOLDER_KINDS; kind++) {
        if (holder_is_here(kind)) {
            bench_figure("flood", holder_name(kind), parameters,
                         bench_percentile(&rivals[kind].samples, 0.5), "MB/s");
            bench_clear(&rivals[kind].samples);
        }
    }
    for (enum holder_kind kind = HOLDER_POD; kind < HOLDER_KINDS; kind++) {
        if (holder_is_here(kind)) {
            double ms = bench_percentile(&rivals[kind].cpu, 0.5);
            bench_figure("flood, its CPU", holder_name(kind), parameters, ms, "ms/MB");
            bench_clear(&rivals[kind].cpu);
            cpu = kind == HOLDER_POD ? ms : cpu;
        }
    }
    if (skipped > 0) {
        bench_figure("flood, skipped", "pod", parameters, skipped, "MB");
    }
    bench_ratio("pod: flood : bare terminal", "flood", parameters, "pod", "bare pty", 0.9, false);
    bench_ratio("dtach: the same", "flood", parameters, "dtach", "bare pty", 0, false);
    bench_ratio("conmon: the same", "flood", parameters, "conmon", "bare pty", 0, false);
    bench_bound("pod: its CPU per MB of a flood", cpu, 7, " ms");
    flood_beside_stalled(size, parameters);
}

// ------------------------------------------------------------------------------------------------
// Attach
// ------------------------------------------------------------------------------------------------

// From the connect to the answer; `bytes` of replay with it.
static double one_attach(struct holder *holder, bool replay, uint64_t bytes)
{
    struct holder_client client;
    double begin = bench_now_us();
    holder_connect(holder, &client, replay);
    holder_receive(&client, bytes);
    double us = bench_now_us() - begin;
    holder_disconnect(&client);
    return us;
}

static double one_attach_and_echo(struct holder *holder)
{
    struct holder_client client;
    double begin = bench_now_us();
    holder_connect(holder, &client, false);
    holder_type(&client, 'k');
    holder_receive(&client, 1);
    double us = bench_now_us() - begin;
    holder_disconnect(&client);
    return us;
}

static void attach_to_pod(void)
{
    struct holder holder;
    struct holder_client client;
    struct bench_samples plain = {0}, replay = {0}, bare = {0};
    floor_attach_begin();
    holder_start(&holder, HOLDER_POD, "flood", MIB);
    holder_connect(&holder, &client, false);
    holder_type(&client, 'k');
    holder_receive(&client, MIB); // The ring is full.
    holder_disconnect(&client);
    for (int i = 0; i < 500 / bench_scale; i++) {
        bench_add(&bare, floor_attach());
        bench_add(&plain, one_attach(&holder, false, 0));
        bench_add(&replay, one_attach(&holder, true, MIB));
    }
    holder_end(&holder);
    floor_attach_end();
    double plain_p50 = bench_percentile(&plain, 0.5), plain_p99 = bench_percentile(&plain, 0.99);
    double replay_p99 = bench_percentile(&replay, 0.99);
    bench_row("attach", "floor", "replay=0", &bare);
    bench_row("attach", "pod", "replay=0", &plain);
    bench_row("attach", "pod", "replay=1048576", &replay);
    bench_bound("pod: attach, p50", plain_p50, 100, " us");
    bench_ratio("pod: attach : its bytes alone", "attach", "replay=0", "pod", "floor", 0, true);
    bench_bound("pod: attach, p99", plain_p99, 1000, " us");
    bench_bound("pod: attach with 1 MiB of replay, p99", replay_p99, 2000, " us");
}

// From the start of the holder to the first byte of its child.
static void start_of_pod(void)
{
    struct bench_samples samples = {0}, bare = {0};
    for (int i = 0; i < 200 / bench_scale; i++) {
        struct holder holder;
        struct holder_client client;
        double begin = bench_now_us();
        holder_start(&holder, HOLDER_POD, "hello", 0);
        holder_connect(&holder, &client, true);
        holder_receive(&client, 1);
        bench_add(&samples, bench_now_us() - begin);
        holder_disconnect(&client);
        holder_end(&holder);
        bench_add(&bare, floor_start());
    }
    double p50 = bench_percentile(&samples, 0.5);
    bench_row("start", "floor", "", &bare);
    bench_row("start", "pod", "", &samples);
    bench_bound("pod: from its start to the first byte, p50", p50 / 1e3, 5, " ms");
    bench_ratio("pod: that : its programs and files alone", "start", "", "pod", "floor", 0, true);
}

static void group_attach(void)
{
    start_of_pod();
    attach_to_pod();
    start_rivals("echo", 0, HOLDER_POD);
    for (enum holder_kind kind = HOLDER_POD; kind < HOLDER_KINDS; kind++) {
        if (holder_is_here(kind)) {
            holder_disconnect(&rivals[kind].client);
        }
    }
    for (int i = 0; i < 500 / bench_scale; i++) {
        for (enum holder_kind kind = HOLDER_POD; kind < HOLDER_KINDS; kind++) {
            if (holder_is_here(kind)) {
                bench_add(&rivals[kind].samples, one_attach_and_echo(&rivals[kind].holder));
            }
        }
    }
    for (enum holder_kind kind = HOLDER_POD; kind < HOLDER_KINDS; kind++) {
        if (holder_is_here(kind)) {
            holder_end(&rivals[kind].holder);
            bench_row("attach + echo", holder_name(kind), "", &rivals[kind].samples);
        }
    }
}

// ------------------------------------------------------------------------------------------------
// Idle: a session where nothing happens
// ------------------------------------------------------------------------------------------------

static void group_idle(void)
{
    const struct timespec settled = {1, 0}, time = {20 / bench_scale, 0};
    uint64_t switches[HOLDER_KINDS], turns[HOLDER_KINDS];
    double kib[HOLDER_KINDS] = {0}, wakes[HOLDER_KINDS] = {0};
    char parameters[32];
    (void)snprintf(parameters, sizeof parameters, "seconds=%d", (int)time.tv_sec);
    start_rivals("still", 0, HOLDER_POD);
    for (enum holder_kind kind = HOLDER_POD; kind < HOLDER_KINDS; kind++) {
        if (holder_is_here(kind)) {
            holder_disconnect(&rivals[kind].client);
        }
    }
    (void)nanosleep(&settled, NULL);
    for (enum holder_kind kind = HOLDER_POD; kind < HOLDER_KINDS; kind++) {
        switches[kind] = process_switches(rivals[kind].holder.pid);
        turns[kind] = process_turns(rivals[kind].holder.pid);
    }
    (void)nanosleep(&time, NULL);
    for (enum holder_kind kind = HOLDER_POD; kind < HOLDER_KINDS; kind++) {
        if (holder_is_here(kind)) {
            uint64_t pid = rivals[kind].holder.pid;
            double slept = (double)(process_switches(pid) - switches[kind]);
            double ran = (double)(process_turns(pid) - turns[kind]);
            wakes[kind] = slept > ran ? slept : ran;
            kib[kind] = (double)process_private_kib(pid);
            holder_end(&rivals[kind].holder);
            bench_figure("idle, wake-ups", holder_name(kind), parameters, wakes[kind], "");
        }
    }
    for (enum holder_kind kind = HOLDER_POD; kind < HOLDER_KINDS; kind++) {
        if (holder_is_here(kind)) {
            bench_figure("idle, private", holder_name(kind), "", kib[kind], "KiB");
        }
    }
    bench_bound("pod: private memory while idle, before the ring", kib[HOLDER_POD], 344, " KiB");
    bench_bound("pod: wake-ups while idle", wakes[HOLDER_POD], 0, "");
}

// ------------------------------------------------------------------------------------------------

int main(int argc, char **argv)
{
    static const struct bench_group groups[] = {
        {"pod-echo", group_echo}, {"pod-flood", group_flood},       {"pod-attach", group_attach},
        {"pod-idle", group_idle}, {"pod-recovery", group_recovery},
    };
    holders_open(argc, argv);
    int code = bench_main(argc, argv, groups, sizeof groups / sizeof groups[0]);
    holders_close();
    return code;
}

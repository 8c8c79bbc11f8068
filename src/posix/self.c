#include "backend.h"
#include "pmi_config.h"

#include <stdatomic.h>
#include <unistd.h>
#ifdef HAVE_WIPEONFORK
#include <sys/mman.h>
#endif

// The number alone does not tell a forked copy from its parent: the first process of each pid
// namespace is number 1. So a page that the kernel empties in a copy (Linux 4.14; namespaces of
// numbers are Linux's alone) holds how many copies were made down to this one. Where there is no
// such page the number has to be enough.
static _Atomic(atomic_uint *) page;
static atomic_uint no_page = 1;
static atomic_uint copies; // The copy has its parent's, and counts on.

#ifdef HAVE_WIPEONFORK
static atomic_uint *make_page(void)
{
    size_t size = (size_t)sysconf(_SC_PAGESIZE);
    void *made = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (made == MAP_FAILED)
        return &no_page;
    if (madvise(made, size, MADV_WIPEONFORK) == 0)
        return made;
    (void)munmap(made, size);
    return &no_page;
}

static void drop_page(atomic_uint *made)
{
    if (made != &no_page)
        (void)munmap(made, (size_t)sysconf(_SC_PAGESIZE));
}
#else
static atomic_uint *make_page(void)
{
    return &no_page;
}

static void drop_page(atomic_uint *made)
{
    (void)made;
}
#endif

static atomic_uint *find_page(void)
{
    atomic_uint *found = atomic_load(&page), *expected = NULL;
    if (found != NULL)
        return found;
    found = make_page();
    // Decided once: who has told one process by its number alone does not know it by another name.
    if (atomic_compare_exchange_strong(&page, &expected, found))
        return found;
    drop_page(found); // Another thread was first.
    return expected;
}

uint64_t pmi_self(void)
{
    atomic_uint *mine = find_page();
    unsigned copy = atomic_load(mine);
    if (copy == 0) {
        unsigned next = atomic_fetch_add(&copies, 1) + 1;
        copy = atomic_compare_exchange_strong(mine, &copy, next) ? next : copy;
    }
    return (uint64_t)copy << 32 | (uint32_t)getpid();
}

uint64_t pmi_self_pid(void)
{
    return (uint64_t)getpid();
}

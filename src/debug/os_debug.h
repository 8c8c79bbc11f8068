// What the debug server needs from the system: src/posix/debug.c or src/win32/debug.c.
#ifndef PMI_OS_DEBUG_H
#define PMI_OS_DEBUG_H

#include <processmgr/processmgr.h>

typedef intptr_t pmi_debug_socket;
#define PMI_DEBUG_SOCKET_NONE ((pmi_debug_socket)-1)

enum pmi_debug_family {
    PMI_DEBUG_IPV4,
    PMI_DEBUG_IPV6, // Of ::1.
    PMI_DEBUG_UNIX
};

// Checked: loopback.
struct pmi_debug_address {
    enum pmi_debug_family family;
    unsigned char ipv4[4];
    uint16_t port;
    const char *path;
};

struct pmi_debug_listener {
    pmi_debug_socket socket;
    char *path;             // Of a Unix socket, absolute.
    uint64_t device, inode; // Of the file.
    uint64_t socket_inode;  // Tells whether the number is still the socket's.
    char url[300];
};

// On failure the error's code, os_code, field and hint are filled. The socket is close-on-exec and
// does not block.
int pmi_debug_listen(const struct pmi_debug_address *address,
                     struct pmi_debug_listener *ret_listener, struct pm_error *error);
// Closes it if it is open (the HTTP library may have, or not, when it fails to start), and removes
// the file that is still its own.
void pmi_debug_unlisten(struct pmi_debug_listener *listener);
// Makes both directions end, so that whoever waits on it wakes up.
void pmi_debug_shutdown(pmi_debug_socket socket);

// Threads that are made between the two block every signal.
struct pmi_debug_mask {
    unsigned char bytes[128];
};
void pmi_debug_mask_all(struct pmi_debug_mask *ret_old);
void pmi_debug_mask_restore(const struct pmi_debug_mask *old);

uint64_t pmi_debug_self_pid(void);
int64_t pmi_debug_now_ms(void);
int64_t pmi_debug_wall_ms(void);
int pmi_debug_random(void *buffer, size_t size);
// Arguments of a process, each with its NUL, cut to `capacity` bytes. PM_ERR_UNSUPPORTED: the
// system does not tell.
int pmi_debug_arguments(uint64_t pid, char *buffer, size_t capacity, size_t *ret_size);

#endif

// What the debug server needs from the system. Part of that library, not of the core's backend.
#include <winsock2.h>
#include <ws2tcpip.h>
// winsock2.h has to come before windows.h.
#include <windows.h>

#include <ntsecapi.h>

#include <stdio.h>
#include <string.h>

#include "debug/os_debug.h"

#define BACKLOG 32

static int fail(struct pm_error *error, int code, const char *hint)
{
    DWORD e = (DWORD)WSAGetLastError();
    if (code == PM_ERR_SYSTEM) {
        code = e == WSAEADDRINUSE || e == WSAEACCES            ? PM_ERR_EXISTS
               : e == WSAEMFILE                                ? PM_ERR_NO_DESCRIPTORS
               : e == WSAENOBUFS                               ? PM_ERR_NO_MEMORY
               : e == WSAEAFNOSUPPORT || e == WSAEADDRNOTAVAIL ? PM_ERR_UNSUPPORTED
                                                               : PM_ERR_SYSTEM;
        error->os_code = e;
    }
    error->code = code;
    error->stage = PM_STAGE_CHECK;
    (void)snprintf(error->field, sizeof error->field, "address");
    (void)snprintf(error->hint, sizeof error->hint, "%s", hint);
    return code;
}

static int bind_loopback(SOCKET s, const struct pmi_debug_address *address, char *url,
                         size_t capacity)
{
    const unsigned char *a = address->ipv4;
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(address->port)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(address->port)};
    bool six = address->family == PMI_DEBUG_IPV6;
    struct sockaddr *at = six ? (struct sockaddr *)&v6 : (struct sockaddr *)&v4;
    int size = six ? (int)sizeof v6 : (int)sizeof v4;
    memcpy(&v4.sin_addr, a, 4);
    v6.sin6_addr.u.Byte[15] = 1;
    if (bind(s, at, size) != 0 || getsockname(s, at, &size) != 0) {
        return -1;
    }
    if (six) {
        (void)snprintf(url, capacity, "http://[::1]:%u", (unsigned)ntohs(v6.sin6_port));
    } else {
        (void)snprintf(url, capacity, "http://%u.%u.%u.%u:%u", a[0], a[1], a[2], a[3],
                       (unsigned)ntohs(v4.sin_port));
    }
    return 0;
}

int pmi_debug_listen(const struct pmi_debug_address *address,
                     struct pmi_debug_listener *ret_listener, struct pm_error *error)
{
    struct pmi_debug_listener listener = {.socket = PMI_DEBUG_SOCKET_NONE};
    WSADATA data;
    if (address->family == PMI_DEBUG_UNIX) {
        return fail(error, PM_ERR_UNSUPPORTED, "no Unix sockets on Windows: use 127.0.0.1:PORT");
    }
    if (WSAStartup(MAKEWORD(2, 2), &data) != 0) {
        return fail(error, PM_ERR_SYSTEM, "");
    }
    SOCKET s = WSASocketW(address->family == PMI_DEBUG_IPV6 ? AF_INET6 : AF_INET, SOCK_STREAM,
                          IPPROTO_TCP, NULL, 0, WSA_FLAG_OVERLAPPED | WSA_FLAG_NO_HANDLE_INHERIT);
    u_long on = 1;
    BOOL exclusive = TRUE; // Else another program could take the port away.
    if (s == INVALID_SOCKET || ioctlsocket(s, (long)FIONBIO, &on) != 0 ||
        setsockopt(s, SOL_SOCKET, SO_EXCLUSIVEADDRUSE, (const char *)&exclusive,
                   sizeof exclusive) != 0 ||
        bind_loopback(s, address, listener.url, sizeof listener.url) != 0 ||
        listen(s, BACKLOG) != 0) {
        int result = fail(error, PM_ERR_SYSTEM, "");
        if (s != INVALID_SOCKET) {
            (void)closesocket(s);
        }
        (void)WSACleanup();
        return result;
    }
    listener.socket = (pmi_debug_socket)s;
    *ret_listener = listener;
    return PM_OK;
}

void pmi_debug_unlisten(struct pmi_debug_listener *listener)
{
    if (listener->socket != PMI_DEBUG_SOCKET_NONE) {
        (void)closesocket((SOCKET)listener->socket);
    }
    listener->socket = PMI_DEBUG_SOCKET_NONE;
    (void)WSACleanup();
}

void pmi_debug_shutdown(pmi_debug_socket socket)
{
    (void)shutdown((SOCKET)socket, SD_BOTH);
}

void pmi_debug_mask_all(struct pmi_debug_mask *ret_old)
{
    (void)ret_old; // No signals.
}

void pmi_debug_mask_restore(const struct pmi_debug_mask *old)
{
    (void)old;
}

uint64_t pmi_debug_self_pid(void)
{
    return GetCurrentProcessId();
}

int64_t pmi_debug_now_ms(void)
{
    return (int64_t)GetTickCount64();
}

int64_t pmi_debug_wall_ms(void)
{
    const int64_t unix_epoch_ms = 11644473600000; // 1601-01-01 to 1970-01-01.
    FILETIME now;
    GetSystemTimeAsFileTime(&now);
    uint64_t ticks = (uint64_t)now.dwHighDateTime << 32 | now.dwLowDateTime;
    return (int64_t)(ticks / 10000) - unix_epoch_ms;
}

int pmi_debug_random(void *buffer, size_t size)
{
    return RtlGenRandom(buffer, (ULONG)size) ? PM_OK : PM_ERR_SYSTEM;
}

int pmi_debug_arguments(uint64_t pid, char *buffer, size_t capacity, size_t *ret_size)
{
    (void)pid;
    (void)buffer;
    (void)capacity;
    (void)ret_size;
    return PM_ERR_UNSUPPORTED;
}

#ifdef _WIN32
#include <winsock2.h>
#include <ws2tcpip.h>
#else
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#endif

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "http.h"

namespace http
{
namespace
{

#ifdef _WIN32
void Close(intptr_t s)
{
    closesocket(static_cast<SOCKET>(s));
}
int Poll(intptr_t s, int timeout_ms)
{
    WSAPOLLFD fd = {static_cast<SOCKET>(s), POLLIN, 0};
    return WSAPoll(&fd, 1, timeout_ms);
}
const int no_signal = 0;
#else
void Close(intptr_t s)
{
    close(static_cast<int>(s));
}
int Poll(intptr_t s, int timeout_ms)
{
    struct pollfd fd = {static_cast<int>(s), POLLIN, 0};
    return poll(&fd, 1, timeout_ms);
}
const int no_signal = MSG_NOSIGNAL;

// Calls again what a signal interrupted.
template <typename Call>
auto Uninterrupted(Call call)
{
    auto result = call();
    while (result < 0 && errno == EINTR)
        result = call();
    return result;
}
#endif

template <typename Address>
intptr_t Connect(int family, const Address &address)
{
#ifdef _WIN32
    SOCKET s = socket(family, SOCK_STREAM, 0);
    if (s == INVALID_SOCKET)
        return -1;
    if (connect(s, reinterpret_cast<const sockaddr *>(&address), sizeof address) != 0) {
        closesocket(s);
        return -1;
    }
    return static_cast<intptr_t>(s);
#else
    int s = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s >= 0 && Uninterrupted([&] {
                      return connect(s, reinterpret_cast<const sockaddr *>(&address),
                                     sizeof address);
                  }) != 0) {
        close(s);
        s = -1;
    }
    return s;
#endif
}

} // namespace

Connection::Connection(const std::string &address)
{
#ifdef _WIN32
    WSADATA data;
    WSAStartup(MAKEWORD(2, 2), &data);
#else
    if (address.compare(0, 5, "unix:") == 0) {
        sockaddr_un un = {};
        un.sun_family = AF_UNIX;
        strncpy(un.sun_path, address.c_str() + 5, sizeof un.sun_path - 1);
        socket = Connect(AF_UNIX, un);
        return;
    }
#endif
    auto port = static_cast<uint16_t>(atoi(address.c_str() + address.rfind(':') + 1));
    if (address.find('[') != std::string::npos) {
        sockaddr_in6 in = {};
        in.sin6_family = AF_INET6;
        in.sin6_port = htons(port);
        in.sin6_addr = in6addr_loopback;
        socket = Connect(AF_INET6, in);
    } else {
        sockaddr_in in = {};
        in.sin_family = AF_INET;
        in.sin_port = htons(port);
        std::string host = address.substr(7, address.rfind(':') - 7);
        inet_pton(AF_INET, host.c_str(), &in.sin_addr);
        socket = Connect(AF_INET, in);
    }
}

Connection::~Connection()
{
    if (socket != -1)
        Close(socket);
#ifdef _WIN32
    WSACleanup();
#endif
}

bool Connection::Send(const std::string &bytes)
{
    size_t done = 0;
    while (socket != -1 && done < bytes.size()) {
#ifdef _WIN32
        int n = send(static_cast<SOCKET>(socket), bytes.data() + done,
                     static_cast<int>(bytes.size() - done), no_signal);
#else
        ssize_t n = Uninterrupted([&] {
            return send(static_cast<int>(socket), bytes.data() + done, bytes.size() - done,
                        no_signal);
        });
#endif
        if (n <= 0)
            return false;
        done += static_cast<size_t>(n);
    }
    return socket != -1;
}

std::string Connection::ReceiveAll(int timeout_ms, bool *ret_ended)
{
    using Clock = std::chrono::steady_clock;
    auto end = Clock::now() + std::chrono::milliseconds(timeout_ms);
    std::string all;
    if (ret_ended != nullptr)
        *ret_ended = false;
    for (;;) {
        auto rest =
            std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now()).count();
        if (socket == -1 || rest <= 0)
            return all;
        int ready = Poll(socket, static_cast<int>(rest));
        if (ready < 0 && errno == EINTR)
            continue;
        if (ready <= 0)
            return all;
        char buffer[65536];
#ifdef _WIN32
        int n = recv(static_cast<SOCKET>(socket), buffer, sizeof buffer, 0);
#else
        ssize_t n =
            Uninterrupted([&] { return recv(static_cast<int>(socket), buffer, sizeof buffer, 0); });
#endif
        if (n <= 0) {
            if (ret_ended != nullptr)
                *ret_ended = true;
            return all;
        }
        all.append(buffer, static_cast<size_t>(n));
    }
}

Answer Parse(const std::string &raw)
{
    Answer answer;
    answer.raw = raw;
    size_t end = raw.find("\r\n\r\n");
    if (raw.compare(0, 7, "HTTP/1.") != 0 || end == std::string::npos)
        return answer;
    answer.status = atoi(raw.c_str() + 9);
    answer.body = raw.substr(end + 4);
    size_t at = raw.find("\r\n") + 2;
    while (at < end + 2) {
        size_t line_end = raw.find("\r\n", at);
        size_t colon = raw.find(": ", at);
        std::string name = raw.substr(at, colon - at);
        for (char &c : name)
            c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
        answer.headers[name] = raw.substr(colon + 2, line_end - colon - 2);
        at = line_end + 2;
    }
    return answer;
}

Answer Exchange(const std::string &address, const std::string &request)
{
    Connection connection(address);
    connection.Send(request);
    return Parse(connection.ReceiveAll(20000));
}

Answer Get(const std::string &address, const std::string &path, const std::string &headers,
           const std::string &method)
{
    return Exchange(address,
                    method + " " + path + " HTTP/1.1\r\n" + headers + "Connection: close\r\n\r\n");
}

} // namespace http

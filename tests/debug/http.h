// A client that sends what it is told, byte for byte.
#ifndef PM_TEST_DEBUG_HTTP_H
#define PM_TEST_DEBUG_HTTP_H

#include <map>
#include <string>

namespace http
{

struct Answer {
    int status = 0;                             // 0: the connection was closed without one.
    std::map<std::string, std::string> headers; // Names in small letters.
    std::string body;
    std::string raw;
};

class Connection
{
  public:
    // "http://127.0.0.1:PORT", "http://[::1]:PORT", "unix:PATH".
    explicit Connection(const std::string &address);
    ~Connection();
    Connection(const Connection &) = delete;
    Connection &operator=(const Connection &) = delete;
    bool Open() const
    {
        return socket != -1;
    }
    bool Send(const std::string &bytes);
    // Until the end of the connection, or for so long at most; then *ret_ended is false.
    std::string ReceiveAll(int timeout_ms, bool *ret_ended = nullptr);

  private:
    intptr_t socket = -1;
};

Answer Parse(const std::string &raw);
Answer Exchange(const std::string &address, const std::string &request);
// A good request, with other header lines than "Host: localhost" if they are given.
Answer Get(const std::string &address, const std::string &path,
           const std::string &headers = "Host: localhost\r\n", const std::string &method = "GET");

} // namespace http

#endif

// An echo server on Boost.Asio: one thread, a read buffer for each session, TCP_NODELAY.
#include <boost/asio.hpp>

#include <array>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>

namespace asio = boost::asio;
using asio::ip::tcp;

class Session : public std::enable_shared_from_this<Session> {
  public:
    explicit Session(tcp::socket socket) : socket_(std::move(socket)) {}

    void read() {
        auto self = shared_from_this();
        socket_.async_read_some(asio::buffer(buffer_),
                                [self](boost::system::error_code error, std::size_t count) {
                                    if (!error) self->write(count);
                                });
    }

  private:
    void write(std::size_t count) {
        auto self = shared_from_this();
        asio::async_write(socket_, asio::buffer(buffer_, count),
                          [self](boost::system::error_code error, std::size_t) {
                              if (!error) self->read();
                          });
    }

    tcp::socket socket_;
    std::array<char, 16 * 1024> buffer_;
};

void accept(tcp::acceptor& acceptor) {
    acceptor.async_accept([&acceptor](boost::system::error_code error, tcp::socket socket) {
        if (!error) {
            socket.set_option(tcp::no_delay(true), error);
            // Not make_shared with a value: the buffer must not be written before it is used.
            std::shared_ptr<Session>(new Session(std::move(socket)))->read();
        }
        accept(acceptor);
    });
}

int main(int count, char** words) {
    std::string listen = "127.0.0.1:0", workload = "echo";
    for (int index = 1; index + 1 < count; index += 2) {
        if (std::string(words[index]) == "--listen") listen = words[index + 1];
        if (std::string(words[index]) == "--workload") workload = words[index + 1];
    }
    if (workload != "echo") {
        std::cerr << "error: this server does not do " << workload << std::endl;
        return 2;
    }
    try {
        const auto colon = listen.rfind(':');
        const auto port = static_cast<unsigned short>(std::atoi(listen.c_str() + colon + 1));
        // One thread: no locks.
        asio::io_context context(BOOST_ASIO_CONCURRENCY_HINT_UNSAFE);
        tcp::endpoint endpoint(asio::ip::make_address(listen.substr(0, colon)), port);
        tcp::acceptor acceptor(context);
        acceptor.open(endpoint.protocol());
        acceptor.set_option(tcp::acceptor::reuse_address(true));
        acceptor.bind(endpoint);
        acceptor.listen(4096);
        std::cout << "listening on " << acceptor.local_endpoint() << std::endl;
        accept(acceptor);
        context.run();
    } catch (const std::exception& failure) {
        std::cerr << "error: " << failure.what() << std::endl;
        return 1;
    }
}

// A WebSocket server on Boost.Beast, as its examples have it: one thread, a buffer and a queue for each session,
// TCP_NODELAY, the time-outs that it suggests. In `ws-broadcast` all members share the bytes of a message.
#include <boost/asio.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/websocket.hpp>

#include <cstdlib>
#include <cstring>
#include <deque>
#include <iostream>
#include <memory>
#include <string>
#include <unordered_set>

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace websocket = beast::websocket;
using asio::ip::tcp;
using boost::system::error_code;

class Session;

struct Members {
    std::unordered_set<Session*> sessions;
    bool are_had = false;
};

class Session : public std::enable_shared_from_this<Session> {
  public:
    Session(tcp::socket socket, Members& members) : stream_(std::move(socket)), members_(members) {}
    ~Session() { members_.sessions.erase(this); }

    void run() {
        stream_.set_option(websocket::stream_base::timeout::suggested(beast::role_type::server));
        stream_.binary(true);
        stream_.auto_fragment(false); // a message in one frame, as the load expects it
        stream_.async_accept([self = shared_from_this()](error_code error) {
            if (!error) self->read();
        });
    }

    void send(const std::shared_ptr<const std::string>& message) {
        queue_.push_back(message);
        if (queue_.size() == 1) write();
    }

  private:
    void read() {
        stream_.async_read(buffer_, [self = shared_from_this()](error_code error, std::size_t) {
            if (!error) self->received();
        });
    }

    void received() {
        if (!members_.are_had) {
            stream_.async_write(buffer_.data(), [self = shared_from_this()](error_code error, std::size_t) {
                if (error) return;
                self->buffer_.consume(self->buffer_.size());
                self->read();
            });
            return;
        }
        auto message = std::make_shared<const std::string>(beast::buffers_to_string(buffer_.data()));
        buffer_.consume(buffer_.size());
        if (message->size() == 8 && message->compare(0, 4, "HELO") == 0) {
            send(message);
            members_.sessions.insert(this);
        } else {
            for (Session* member : members_.sessions) member->send(message);
        }
        read();
    }

    void write() {
        stream_.async_write(asio::buffer(*queue_.front()), [self = shared_from_this()](error_code error, std::size_t) {
            if (error) return;
            self->queue_.pop_front();
            if (!self->queue_.empty()) self->write();
        });
    }

    websocket::stream<beast::tcp_stream> stream_;
    beast::flat_buffer buffer_;
    std::deque<std::shared_ptr<const std::string>> queue_;
    Members& members_;
};

void accept(tcp::acceptor& acceptor, Members& members) {
    acceptor.async_accept([&](error_code error, tcp::socket socket) {
        if (!error) {
            socket.set_option(tcp::no_delay(true), error);
            std::make_shared<Session>(std::move(socket), members)->run();
        }
        accept(acceptor, members);
    });
}

int main(int count, char** words) {
    std::string listen = "127.0.0.1:0", workload = "ws-echo";
    for (int index = 1; index + 1 < count; index += 2) {
        if (std::string(words[index]) == "--listen") listen = words[index + 1];
        if (std::string(words[index]) == "--workload") workload = words[index + 1];
    }
    Members members;
    members.are_had = workload == "ws-broadcast";
    if (workload != "ws-echo" && !members.are_had) {
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
        accept(acceptor, members);
        context.run();
    } catch (const std::exception& failure) {
        std::cerr << "error: " << failure.what() << std::endl;
        return 1;
    }
}

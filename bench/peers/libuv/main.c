/* An echo server on libuv: one thread, one read buffer for all sessions, TCP_NODELAY. What can be
 * written at once is (uv_try_write); the rest is copied and written by a request. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

static char shared[64 * 1024];

static void lend(uv_handle_t* handle, size_t suggested, uv_buf_t* buffer) {
    (void)handle;
    (void)suggested;
    *buffer = uv_buf_init(shared, sizeof shared);
}

static void ended(uv_handle_t* handle) { free(handle); }

static void end(uv_handle_t* handle) {
    if (!uv_is_closing(handle)) uv_close(handle, ended);
}

static void received(uv_stream_t* session, ssize_t count, const uv_buf_t* buffer);

static void sent(uv_write_t* request, int status) {
    uv_stream_t* session = request->handle;
    free(request);
    if (status < 0) {
        end((uv_handle_t*)session);
    } else if (!uv_is_closing((uv_handle_t*)session)) {
        uv_read_start(session, lend, received);
    }
}

/* While it waits to be written nothing more is read. */
static void write_later(uv_stream_t* session, const char* bytes, size_t count) {
    uv_write_t* request = malloc(sizeof *request + count);
    if (request == NULL) {
        end((uv_handle_t*)session);
        return;
    }
    uv_buf_t rest = uv_buf_init((char*)(request + 1), (unsigned)count);
    memcpy(rest.base, bytes, count);
    uv_read_stop(session);
    if (uv_write(request, session, &rest, 1, sent) < 0) {
        free(request);
        end((uv_handle_t*)session);
    }
}

static void received(uv_stream_t* session, ssize_t count, const uv_buf_t* buffer) {
    if (count < 0) {
        end((uv_handle_t*)session);
    } else if (count > 0) {
        uv_buf_t bytes = uv_buf_init(buffer->base, (unsigned)count);
        int written = uv_try_write(session, &bytes, 1);
        if (written == UV_EAGAIN) written = 0;
        if (written < 0) {
            end((uv_handle_t*)session);
        } else if (written < count) {
            write_later(session, buffer->base + written, (size_t)(count - written));
        }
    }
}

static void arrived(uv_stream_t* listener, int status) {
    if (status < 0) return;
    uv_tcp_t* session = malloc(sizeof *session);
    if (session == NULL) return;
    uv_tcp_init(listener->loop, session);
    if (uv_accept(listener, (uv_stream_t*)session) < 0) {
        end((uv_handle_t*)session);
        return;
    }
    uv_tcp_nodelay(session, 1);
    uv_read_start((uv_stream_t*)session, lend, received);
}

static int failed(const char* what, int error) {
    fprintf(stderr, "error: %s: %s\n", what, uv_strerror(error));
    return 1;
}

int main(int count, char** words) {
    char host[64] = "127.0.0.1";
    int port = 0, error;
    for (int index = 1; index + 1 < count; index += 2) {
        if (strcmp(words[index], "--listen") == 0) {
            sscanf(words[index + 1], "%63[^:]:%d", host, &port);
        } else if (strcmp(words[index], "--workload") == 0 && strcmp(words[index + 1], "echo") != 0) {
            fprintf(stderr, "error: this server does not do %s\n", words[index + 1]);
            return 2;
        }
    }
    uv_loop_t* loop = uv_default_loop();
    struct sockaddr_in address;
    uv_tcp_t listener;
    uv_tcp_init(loop, &listener);
    if ((error = uv_ip4_addr(host, port, &address)) < 0) return failed("address", error);
    error = uv_tcp_bind(&listener, (const struct sockaddr*)&address, 0);
    if (error < 0) return failed("bind", error);
    error = uv_listen((uv_stream_t*)&listener, 4096, arrived);
    if (error < 0) return failed("listen", error);
    int length = sizeof address;
    uv_tcp_getsockname(&listener, (struct sockaddr*)&address, &length);
    printf("listening on %s:%d\n", host, ntohs(address.sin_port));
    fflush(stdout);
    return uv_run(loop, UV_RUN_DEFAULT);
}

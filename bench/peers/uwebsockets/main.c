/* A WebSocket server on uWebSockets, by the C interface of the library that the Python package `socketify` brings: one
 * thread, on libuv, without compression. It sets TCP_NODELAY. In `ws-broadcast` members subscribe to a topic. */
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* As the package's `native.py` declares it. */
struct us_socket_context_options_t {
    const char* key_file_name;
    const char* cert_file_name;
    const char* passphrase;
    const char* dh_params_file_name;
    const char* ca_file_name;
    const char* ssl_ciphers;
    int ssl_prefer_low_memory_usage;
};
struct us_listen_socket_t;
typedef struct uws_app_s uws_app_t;
typedef struct uws_websocket_s uws_websocket_t;
typedef enum { TEXT = 1, BINARY = 2 } uws_opcode_t;
typedef enum { DISABLED = 0 } uws_compress_options_t;
typedef struct {
    int port;
    const char* host;
    int options;
} uws_app_listen_config_t;
typedef struct {
    uws_compress_options_t compression;
    unsigned int maxPayloadLength;
    unsigned short idleTimeout;
    unsigned int maxBackpressure;
    bool closeOnBackpressureLimit;
    bool resetIdleTimeoutOnSend;
    bool sendPingsAutomatically;
    unsigned short maxLifetime;
    void (*upgrade)(void*, void*, void*, void*);
    void (*open)(uws_websocket_t*, void*);
    void (*message)(uws_websocket_t*, const char*, size_t, uws_opcode_t, void*);
    void (*drain)(uws_websocket_t*, void*);
    void (*ping)(uws_websocket_t*, const char*, size_t, void*);
    void (*pong)(uws_websocket_t*, const char*, size_t, void*);
    void (*close)(uws_websocket_t*, int, const char*, size_t, void*);
    void (*subscription)(uws_websocket_t*, const char*, size_t, int, int, void*);
} uws_socket_behavior_t;

uws_app_t* uws_create_app(int ssl, struct us_socket_context_options_t options);
void uws_ws(int ssl, uws_app_t* app, const char* pattern, uws_socket_behavior_t behavior, void* user_data);
int uws_ws_send(int ssl, uws_websocket_t* ws, const char* message, size_t length, uws_opcode_t opcode);
bool uws_ws_subscribe(int ssl, uws_websocket_t* ws, const char* topic, size_t length);
bool uws_publish(int ssl, uws_app_t* app, const char* topic, size_t topic_length, const char* message,
                 size_t message_length, uws_opcode_t opcode, bool compress);
void uws_app_listen_with_config(int ssl, uws_app_t* app, uws_app_listen_config_t config,
                                void (*handler)(struct us_listen_socket_t*, uws_app_listen_config_t, void*),
                                void* user_data);
void uws_app_run(int ssl, uws_app_t* app);
int us_socket_local_port(int ssl, struct us_listen_socket_t* listener);

static const char MEMBERS[] = "members";
static uws_app_t* app;
static char host[64] = "127.0.0.1";

static void echo(uws_websocket_t* session, const char* message, size_t bytes, uws_opcode_t opcode, void* unused) {
    (void)unused;
    uws_ws_send(0, session, message, bytes, opcode);
}

/* Whoever has said hello hears every message that is said after it. */
static void broadcast(uws_websocket_t* session, const char* message, size_t bytes, uws_opcode_t opcode, void* unused) {
    (void)unused;
    if (bytes == 8 && memcmp(message, "HELO", 4) == 0) {
        uws_ws_send(0, session, message, bytes, opcode);
        uws_ws_subscribe(0, session, MEMBERS, sizeof MEMBERS - 1);
    } else {
        uws_publish(0, app, MEMBERS, sizeof MEMBERS - 1, message, bytes, opcode, false);
    }
}

static void listening(struct us_listen_socket_t* listener, uws_app_listen_config_t config, void* unused) {
    (void)config;
    (void)unused;
    if (listener == NULL) {
        fprintf(stderr, "error: cannot listen on %s\n", host);
        exit(1);
    }
    printf("listening on %s:%d\n", host, us_socket_local_port(0, listener));
    fflush(stdout);
}

int main(int count, char** words) {
    const char* workload = "ws-echo";
    int port = 0;
    for (int index = 1; index + 1 < count; index += 2) {
        if (strcmp(words[index], "--listen") == 0) {
            sscanf(words[index + 1], "%63[^:]:%d", host, &port);
        } else if (strcmp(words[index], "--workload") == 0) {
            workload = words[index + 1];
        }
    }
    uws_socket_behavior_t behavior = {
        .compression = DISABLED,
        .maxPayloadLength = 64 * 1024,
        .idleTimeout = 120,
        .maxBackpressure = 64 * 1024,
        .sendPingsAutomatically = true,
    };
    if (strcmp(workload, "ws-echo") == 0) {
        behavior.message = echo;
    } else if (strcmp(workload, "ws-broadcast") == 0) {
        behavior.message = broadcast;
    } else {
        fprintf(stderr, "error: this server does not do %s\n", workload);
        return 2;
    }
    app = uws_create_app(0, (struct us_socket_context_options_t){0});
    if (app == NULL) return 1;
    uws_ws(0, app, "/*", behavior, NULL);
    uws_app_listen_with_config(0, app, (uws_app_listen_config_t){.port = port, .host = host}, listening, NULL);
    uws_app_run(0, app);
    return 1;
}

package main

import (
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/gorilla/websocket"
)

func drive(session *websocket.Conn, _ *http.Request) {
	for _, sent := range messages() {
		send(session, sent)
		receive(session, sent)
		sendFragments(session, sent)
	}
	for number := 0; number < 1000; number++ {
		send(session, textOf(number))
	}
	for number := 0; number < 1000; number++ {
		receive(session, textOf(number))
	}
	sayClose(session, 4003, "enough")
	closes(session, 4003, "")
}

func token(session *websocket.Conn, request *http.Request) {
	same(request.Header.Get("X-Token"), "one", "header")
	same(request.Host, session.LocalAddr().String(), "host")
	sayClose(session, 4003, "")
}

func goodbye(session *websocket.Conn, _ *http.Request) {
	receive(session, message{websocket.TextMessage, []byte("farewell")})
	closes(session, 4002, "farewell")
	fmt.Println("/goodbye holds")
}

// As websockets_server.py does.
func server() {
	upgrader := websocket.Upgrader{HandshakeTimeout: wait, WriteBufferSize: 1000, Subprotocols: []string{"echo.v2"}, EnableCompression: true}
	serve := func(path string, act func(*websocket.Conn, *http.Request)) {
		http.HandleFunc(path, func(answer http.ResponseWriter, request *http.Request) {
			header := http.Header{}
			upgrader := upgrader
			if path == "/other" {
				upgrader.Subprotocols = nil
				header.Set("Sec-WebSocket-Protocol", "other")
			}
			session, err := upgrader.Upgrade(answer, request, header)
			if err != nil {
				fmt.Printf("DIFFERS: %s: %v\n", path, err)
				return
			}
			defer session.Close()
			if differs := said(func() { act(session, request) }); differs != nil {
				fmt.Printf("DIFFERS: %s: %v\n", path, differs)
				sayClose(session, 4999, "it differs")
			}
			// The client has the time to take what it was sent.
			session.SetReadDeadline(time.Now().Add(wait))
			for err = nil; err == nil; _, _, err = session.ReadMessage() {
			}
		})
	}
	serve("/drive", drive)
	serve("/token", token)
	serve("/goodbye", goodbye)
	serve("/other", func(*websocket.Conn, *http.Request) {})
	http.HandleFunc("/refused", func(answer http.ResponseWriter, _ *http.Request) {
		http.Error(answer, "no", http.StatusForbidden)
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	fmt.Println("listening on", listener.Addr())
	must(http.Serve(listener, nil))
}

package main

import (
	"fmt"
	"net/http"
	"os"
	"strings"

	"github.com/gorilla/websocket"
)

var address string

// So small that large messages become many fragments.
var dialer = websocket.Dialer{HandshakeTimeout: wait, WriteBufferSize: 1000, EnableCompression: true}

func connect(path string) *websocket.Conn {
	session, _, err := dialer.Dial("ws://"+address+path, nil)
	must(err)
	return session
}

func isRefused(status int, path string, header http.Header) {
	_, response, err := dialer.Dial("ws://"+address+path, header)
	same(err, websocket.ErrBadHandshake, "error")
	same(response.StatusCode, status, "status")
}

func everyMessage(isCompressed bool) {
	dialer := dialer
	dialer.EnableCompression = isCompressed
	session, response, err := dialer.Dial("ws://"+address, nil)
	must(err)
	defer session.Close()
	same(response.Header.Get("Sec-WebSocket-Extensions") != "", isCompressed, "extensions")
	for _, sent := range messages() {
		send(session, sent)
		receive(session, sent)
	}
}

func aCrowd() {
	ends := make(chan any)
	for i := 0; i < crowd; i++ {
		isCompressed := i%2 == 0
		go func() { ends <- said(func() { everyMessage(isCompressed) }) }()
	}
	for i := 0; i < crowd; i++ {
		same(<-ends, nil, "one of a crowd")
	}
}

func manyAtOnce() {
	session := connect("/")
	defer session.Close()
	for number := 0; number < 1000; number++ {
		send(session, textOf(number))
	}
	for number := 0; number < 1000; number++ {
		receive(session, textOf(number))
	}
}

func fragments() {
	session := connect("/")
	defer session.Close()
	for _, sent := range messages() {
		sendFragments(session, sent)
	}
}

func codes() {
	for code, reason := range map[int]string{1000: "", 1001: "gone", 3000: strings.Repeat("é", 61), 4999: "why not"} {
		session := connect("/")
		sayClose(session, code, reason)
		closes(session, code, "")
		session.Close()
	}
	session := connect("/")
	defer session.Close()
	sayClose(session, websocket.CloseNoStatusReceived, "")
	closes(session, websocket.CloseNoStatusReceived, "")
}

func goodbyeOfTheServer() {
	session := connect("/goodbye")
	defer session.Close()
	receive(session, message{websocket.TextMessage, []byte("goodbye")})
	closes(session, 4001, "goodbye")
}

func subprotocols() {
	for taken, offered := range map[string][]string{"echo": {"else", "echo", "echo.v2"}, "echo.v2": {"echo.v2"}} {
		dialer := dialer
		dialer.Subprotocols = offered
		session, _, err := dialer.Dial("ws://"+address, nil)
		must(err)
		same(session.Subprotocol(), taken, "subprotocol")
		session.Close()
	}
}

func origins() {
	session, _, err := dialer.Dial("ws://"+address, http.Header{"Origin": {"http://" + address}})
	must(err)
	session.Close()
	isRefused(403, "/", http.Header{"Origin": {"http://evil.example.com"}})
}

func client(of string) {
	address = of
	checks := []struct {
		name string
		act  func()
	}{
		{"every message comes back as it was", func() { everyMessage(false) }},
		{"every message comes back compressed", func() { everyMessage(true) }},
		{"a crowd is served", aCrowd},
		{"many messages at once come back in order", manyAtOnce},
		{"fragments come back as one message, and pings within are answered", fragments},
		{"the code of a close comes back", codes},
		{"the server says goodbye with a code and a reason", goodbyeOfTheServer},
		{"the first subprotocol that both speak is taken", subprotocols},
		{"a page of another origin is refused", origins},
		{"an unknown path is refused", func() { isRefused(404, "/nowhere", nil) }},
	}
	failed := 0
	for _, check := range checks {
		if differs := said(check.act); differs != nil {
			failed++
			fmt.Printf("DIFFERS: %s: %v\n", check.name, differs)
		}
	}
	fmt.Printf("%d of %d checks hold\n", len(checks)-failed, len(checks))
	if failed > 0 {
		os.Exit(1)
	}
}

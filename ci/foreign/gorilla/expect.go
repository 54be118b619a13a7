// The package gorilla/websocket as a client of examples/web_socket_echo.rs (gorilla client ADDRESS), and as a server
// that checks examples/web_socket_client.rs (gorilla server).
package main

import (
	"bytes"
	"fmt"
	"math/rand"
	"os"
	"strings"
	"time"

	"github.com/gorilla/websocket"
)

const (
	wait  = 30 * time.Second
	crowd = 41
)

// A text, or bytes.
type message struct {
	kind int
	data []byte
}

// Around the bounds of a frame's three lengths, and a large one.
var sizes = []int{0, 1, 125, 126, 127, 65535, 65536, 1 << 20}

// So many bytes of UTF-8, with characters of each length.
func textOf(size int) message {
	return message{websocket.TextMessage, []byte(strings.Repeat("aé漢🎉", size/10) + strings.Repeat("z", size%10))}
}

// Each size as text and as bytes.
func messages() (all []message) {
	for _, size := range sizes {
		data := make([]byte, size)
		rand.Read(data)
		all = append(all, textOf(size), message{websocket.BinaryMessage, data})
	}
	return all
}

// What differs is a panic; each check catches its own.
func same(found, expected any, of string) {
	if found != expected {
		panic(fmt.Sprintf("%s: %v, not %v", of, found, expected))
	}
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func send(session *websocket.Conn, sent message) {
	must(session.WriteMessage(sent.kind, sent.data))
}

func receive(session *websocket.Conn, expected message) {
	session.SetReadDeadline(time.Now().Add(wait))
	kind, data, err := session.ReadMessage()
	must(err)
	same(kind, expected.kind, "kind")
	if !bytes.Equal(data, expected.data) {
		panic(fmt.Sprintf("%d bytes differ from the %d that were sent", len(data), len(expected.data)))
	}
}

// Sends a message in as many fragments as its writer has need of, with a ping within, and expects it back.
func sendFragments(session *websocket.Conn, sent message) {
	pong := ""
	session.SetPongHandler(func(payload string) error {
		pong = payload
		return nil
	})
	writer, err := session.NextWriter(sent.kind)
	must(err)
	half := len(sent.data) / 2
	for _, piece := range [][]byte{sent.data[:half], sent.data[half:]} {
		_, err = writer.Write(piece)
		must(err)
		must(session.WriteControl(websocket.PingMessage, []byte("within"), time.Now().Add(wait)))
	}
	must(writer.Close())
	receive(session, sent)
	same(pong, "within", "pong")
}

// The session ends with this code and this reason.
func closes(session *websocket.Conn, code int, reason string) {
	session.SetReadDeadline(time.Now().Add(wait))
	_, _, err := session.ReadMessage()
	ended, isClose := err.(*websocket.CloseError)
	if !isClose {
		panic(fmt.Sprintf("not closed, but %v", err))
	}
	same(ended.Code, code, "code")
	same(ended.Text, reason, "reason")
}

func sayClose(session *websocket.Conn, code int, reason string) {
	payload := websocket.FormatCloseMessage(code, reason)
	must(session.WriteControl(websocket.CloseMessage, payload, time.Now().Add(wait)))
}

// What a check says that does not hold, or nothing.
func said(check func()) (differs any) {
	defer func() { differs = recover() }()
	check()
	return nil
}

func main() {
	switch {
	case len(os.Args) == 3 && os.Args[1] == "client":
		client(os.Args[2])
	case len(os.Args) == 2 && os.Args[1] == "server":
		server()
	default:
		fmt.Fprintln(os.Stderr, "usage: gorilla client ADDRESS | gorilla server")
		os.Exit(2)
	}
}
